//! Pipeline files and flags, right and wrong.
//!
//! Each `tests/fixtures/spec/good/NAME.toml` stands beside `NAME.txt`, the whole pipeline it means, and each
//! `bad/NAME.toml` beside `NAME.txt`, the problems it is answered with. A first line `# flags: ...` holds flags of
//! `ldm-ort run`, parted by spaces. To add a case, add its TOML, run `UPDATE_EXPECTED=1 cargo test --test it spec::`, and
//! read what was written.

use crate::common::root;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use ldm_ort::cli::args::{Cli, Command};
use ldm_ort::spec::{Overrides, SchedulerSpec, Spec};
use ldm_ort::task::{ImageOrLatents, ImageToImage, Prompting, Task, TextToImage, Unconditional, find};
use ldm_ort::{Error, Result};

fn folder(name: &str) -> PathBuf {
    root().join("tests/fixtures/spec").join(name)
}

/// The TOML files of a folder, in order.
fn cases(name: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

/// The overrides that the first line of a case spells as flags.
fn overrides(path: &Path) -> Overrides {
    let text = fs::read_to_string(path).unwrap();
    let Some(flags) = text.lines().next().and_then(|line| line.strip_prefix("# flags: ")) else {
        return Overrides::default();
    };
    let words = ["ldm-ort", "run", "pipeline.toml"].into_iter().chain(flags.split(' '));
    match Cli::try_parse_from(words).unwrap().command {
        Command::Run(run) => run.overrides.to_overrides(),
        other => panic!("{other:?} is not a run"),
    }
}

fn load(path: &Path) -> Result<Spec> {
    Spec::load(path, &overrides(path))
}

/// Holds each case's text against the file beside it, all of them before failing.
fn compare(name: &str, text_of: impl Fn(&Path) -> String) {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let root = folder(name).display().to_string();
    let mut wrong = Vec::new();
    for path in cases(name) {
        // Folders are told by a name of their own, so that the texts hold wherever the checkout lies.
        let actual = text_of(&path).replace(&root, "FOLDER").replace(env!("CARGO_MANIFEST_DIR"), "ROOT") + "\n";
        let beside = path.with_extension("txt");
        if update {
            fs::write(&beside, &actual).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default().replace("\r\n", "\n");
        if actual != expected {
            wrong.push(format!("{}\nexpected:\n{expected}\nfound:\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn good_files_mean_what_stands_beside_them() {
    compare("good", |path| load(path).map_or_else(|error| format!("error: {error}"), |spec| spec.to_toml()));
}

#[test]
fn bad_files_are_answered_with_what_stands_beside_them() {
    compare("bad", |path| match load(path) {
        Ok(spec) => format!("no problem was found:\n{}", spec.to_toml()),
        Err(error) => {
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            let (problems, _) = text.split_once("\n  hint: ").expect("a hint after the problems");
            problems.to_owned()
        }
    });
}

#[test]
fn a_spec_written_out_reads_back_the_same() {
    for path in cases("good") {
        let spec = load(&path).unwrap();
        let text = spec.to_toml();
        let again = Spec::parse(&text, None, &Overrides::default()).unwrap();
        assert_eq!(again.to_toml(), text, "{}", path.display());
        // A path given by a flag is relative to the current directory until it is written out.
        let overrides = overrides(&path);
        let is_path = |set: &String| set.contains("path=") || set.contains("image=");
        if overrides.output.is_none() && !overrides.set.iter().any(is_path) {
            assert_eq!(again, spec, "{}", path.display());
        }
    }
}

#[test]
fn a_spec_made_in_code_reads_back_the_same() {
    let mut prompting = Prompting::new(vec!["a \"circle\"\n\t\\ of 日本 \u{7f}".into(), String::new()]);
    prompting.negative_prompts = vec!["x".into(), "y".into()];
    prompting.guidance_scale = Some(0.1 + 0.2);
    let input = ImageOrLatents::Image("/in'.png".into());
    let tasks: [Box<dyn Task>; 3] = [
        TextToImage { prompting: prompting.clone() }.into(),
        ImageToImage { prompting, input, strength: Some(1e-9) }.into(),
        Unconditional.into(),
    ];
    for task in tasks {
        let mut spec = Spec::new("/models/a model", task);
        spec.output.dir = "/out".into();
        spec.run.seed = Some(i64::MAX as u64);
        spec.scheduler = Some(SchedulerSpec::named("ddim"));
        let again = Spec::parse(&spec.to_toml(), None, &Overrides::default()).unwrap();
        assert_eq!(again, spec);
    }
}

#[test]
fn paths_are_relative_to_where_they_were_written() {
    let text = "[model]\npath = \"m\"\n[task.image-to-image]\nprompt = \"\"\nimage = \"in.png\"\n";
    let overrides = Overrides {
        output: Some("here".into()),
        set: vec!["task.image-to-image.image=other.png".into()],
        ..Overrides::default()
    };
    let file = Path::new("some/where/pipeline.toml");
    let spec = Spec::parse(text, Some(file), &Overrides::default()).unwrap();
    assert_eq!(spec.model.path, Path::new("some/where/m"));
    assert_eq!(spec.output.dir, Path::new("some/where/outputs"));
    let spec = Spec::parse(text, Some(file), &overrides).unwrap();
    assert_eq!(spec.output.dir, Path::new("here"));
    let task: &ImageToImage = spec.task.downcast_ref().unwrap();
    assert_eq!(task.input, ImageOrLatents::Image("other.png".into()));
}

#[test]
fn prompts_have_a_largest_length() {
    let long = "a".repeat(32 * 1024);
    let spec = |keys: &str| {
        let text = format!("[model]\npath = \"m\"\n[task.text-to-image]\n{keys}\n");
        Spec::parse(&text, None, &Overrides::default())
    };
    assert!(spec(&format!("prompt = \"{long}\"")).is_ok());
    for (key, keys) in [
        ("prompt", format!("prompt = \"{long}a\"")),
        ("prompt", format!("prompt = [\"\", \"{long}a\"]")),
        ("negative_prompt", format!("prompt = \"\"\nnegative_prompt = \"{long}a\"")),
        ("prompt_2", format!("prompt = \"\"\nprompt_2 = \"{long}a\"")),
    ] {
        let error = spec(&keys).unwrap_err().to_string();
        let want = format!("task.text-to-image.{key}: has a text of 32769 bytes; expected at most 32768");
        assert!(error.contains(&want), "{error}");
    }
}

#[test]
fn the_table_of_tasks_tells_the_keys_each_takes() {
    let keys = |name| find(name).unwrap().keys().join(" ");
    let of_prompts = "prompt negative_prompt prompt_2 negative_prompt_2 prompt_3 negative_prompt_3 guidance_scale \
                      true_cfg_scale guidance_interval guidance_rescale prompt_weighting long_prompts text_cleaning clip_skip max_sequence_length complex_human_instruction original_size crop target_size \
                      aesthetic_score negative_aesthetic_score";
    assert_eq!(keys("text-to-image"), of_prompts);
    assert_eq!(keys("image-to-image"), format!("{of_prompts} latents image strength"));
    assert_eq!(keys("inpaint"), format!("image mask {of_prompts} strength"));
    assert_eq!(keys("unconditional"), "");
}

#[test]
fn a_file_cut_short_anywhere_is_read_or_answered() {
    for path in cases("good") {
        let text = fs::read_to_string(&path).unwrap();
        for (end, _) in text.char_indices() {
            match Spec::parse(&text[..end], Some(&path), &Overrides::default()) {
                Ok(_) => {}
                Err(Error::Spec(problems)) => assert!(!problems.is_empty(), "{}, cut at {end}", path.display()),
                Err(other) => panic!("{}, cut at {end}: {other}", path.display()),
            }
        }
    }
}

#[test]
fn files_that_are_no_text_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let message = |path: &Path| match Spec::load(path, &Overrides::default()) {
        Err(Error::Spec(problems)) => problems[0].message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(message(&folder.path().join("none.toml")).starts_with("cannot be read: "));
    assert_eq!(message(folder.path()), "is a directory; expected a pipeline file such as pipeline.toml");
    let file = folder.path().join("image.png");
    fs::write(&file, b"\x89PNG\r\n\x1a\n\x00\xff").unwrap();
    assert_eq!(message(&file), "is not UTF-8 text; it is a PNG image, which is run again with --from");
    fs::write(&file, b"\xff\xfe[").unwrap();
    assert_eq!(message(&file), "is not UTF-8 text");
}
