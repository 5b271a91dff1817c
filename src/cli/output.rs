//! Writing results.

use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};

/// Says something to the person at the terminal. Where nobody listens any more, that is no reason to fail.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a text.
pub(super) fn text(out: &mut dyn Write, text: &str) -> Result<()> {
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes a value as JSON to read, with a line end.
pub(super) fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Error::io("stdout", "writing", error.into()))?;
    text(out, &(json + "\n"))
}

/// Requires that a file can be put where a flag says, as far as the folder is concerned. `example` is a name for it.
///
/// # Errors
/// [`Error::Input`] naming the flag.
pub(super) fn require_place(flag: &str, path: &Path, example: &str) -> Result<()> {
    if path.is_dir() {
        let problem = format!("{} is a directory, and a file is to be written", path.display());
        return Err(Error::input(flag, problem, format!("name a file in it, such as {example}")));
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(Error::input(
            flag,
            format!("{} is no folder", folder.display()),
            "make it first, or choose another path",
        )),
        _ => Ok(()),
    }
}

/// A reader that has seen enough, such as `head`, is no failure.
fn written(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("stdout", "writing", error)),
        _ => Ok(()),
    }
}
