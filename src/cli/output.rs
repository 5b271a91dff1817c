//! Writing results.

use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::files;

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

/// Requires that a file can be written where a flag says, and that its name does not promise another format than
/// `extension`. `content` says what is written.
///
/// # Errors
/// [`Error::Input`] naming the flag.
pub(super) fn require_place(flag: &str, path: &Path, extension: &str, content: &str) -> Result<()> {
    files::require_format(flag, path, extension, content)?;
    files::require_writable_file(flag, path)
}

/// A reader that has seen enough, such as `head`, is no failure.
fn written(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("stdout", "writing", error)),
        _ => Ok(()),
    }
}
