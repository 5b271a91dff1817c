//! `ldm-ort batch`: lines, keys, resumed and shared batches, verification.

mod keys;
mod lines;
mod parity;
mod resumed;
mod shards;
mod verified;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{Answer, answer, ldm_ort, models};

/// The images of a folder: their bytes by their names below it.
type Images = BTreeMap<String, Vec<u8>>;

/// A folder with a pipeline of the tiny Stable Diffusion model that has no seed.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a cat'\n[run]\nsteps = 2\nwidth = 64\nheight = 64\n",
        models().join("sd1").display()
    );
    std::fs::write(folder.path().join("p.toml"), text).expect("a file");
    folder
}

/// Writes lines to a file of a folder.
fn write(folder: &Path, name: &str, lines: &[&str]) {
    std::fs::write(folder.join(name), lines.join("\n")).expect("a file");
}

/// Writes so many prompts to `prompts.jsonl`.
fn write_prompts(folder: &Path, count: usize) {
    let lines: Vec<String> = (0..count).map(|number| format!("\"a cat, number {number}\"")).collect();
    std::fs::write(folder.join("prompts.jsonl"), lines.join("\n")).expect("a file");
}

/// `ldm-ort batch` with these arguments.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = ldm_ort(folder);
    command.arg("batch").args(arguments).env("NO_COLOR", "1");
    for name in ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX"] {
        command.env_remove(name);
    }
    command
}

fn call(folder: &Path, arguments: &[&str]) -> Answer {
    let answer = answer(command(folder, arguments));
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    answer
}

/// The objects that a batch with `--json` prints, its exit code being `code`.
fn objects(folder: &Path, arguments: &[&str], code: i32) -> Vec<Value> {
    let answer = call(folder, &[arguments, &["--json"]].concat());
    assert_eq!(answer.code, Some(code), "{answer}");
    parse(&answer.stdout)
}

fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// The summary, which is the last object.
fn summary(objects: &[Value]) -> &Value {
    &objects.last().expect("a summary")["summary"]
}

/// The images below a folder, without manifests and claims. Each name is a key in the folder of its first digits.
fn images(folder: &Path) -> Images {
    let mut images = Images::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let first = entry.file_name().into_string().expect("Unicode");
        if first == "manifest" || first == "claims" {
            continue;
        }
        for file in std::fs::read_dir(entry.path()).expect("a folder").map(|file| file.expect("an entry")) {
            let name = file.file_name().into_string().expect("Unicode");
            if !name.starts_with('.') {
                assert!(name.starts_with(&first) && name.len() > 64, "{first}/{name}");
                images.insert(format!("{first}/{name}"), std::fs::read(file.path()).expect("an image"));
            }
        }
    }
    images
}

/// The manifest of a shard.
fn manifest(folder: &Path, shard: &str) -> Vec<Value> {
    parse(&std::fs::read_to_string(folder.join("manifest").join(format!("{shard}.jsonl"))).expect("a manifest"))
}
