//! The command line as its users call it.

mod contact_sheet;
mod defaults;
mod habits;
mod inspection;
mod interrupts;
mod named_flags;
mod outputs;
mod prompts;

use crate::common::{Answer, answer, ldm_ort, root};
use std::path::Path;

fn call(folder: &Path, arguments: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(arguments).env("NO_COLOR", "1");
    let answer = answer(command);
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    answer
}

/// Returns the output of a command that succeeds.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let answer = call(folder, arguments);
    assert_eq!(answer.code, Some(0), "{arguments:?}: {answer}");
    assert!(!answer.stdout.is_empty(), "{arguments:?} prints its result on stdout: {answer}");
    answer.stdout
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// The golden pipeline of the tiny model, as an argument.
fn plain() -> String {
    let pipeline = root().join("tests/golden/pipelines/plain/pipeline.toml");
    pipeline.to_str().expect("the path is Unicode").to_owned()
}
