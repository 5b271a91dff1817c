//! Habits of the command line: short flags, directories, files of prompts, sweeps, versions.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::call;
use crate::common::{Answer, ldm_ort, models};

/// The objects of a run with `--json`.
fn objects(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let answer = call(folder, &[&["run"][..], arguments, &["--json"]].concat());
    assert_eq!(answer.code, Some(0), "{answer}");
    answer.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn path_of(folder: &Path, object: &Value) -> PathBuf {
    folder.join(object["path"].as_str().expect("a path"))
}

/// A folder with a pipeline of the tiny Stable Diffusion model.
pub(super) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a cat'\n[run]\nsteps = 2\nseed = 4\n",
        models().join("sd1").display()
    );
    std::fs::write(folder.path().join("p.toml"), text).expect("a file");
    folder
}

#[test]
fn a_model_directory_runs_without_a_pipeline_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = models().join("sd1").display().to_string();
    let flags = ["-p", "a dog", "-n", "blurry", "-s", "9", "--steps", "2", "--width", "64", "--height", "64"];
    let more = ["--scheduler", "ddim", "--set", "task.text-to-image.guidance_scale=3", "--images", "2"];
    let made = objects(folder.path(), &[&[model.as_str()][..], &flags[..], &more].concat());
    assert_eq!(made.len(), 2);
    let path = path_of(folder.path(), &made[1]);
    assert_eq!(path.parent(), Some(folder.path().join("outputs").as_path()));
    let record = ldm_ort::metadata::read_png(&path).expect("a record");
    assert_eq!((record.prompt.as_str(), record.negative_prompt.as_str(), record.seed), ("a dog", "blurry", 10));
    assert_eq!((record.steps, record.scheduler.as_str(), record.guidance_scale), (2, "ddim", 3.0));
    // The same with a folder of its own.
    let made = objects(folder.path(), &[&[model.as_str(), "-o", "mine"][..], &flags[..]].concat());
    assert!(path_of(folder.path(), &made[0]).starts_with(folder.path().join("mine")), "{made:?}");
}

#[test]
fn prompts_come_from_a_file_or_standard_input() {
    let folder = folder();
    std::fs::write(folder.path().join("prompts.txt"), "a dog\n\n  a bird  \r\n").expect("a file");
    let made = objects(folder.path(), &["p.toml", "-p", "a fish", "--prompts-file", "prompts.txt"]);
    let told = |made: &[Value]| -> Vec<(String, u64, u64)> {
        let row = |o: &Value| (o["prompt"].as_str().unwrap_or("").to_owned(), o["seed"].as_u64(), o["index"].as_u64());
        made.iter().map(row).map(|(p, s, i)| (p, s.expect("a seed"), i.expect("an index"))).collect()
    };
    let row = |prompt: &str, seed, index| (prompt.to_owned(), seed, index);
    assert_eq!(told(&made), [row("a fish", 4, 0), row("a dog", 5, 1), row("a bird", 6, 2)]);

    let mut command = ldm_ort(folder.path());
    command.args(["run", "p.toml", "--prompts-file", "-", "--same-seed", "--images", "2", "--json"]);
    command.stdin(Stdio::piped());
    let mut child = command.spawn().expect("a child");
    child.stdin.take().expect("a pipe").write_all(b"a dog\na bird\n").expect("prompts");
    let same: Answer = child.wait_with_output().expect("an answer").into();
    assert_eq!(same.code, Some(0), "{same}");
    let made: Vec<Value> = same.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(told(&made), [row("a dog", 4, 0), row("a dog", 5, 1), row("a bird", 4, 2), row("a bird", 5, 3)]);
    // Each is made again from its record.
    let path = path_of(folder.path(), &made[3]);
    let again = objects(folder.path(), &["--from", path.to_str().expect("Unicode"), "--model", &sd1(), "-o", "again"]);
    let bytes = |path: &Path| std::fs::read(path).expect("an image");
    assert!(bytes(&path) == bytes(&path_of(folder.path(), &again[0])), "other bytes");

    std::fs::write(folder.path().join("blank.txt"), " \n\n").expect("a file");
    for (arguments, says) in [
        (["--prompts-file", "blank.txt"], "blank.txt: holds no prompt"),
        (["--prompts-file", "none.txt"], "none.txt: no such file"),
    ] {
        let answer = call(folder.path(), &[&["run", "p.toml"][..], &arguments[..]].concat());
        assert_eq!(answer.code, Some(2), "{answer}");
        assert!(answer.stderr.contains(says) && answer.stderr.contains("hint:"), "{answer}");
    }
    let answer = call(folder.path(), &["run", "-", "--prompts-file", "-"]);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert!(answer.stderr.contains("more than once"), "{answer}");
}

#[test]
fn a_sweep_runs_every_combination_with_the_same_seed() {
    let folder = folder();
    let sweeps = ["--sweep", "scheduler=euler,ddim", "--sweep", "guidance_scale=2,3.5"];
    let made = objects(folder.path(), &[&["p.toml"][..], &sweeps[..]].concat());
    let records: Vec<_> =
        made.iter().map(|o| ldm_ort::metadata::read_png(&path_of(folder.path(), o)).expect("a record")).collect();
    let rows: Vec<_> = records.iter().map(|r| (r.scheduler.as_str(), r.guidance_scale, r.seed)).collect();
    assert_eq!(rows, [("euler", 2.0, 4), ("euler", 3.5, 4), ("ddim", 2.0, 4), ("ddim", 3.5, 4)]);
    // One of them is what a run of its own makes.
    let alone = ["--scheduler", "ddim", "--set", "task.text-to-image.guidance_scale=3.5", "-o", "alone"];
    let alone = objects(folder.path(), &[&["p.toml"][..], &alone[..]].concat());
    let bytes = |object: &Value| std::fs::read(path_of(folder.path(), object)).expect("an image");
    let pixels = |object: &Value| image::load_from_memory(&bytes(object)).expect("an image").to_rgb8();
    assert!(pixels(&made[3]) == pixels(&alone[0]), "other pixels");

    for (sweep, says) in [("steps", "KEY=VALUE"), ("stepz=1,2", "stepz"), ("scheduler=euler,nosuch", "nosuch")] {
        let answer = call(folder.path(), &["run", "p.toml", "--sweep", sweep]);
        assert_eq!(answer.code, Some(2), "{sweep}: {answer}");
        assert!(answer.stderr.contains(says), "{sweep}: {answer}");
    }
}

#[test]
fn lists_fit_a_hundred_columns() {
    for table in ["schedulers", "tasks", "aliases"] {
        let answer = call(&models(), &["list", table]);
        assert_eq!(answer.code, Some(0), "{answer}");
        let long: Vec<_> = answer.stdout.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "{table}: {long:#?}");
    }
}

#[test]
fn the_version_names_the_runtime() {
    let answer = call(&models(), &["--version"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    let lines: Vec<_> = answer.stdout.lines().collect();
    assert_eq!(lines[0], concat!("ldm-ort ", env!("CARGO_PKG_VERSION")));
    let version = lines[1].strip_prefix("ONNX Runtime ").expect("the runtime's line");
    assert!(version.starts_with("1."), "{answer}");
    let missing = tempfile::tempdir().expect("a folder");
    let named = missing.path().join("none.so").display().to_string();
    let answer = call(&models(), &["--runtime", &named, "--version"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert!(answer.stdout.contains("ONNX Runtime cannot be used: ") && answer.stdout.contains("none.so"), "{answer}");
}

#[test]
fn the_demo_is_written_and_passes_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = call(folder.path(), &["demo", "demo"]);
    assert_eq!(written.code, Some(0), "{written}");
    let model = folder.path().join("demo/models/shapes/model_index.json");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/shapes/model_index.json");
    let read = |path: &Path| std::fs::read(path).expect("a file");
    assert_eq!(read(&model), read(&own));
    let answer = call(folder.path(), &["check", "demo/pipeline.toml"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    // Again is no harm; a file with other contents stays.
    assert_eq!(call(folder.path(), &["demo", "demo"]).code, Some(0));
    std::fs::write(folder.path().join("demo/pipeline.toml"), "mine").expect("a file");
    let answer = call(folder.path(), &["demo", "demo"]);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert!(answer.stderr.contains("other contents") && answer.stderr.contains("hint:"), "{answer}");
    assert_eq!(read(&folder.path().join("demo/pipeline.toml")), b"mine");
}

#[test]
fn formats_keep_the_record_and_names_follow_a_pattern() {
    let folder = folder();
    let png = objects(folder.path(), &["p.toml", "--images", "2", "--name", "{index} {prompt}_{seed}"]);
    assert!(path_of(folder.path(), &png[1]).ends_with("1 a-cat_5.png"), "{png:?}");
    let original = image::open(path_of(folder.path(), &png[0])).expect("an image").to_rgb8();
    for (flags, extension, lossless) in
        [(&["--format", "webp"][..], "webp", true), (&["--format", "jpeg", "--quality", "95"], "jpg", false)]
    {
        let made = objects(folder.path(), &[&["p.toml"][..], flags].concat());
        let path = path_of(folder.path(), &made[0]);
        assert!(path.ends_with(format!("a-cat-4.{extension}")), "{path:?}");
        let record = ldm_ort::metadata::read_record(&path).expect("a record");
        assert_eq!((record.prompt.as_str(), record.seed), ("a cat", 4));
        if lossless {
            let pixels = image::open(&path).expect("an image").to_rgb8();
            assert!(pixels == original, "{extension}: other pixels");
        }
        let again = objects(
            folder.path(),
            &[&["--from", path.to_str().expect("Unicode"), "--model", &sd1(), "-o", "again"][..], flags].concat(),
        );
        let bytes = |path: &Path| std::fs::read(path).expect("an image");
        assert!(bytes(&path) == bytes(&path_of(folder.path(), &again[0])), "{extension}: other bytes");
    }
    for (flags, says) in
        [(&["--format", "webp", "--quality", "80"][..], "--quality"), (&["--name", "{sead}"], "{sead}")]
    {
        let answer = call(folder.path(), &[&["run", "p.toml"][..], flags].concat());
        assert_eq!(answer.code, Some(2), "{answer}");
        assert!(answer.stderr.contains(says) && answer.stderr.contains("hint:"), "{answer}");
    }
}

/// The model directory, which records outside of the current directory name by its last part only.
fn sd1() -> String {
    crate::common::models().join("sd1").display().to_string()
}
