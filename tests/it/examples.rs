//! The programs in `examples/` run as their first lines say. `cargo test` builds them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{answer, ldm_ort, root, runtime};

/// A folder with a pipeline of a few steps of the demo model.
fn world() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let model = root().join("models/shapes");
    let text = format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a red circle'\n[run]\nsteps = 4\nseed = 5\n",
        model.display()
    );
    std::fs::write(folder.path().join("pipeline.toml"), text).expect("a file");
    folder
}

/// Runs an example in a folder, and returns its output.
fn example(folder: &Path, name: &str, arguments: &[&str]) -> String {
    let test = std::env::current_exe().expect("this test");
    let target = test.ancestors().nth(2).expect("a target folder");
    let program = target.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(program.is_file(), "{} is not built: cargo build --examples", program.display());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("ORT_DYLIB_PATH", runtime().path()).env("LDM_ORT_OPTIMIZE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let answer = answer(command);
    assert_eq!(answer.code, Some(0), "{name}: {answer}");
    answer.stdout
}

/// The file that the command writes for the pipeline.
fn expected(folder: &Path, flags: &[&str]) -> Vec<u8> {
    let mut command = ldm_ort(folder);
    command.args(["run", "pipeline.toml", "-q", "-o", "expected"]).args(flags);
    let answer = answer(command);
    assert_eq!(answer.code, Some(0), "{answer}");
    read(folder, answer.stdout.trim())
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_first_image() {
    let folder = world();
    let said = example(folder.path(), "first_image", &["pipeline.toml", "a green star"]);
    assert_eq!(said, "image-7.png: 64 x 64 pixels\n");
    assert!(read(folder.path(), "image-7.png") == expected(folder.path(), &["-p", "a green star", "-s", "7"]));
}

#[test]
fn progress_and_cancelling() {
    let folder = world();
    let said = example(folder.path(), "progress_and_cancel", &["pipeline.toml"]);
    assert!(said.contains("step 2 of 4") && said.contains("stopped at step 2 of 4"), "{said}");
    assert!(!said.contains("finished"), "{said}");
}

#[test]
fn two_workers() {
    let folder = world();
    example(folder.path(), "two_workers", &["pipeline.toml"]);
    let images: std::collections::BTreeSet<_> =
        (1..=8).map(|seed| read(folder.path(), &format!("worker-{seed}.png"))).collect();
    assert_eq!(images.len(), 8);
    assert!(images.contains(&expected(folder.path(), &["-s", "8"])));
}

#[test]
fn an_image_in_memory() {
    let folder = world();
    let input = root().join("models/shapes/sample.png").display().to_string();
    example(folder.path(), "image_in_memory", &["pipeline.toml", &input, "a blue square"]);
    assert!(read(folder.path(), "redrawn.webp").starts_with(b"RIFF"));
    let record = ldm_ort::metadata::read_record(&folder.path().join("redrawn.webp")).expect("a record");
    assert_eq!((record.task.as_str(), record.prompt.as_str(), record.seed), ("image-to-image", "a blue square", 7));
}

#[test]
fn a_host_with_an_environment() {
    let folder = world();
    let library = runtime().path().display().to_string();
    let model = root().join("models/shapes/text_encoder/model.onnx").display().to_string();
    let said = example(folder.path(), "ort_host", &[&library, &model, "pipeline.toml"]);
    assert_eq!(said, "the host's own session has 1 inputs\n");
    assert!(read(folder.path(), "host.png") == expected(folder.path(), &[]));
}
