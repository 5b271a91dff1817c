//! Warnings about a lack of memory.

use crate::error::Error;

/// The warning after the other graphs were unloaded.
pub(super) fn unloaded(error: &Error, next: &str) -> String {
    let error = without_hint(error);
    format!("{error}\n  the other graphs are unloaded, and {next}; device.offload = true unloads them from the start")
}

/// An error's text without its hint, for a warning that says what is done.
pub(super) fn without_hint(error: &Error) -> String {
    match error {
        Error::Memory { problem, .. } => Error::Memory { problem: problem.clone(), help: String::new() }.to_string(),
        other => other.to_string(),
    }
}
