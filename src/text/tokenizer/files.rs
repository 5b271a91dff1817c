//! Reading a tokenizer's files.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files;

/// Reads a text file, or nothing where there is none.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    let bytes = match files::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "reading", e)),
    };
    let text = String::from_utf8(bytes).map_err(|_| Error::model(path, "is not UTF-8 text", "fetch the file again"))?;
    if text.starts_with("version https://git-lfs") {
        let help = "fetch the real file, for example with git lfs pull";
        return Err(Error::model(path, "is a Git LFS pointer, not the file itself", help));
    }
    Ok(Some(text))
}

/// Reads a JSON file, or nothing where there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(&text))
        .map(Some)
        .map_err(|e| Error::model(path, format!("is not the JSON it should be: {e}"), "fetch the file again"))
}
