//! Whole model directories with one damaged file, as `check` sees them.

use std::path::Path;

use ldm_ort::bundle::{self, Bundle, inspect};
use ldm_ort::spec::init_toml;
use ldm_ort::task::task_fits;
use ldm_ort::{Overrides, Plan, Spec};

use super::harness::{Reader, Seed};
use super::readers::root;

/// Model directories of small files, each of another family.
const MODELS: [&str; 11] = [
    "tests/fixtures/models/sd1",
    "tests/fixtures/models/sd1-legacy",
    "tests/fixtures/models/pixel",
    "tests/fixtures/families/xl",
    "tests/fixtures/families/sd3",
    "tests/fixtures/families/flux-dev",
    "tests/fixtures/families/lcm",
    "tests/fixtures/systems/class-embedder",
    "tests/fixtures/systems/layout",
    "tests/fixtures/systems/text-bert",
    "tests/fixtures/systems/uncond-vq",
];

/// The files of a model directory that end so, relative to it.
fn files(folder: &Path, within: &Path, is_wanted: fn(&str) -> bool, into: &mut Vec<String>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(within).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in Unicode");
        if path.is_dir() {
            files(folder, &path, is_wanted, into);
        } else if is_wanted(name) {
            let relative = path.strip_prefix(folder).expect("it is within");
            into.push(relative.to_str().expect("a path in Unicode").replace('\\', "/"));
        }
    }
}

fn seeds(is_wanted: fn(&str) -> bool) -> Vec<Seed> {
    let of = |model: &&str| {
        let folder = root(model);
        let mut names = Vec::new();
        files(&folder, &folder, is_wanted, &mut names);
        names.into_iter().map(|name| Seed::within(&folder, &name)).collect::<Vec<_>>()
    };
    MODELS.iter().flat_map(of).collect()
}

/// Does what `inspect`, `init` and `check` do.
fn check(folder: &Path, _: &Path) -> Result<(), String> {
    let report =
        inspect(folder, &bundle::DirectoryOverrides::default(), task_fits).map_err(|error| error.to_string())?;
    serde_json::to_string(&report).map_err(|error| error.to_string())?;
    drop(report.to_string());
    let opened = Bundle::open(folder, &bundle::DirectoryOverrides::default()).map_err(|error| error.to_string())?;
    let text = init_toml(&opened, &folder.display().to_string(), &task_fits(&opened));
    let set = ["run.steps=3", "device.memory_budget='900 GB'"].map(str::to_owned).to_vec();
    let spec = Spec::parse(&text, None, &Overrides { set, ..Overrides::default() });
    let plan = Plan::new(spec.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    drop(plan.execution.warnings());
    Ok(())
}

#[test]
fn configurations_of_a_directory() {
    Reader {
        name: "model directory",
        seeds: seeds(|name| name.ends_with(".json") && !name.starts_with("tokenizer") && !name.starts_with("vocab")),
        read: check,
        inputs: 120,
        well_formed: 0.6,
        accepted: 0.2,
        names_file: false,
    }
    .run();
}

#[test]
fn any_file_of_a_directory() {
    Reader {
        name: "damaged file",
        seeds: seeds(|name| !name.ends_with(".md") && !name.ends_with(".png")),
        read: check,
        inputs: 120,
        well_formed: 0.5,
        accepted: 0.2,
        names_file: false,
    }
    .run();
}
