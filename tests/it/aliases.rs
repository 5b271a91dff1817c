//! Old names that still work: each alias of the table means the same as its new name, with one warning.

use std::path::Path;

use crate::common::{answer, copy_folder, ldm_ort, models};
use ldm_ort::aliases::{ALIASES, Alias, AliasKind};
use ldm_ort::plan::Plan;
use ldm_ort::spec::{Overrides, Spec};

/// One line of a pipeline file under the old name, the same under the new one, and one with both names.
struct Sample {
    old: &'static str,
    new: &'static str,
    /// None for values, of which a key has one.
    both: Option<&'static str>,
    /// The names as the warning has them.
    warned: [&'static str; 2],
}

/// A sample of each old key and value. The lines fit into a file and into the table of a stage.
fn sample(alias: &Alias) -> Sample {
    let (old, new, both) = match alias.old {
        "condition[].as" => (
            "condition = [{ as = 'channels', depth_map = 'd.png' }]",
            "condition = [{ conditioning = 'channels', depth_map = 'd.png' }]",
            Some("condition = [{ as = 'channels', conditioning = 'channels', depth_map = 'd.png' }]"),
        ),
        "control[].guess" => (
            "control = [{ image = 'e.png', guess = true }]",
            "control = [{ image = 'e.png', guess_mode = true }]",
            Some("control = [{ image = 'e.png', guess = true, guess_mode = true }]"),
        ),
        "device.keep" => {
            ("device.keep = false", "device.offload = true", Some("device.keep = false\ndevice.offload = true"))
        }
        "device.memory" => (
            "device.memory = '3 GB'",
            "device.memory_budget = '3 GB'",
            Some("device.memory = '3 GB'\ndevice.memory_budget = '3 GB'"),
        ),
        "device.prepare" => (
            "device.prepare = false",
            "device.optimize = false",
            Some("device.prepare = false\ndevice.optimize = true"),
        ),
        "device.small_decoder" => (
            "device.small_decoder.provider = 'cpu'",
            "device.tiny_vae_decoder.provider = 'cpu'",
            Some("device.small_decoder.provider = 'cpu'\ndevice.tiny_vae_decoder.provider = 'cpu'"),
        ),
        "embedding" => (
            "embedding = [{ path = 'x.safetensors' }]",
            "textual_inversion = [{ path = 'x.safetensors' }]",
            Some("embedding = [{ path = 'x.safetensors' }]\ntextual_inversion = [{ path = 'y.safetensors' }]"),
        ),
        "model.small_decoder" => (
            "model.small_decoder.graph = 'd.onnx'",
            "model.tiny_vae_decoder.graph = 'd.onnx'",
            Some("model.small_decoder.graph = 'd.onnx'\nmodel.tiny_vae_decoder.graph = 'd.onnx'"),
        ),
        "output.keep" => (
            "output.keep = true",
            "output.save_intermediate = true",
            Some("output.keep = true\noutput.save_intermediate = true"),
        ),
        "stage[].hand" => (
            "stage = [{ hand = 'image', model.path = 'n', task.image-to-image = {} }]",
            "stage = [{ input = 'image', model.path = 'n', task.image-to-image = {} }]",
            Some("stage = [{ hand = 'image', input = 'image', model.path = 'n', task.image-to-image = {} }]"),
        ),
        "task.NAME.weights" => (
            "task.image-to-image.weights = 'a1111'",
            "task.image-to-image.prompt_weighting = 'a1111'",
            Some("task.image-to-image.weights = 'a1111'\ntask.image-to-image.prompt_weighting = 'none'"),
        ),
        "condition[].conditioning = \"tokens\"" => (
            "condition = [{ conditioning = 'tokens', vectors = 'v.npy' }]",
            "condition = [{ conditioning = 'cross-attention', vectors = 'v.npy' }]",
            None,
        ),
        "model.decoder = \"small\"" => ("model.decoder = 'small'", "model.decoder = 'tiny'", None),
        "task.NAME.long_prompts = \"cut\"" => {
            ("task.image-to-image.long_prompts = 'cut'", "task.image-to-image.long_prompts = 'truncate'", None)
        }
        other => panic!("the alias {other} has no sample here"),
    };
    let warned = [alias.old, alias.new];
    let warned = match alias.old {
        "condition[].as" => ["condition[0].as", "condition[0].conditioning"],
        "control[].guess" => ["control[0].guess", "control[0].guess_mode"],
        "stage[].hand" => ["stage[0].hand", "stage[0].input"],
        "task.NAME.weights" => ["task.image-to-image.weights", "task.image-to-image.prompt_weighting"],
        "condition[].conditioning = \"tokens\"" => {
            ["condition[0].conditioning = \"tokens\"", "condition[0].conditioning = \"cross-attention\""]
        }
        "task.NAME.long_prompts = \"cut\"" => {
            ["task.image-to-image.long_prompts = \"cut\"", "task.image-to-image.long_prompts = \"truncate\""]
        }
        _ => warned,
    };
    Sample { old, new, both, warned }
}

const BASE: &str = "model.path = 'm'\ntask.image-to-image.prompt = 'a'\ntask.image-to-image.image = 'in.png'\n";

fn of_spec() -> impl Iterator<Item = &'static Alias> {
    let kinds = [AliasKind::Key, AliasKind::InverseKey, AliasKind::Value];
    ALIASES.iter().filter(move |alias| kinds.contains(&alias.kind))
}

fn parse(text: &str, set: &[&str]) -> ldm_ort::Result<Spec> {
    let set = set.iter().map(|&key| key.to_owned()).collect();
    Spec::parse(text, None, &Overrides { set, ..Overrides::default() })
}

/// The warnings of a pipeline that reads.
fn warnings(spec: &Spec) -> Vec<&str> {
    spec.old_names.warnings().collect()
}

fn warning(alias: &Alias, [old, new]: [&str; 2]) -> String {
    let inverse = if alias.kind == AliasKind::InverseKey { ", its inverse" } else { "" };
    format!("`{old}` is now `{new}`{inverse}; the old name still works")
}

#[test]
fn an_old_name_means_the_same_as_the_new_one_with_one_warning() {
    let plain = parse(BASE, &[]).expect("the base reads");
    for alias in of_spec() {
        let Sample { old, new, warned, .. } = sample(alias);
        let [old_spec, new_spec] = [old, new]
            .map(|line| parse(&format!("{BASE}{line}\n"), &[]).unwrap_or_else(|error| panic!("{line}: {error}")));
        assert_eq!(old_spec, new_spec, "{old}");
        assert_eq!(old_spec.to_toml(), new_spec.to_toml());
        // A sample with the default would hold nothing, unless the default is what was renamed.
        assert!(new_spec != plain || new.contains("truncate"), "{new} changes nothing");
        assert_eq!(warnings(&old_spec), [warning(alias, warned)]);
        assert!(warnings(&new_spec).is_empty(), "{:?}", warnings(&new_spec));
        // What is written has new names alone, and the file of an old version can be a record of one.
        let again = parse(&new_spec.to_toml(), &[]).expect("what is written reads");
        assert!(warnings(&again).is_empty());
        let record = Spec::from_record(&format!("{BASE}{old}\n"), Path::new("image.png"), &Overrides::default());
        match record {
            Ok(record) => assert!(warnings(&record.spec).is_empty(), "{:?}", warnings(&record.spec)),
            Err(error) => panic!("{old}: {error}"),
        }
    }
}

#[test]
fn the_keys_of_a_stage_have_the_same_old_names() {
    for alias in of_spec().filter(|alias| !alias.old.starts_with("stage")) {
        let Sample { old, new, warned, .. } = sample(alias);
        let stage = |line: &str| {
            let text = format!("{BASE}stage = [{{ model.path = 'n', task.image-to-image.strength = 0.5, {line} }}]\n");
            parse(&text, &[]).unwrap_or_else(|error| panic!("{line}: {error}"))
        };
        let (old, new) = (stage(old), stage(new));
        assert_eq!(old, new);
        let warned = warned.map(|name| format!("stage[0].{name}"));
        assert_eq!(warnings(&old), [warning(alias, [&warned[0], &warned[1]])]);
        assert!(warnings(&new).is_empty());
    }
}

#[test]
fn an_old_name_beside_its_new_one_is_an_error() {
    for alias in of_spec() {
        let Sample { both, warned: [old, new], .. } = sample(alias);
        let Some(both) = both else { continue };
        let error = parse(&format!("{BASE}{both}\n"), &[]).expect_err(both).to_string();
        let (problem, _) = error.split_once("\n  hint: ").unwrap_or_else(|| panic!("{both}: no hint: {error}"));
        assert_eq!(problem, format!("{old}: is the old name of `{new}`, which is given too; keep that one"), "{both}");
    }
}

#[test]
fn flags_take_old_names_too() {
    for alias in of_spec() {
        let Sample { old, new, warned, .. } = sample(alias);
        // An array of tables is given by its items.
        let [old, new] = [old, new].map(|line| match line.split_once(" = [{ ") {
            None => vec![line.to_owned()],
            Some((array, items)) => {
                let items = items.trim_end_matches(" }]").split(", ");
                items.map(|item| format!("{array}.0.{item}")).collect()
            }
        });
        let read = |set: &[String]| {
            let set: Vec<&str> = set.iter().map(String::as_str).collect();
            parse(BASE, &set).unwrap_or_else(|error| panic!("{set:?}: {error}"))
        };
        let (by_old, by_new) = (read(&old), read(&new));
        assert_eq!(by_old, by_new);
        assert_eq!(warnings(&by_old), [warning(alias, warned)], "{old:?}");
        assert!(warnings(&by_new).is_empty());
    }
    // A flag wins over the file, whichever of the two has the old name.
    for (line, set) in
        [("device.prepare = true", "device.optimize=false"), ("device.optimize = true", "device.prepare=false")]
    {
        let spec = parse(&format!("{BASE}{line}\n"), &[set]).expect("a pipeline");
        assert!(!spec.device.optimize, "{line} {set}");
        assert_eq!(warnings(&spec).len(), 1);
    }
    let text = format!("{BASE}embedding = [{{ path = 'x.safetensors' }}]\n");
    let inputs = vec!["embedding[0].path=y.safetensors".to_owned()];
    let spec = Spec::from_record(&text, Path::new("image.png"), &Overrides { inputs, ..Overrides::default() });
    assert_eq!(spec.expect("a pipeline").spec.textual_inversions[0].path, Path::new("y.safetensors"));
}

#[test]
fn an_old_name_is_warned_of_once() {
    let stage = "model.path = 'n', task.image-to-image = {}, device.keep = true";
    let text = format!("{BASE}device.keep = false\nstage = [{{ {stage} }}, {{ {stage} }}]\n");
    let spec = parse(&text, &["device.keep=true"]).expect("a pipeline");
    assert_eq!(warnings(&spec), ["`device.keep` is now `device.offload`, its inverse; the old name still works"]);
}

#[test]
fn an_old_folder_is_read_with_a_warning() {
    let decoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/previews/tiny_vae_decoder");
    for alias in ALIASES.iter().filter(|alias| alias.kind == AliasKind::Folder) {
        assert_eq!(alias.new, "tiny_vae_decoder", "the folder has a model here");
        let plans = [alias.old, alias.new].map(|name| {
            let folder = tempfile::tempdir().unwrap();
            let model = folder.path().join("model");
            copy_folder(&models().join("sd1"), &model);
            copy_folder(&decoder, &model.join(name));
            let text = format!(
                "[model]\npath = {:?}\ndecoder = \"tiny\"\n[task.text-to-image]\nprompt = \"a\"\n",
                model.to_str().unwrap()
            );
            let plan = Plan::new(parse(&text, &[]).expect("a pipeline")).expect("a plan");
            assert!(plan.model.decodes_tiny());
            plan.model.warnings()
        });
        let warning = format!("`{}/` is now `{}/`; the old name still works", alias.old, alias.new);
        assert_eq!(plans[0].iter().filter(|told| **told == warning).count(), 1, "{:?}", plans[0]);
        assert!(!plans[1].iter().any(|told| told.contains("old name")), "{:?}", plans[1]);
    }
}

#[test]
fn the_command_warns_of_old_names_once() {
    let folder = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = ldm_ort(folder.path());
        command.args(arguments).env("LDM_ORT_CACHE_DIR", folder.path()).env_remove("LDM_ORT_OPTIMIZE");
        command.envs(variables.iter().copied());
        answer(command)
    };
    let text = format!(
        "[model]\npath = {:?}\n[task.text-to-image]\nprompt = \"a\"\n[device]\nprepare = false\n",
        models().join("sd1").to_str().unwrap()
    );
    std::fs::write(folder.path().join("p.toml"), text).unwrap();
    for arguments in [["check", "p.toml"], ["inspect", "p.toml"], ["plot", "p.toml"]] {
        let told = said(&arguments, &[]);
        assert_eq!(told.code, Some(0), "{told}");
        let warning = "warning: `device.prepare` is now `device.optimize`; the old name still works";
        assert_eq!(told.stderr.lines().filter(|line| *line == warning).count(), 1, "{told}");
    }
    for alias in ALIASES.iter().filter(|alias| alias.kind == AliasKind::Variable) {
        let warning = format!("warning: {}", alias.plain_warning());
        let told = said(&["cache", "list"], &[(alias.old, "0")]);
        assert_eq!((told.code, told.stdout.as_str(), told.stderr.trim_end()), (Some(0), "", warning.as_str()));
        let told = said(&["cache", "list"], &[(alias.new, "0")]);
        assert_eq!((told.code, told.stdout.as_str(), told.stderr.as_str()), (Some(0), "", ""));
    }
    for alias in ALIASES.iter().filter(|alias| alias.kind == AliasKind::Command) {
        let [old, new] = [alias.old, alias.new].map(|name| said(&[name, "none.toml"], &[]));
        assert_eq!((old.code, new.code), (Some(2), Some(2)));
        let warning = format!("warning: {}\n", alias.plain_warning());
        assert_eq!(old.stderr, warning + &new.stderr);
    }
    let told = said(&["list", "aliases", "--json"], &[]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&told.stdout).expect("JSON");
    let told: Vec<_> = rows.iter().map(|row| (row["old"].as_str(), row["new"].as_str())).collect();
    assert_eq!(told, ALIASES.iter().map(|alias| (Some(alias.old), Some(alias.new))).collect::<Vec<_>>());
}

#[test]
fn a_size_limit_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ldm_ort(folder.path());
    command.args(["cache", "list"]).env("LDM_ORT_CACHE_DIR", folder.path()).env_remove("LDM_ORT_OPTIMIZE");
    command.env("LDM_ORT_GRAPH_CACHE_SIZE", "much");
    let told = answer(command);
    assert_eq!(told.code, Some(2), "{told}");
    let expected = "error: LDM_ORT_GRAPH_CACHE_SIZE: expected a size such as \"20 GB\", or \"unlimited\", found \"much\"\n  hint: ";
    assert!(told.stderr.starts_with(expected), "{told}");
}
