//! Writing results.
//!
//! Names, prompts and messages may come from files that a stranger made. Whatever they hold, only [`visible`] text reaches a
//! terminal.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::files;

/// Says something to the person at the terminal. Where nobody listens any more, that is no reason to fail.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(text));
}

/// Prints warnings on standard error, a line each.
pub(super) fn warn(warnings: impl IntoIterator<Item = impl AsRef<str>>) {
    warnings.into_iter().for_each(|warning| say(&format!("warning: {}", warning.as_ref())));
}

/// Replaces characters that steer a terminal, or reorder the text around them, by escapes such as `\u001b`. Line breaks and
/// tabs stay. Within JSON's strings the escapes stand for the same characters.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        let is_control = c.is_control() && c != '\n' && c != '\t';
        // Marks that change the direction of text, and line separators that a terminal may follow.
        is_control
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// A writer of text that is [`visible`] once it's written. For lines whose own colors are not to be lost, there's none.
pub(super) struct Visible<W>(pub W);

impl<W: Write> Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(visible(&String::from_utf8_lossy(bytes)).as_bytes()).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Writes a text.
pub(super) fn text(out: &mut dyn Write, text: &str) -> Result<()> {
    written(out.write_all(visible(text).as_bytes()).and_then(|()| out.flush()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(visible("a line\n\tand é 漢 \u{1f600}\n"), "a line\n\tand é 漢 \u{1f600}\n");
        assert!(matches!(visible("plain"), Cow::Borrowed(_)));
        let raw = "\u{1b}]0;title\u{7} \r\u{8}\u{7f}\u{9b}2J\u{202e}gnp.\u{2028}";
        let shown = visible(raw);
        assert_eq!(shown, "\\u001b]0;title\\u0007 \\u000d\\u0008\\u007f\\u009b2J\\u202egnp.\\u2028");
        // In JSON the characters come back.
        let json = visible(&serde_json::to_string(raw).unwrap()).into_owned();
        assert!(!json.contains(char::is_control));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), raw);
        let mut out = Vec::new();
        Visible(&mut out).write_all(b"a\x1b[31m\n").unwrap();
        assert_eq!(out, b"a\\u001b[31m\n");
    }
}
