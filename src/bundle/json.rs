//! Configuration files of other programs: JSON, including Python's non-standard literals.

use std::path::Path;

use serde_json::{Map, Value};

use super::onnx::INCOMPLETE;
use crate::error::{Error, Result};
use crate::files;

/// Reads a JSON object from a file.
///
/// Also accepts the literals of Python's `json` module: `Infinity` becomes the largest `f64` (`1.797…e308`, which `as
/// f32` turns into infinity), `-Infinity` its negative, and `NaN` becomes `null`. A byte order mark is skipped. Unknown
/// keys are kept; interpreting them is up to the reader of each key.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read; [`Error::Model`] if it is not a JSON object.
pub fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let bytes = files::read(path).map_err(|e| match files::broken_link(path) {
        Some(reason) => Error::model(path, reason, INCOMPLETE),
        None => Error::io(path, "reading", e),
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|e| Error::model(path, format!("is not JSON: {}", e.utf8_error()), "copy the file again"))?;
    match serde_json::from_str(&replace_bare_words(text.trim_start_matches('\u{feff}'))) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::model(path, "expected a JSON object, {…}", "copy the file again")),
        Err(e) => Err(Error::model(path, format!("is not JSON: {e}"), explain(&text))),
    }
}

/// Returns a hint for a file that does not parse, from its beginning.
fn explain(text: &str) -> &'static str {
    let start = text.trim_start();
    if start.starts_with('<') {
        "this is a web page: the download failed; fetch the file again"
    } else if start.starts_with("version https://git-lfs") {
        "this is a Git LFS pointer: fetch the file itself with `git lfs pull`"
    } else {
        "copy the file again"
    }
}

/// Replaces `NaN`, `Infinity` and `-Infinity` outside of strings by values that serde_json can read.
fn replace_bare_words(text: &str) -> String {
    const WORDS: [(&str, &str); 3] =
        [("-Infinity", "-1.7976931348623157e308"), ("Infinity", "1.7976931348623157e308"), ("NaN", "null")];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let (mut in_string, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        if !in_string && let Some((word, number)) = WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
            out.push_str(number);
            rest = &rest[word.len()..];
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Returns the number under `key`, if any.
pub(crate) fn number(map: &Map<String, Value>, key: &str) -> Option<f64> {
    map.get(key).and_then(Value::as_f64)
}

/// Returns the positive integer under `key`, if any.
pub(crate) fn count(map: &Map<String, Value>, key: &str) -> Option<usize> {
    map.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0)
}

/// Returns the string under `key`, if any.
pub(crate) fn string<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_words_are_read_outside_strings_only() {
        let text = r#"{"a": -Infinity, "b": Infinity, "c": NaN, "NaN \" Infinity": "-Infinity \\", "d": [NaN]}"#;
        let value: Value = serde_json::from_str(&replace_bare_words(text)).unwrap();
        assert_eq!(value["a"].as_f64(), Some(f64::MIN));
        assert_eq!(value["b"].as_f64().map(|x| x as f32), Some(f32::INFINITY));
        assert!(value["c"].is_null());
        assert_eq!(value["NaN \" Infinity"], "-Infinity \\");
        assert!(value["d"][0].is_null());
    }
}
