//! Texts of a task's table.

use crate::keys::Table;
use crate::text::tokenizer::PROMPT_BYTES;

/// Reads a key whose value is one text or a list of them, each of them at most [`PROMPT_BYTES`] long.
pub(super) fn texts(table: &mut Table<'_>, key: &str) -> Option<Vec<String>> {
    let texts: Vec<String> = table.strings(key)?.iter().map(|item| item.string("a string")).collect::<Option<_>>()?;
    if let Some(bytes) = texts.iter().map(String::len).find(|&bytes| bytes > PROMPT_BYTES) {
        table.report_at(key, format!("has a text of {bytes} bytes; expected at most {PROMPT_BYTES}"));
        return None;
    }
    Some(texts)
}
