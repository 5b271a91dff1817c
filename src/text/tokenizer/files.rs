//! Reads a tokenizer's files.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files::{self, broken_link};

/// The maximum size of a file in bytes. The largest `tokenizer.json` of a published text encoder has 17 million.
const MOST_BYTES: u64 = 64 << 20;

/// The hint for a tokenizer's file that cannot be used.
pub(super) const FETCH: &str = "fetch the file again, or use the tokenizer that comes with the model";

/// Reads a text file; `None` if it does not exist.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    if let Some(bytes) = std::fs::metadata(path).ok().map(|file| file.len()).filter(|&bytes| bytes > MOST_BYTES) {
        let problem = format!("has {bytes} bytes; expected at most {MOST_BYTES}");
        return Err(Error::model(path, problem, "use the tokenizer that comes with the model"));
    }
    let bytes = match files::read(path) {
        Ok(bytes) => bytes,
        Err(_) if broken_link(path).is_some() => return Err(incomplete(path)),
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

/// Checks that none of a tokenizer's files is a broken link, which would be taken for a missing optional file.
pub(super) fn require_whole(dir: &Path) -> Result<()> {
    const FILES: [&str; 9] = [
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "spiece.model",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ];
    match FILES.iter().map(|name| dir.join(name)).find(|path| broken_link(path).is_some()) {
        Some(path) => Err(incomplete(&path)),
        None => Ok(()),
    }
}

fn incomplete(path: &Path) -> Error {
    let reason = broken_link(path).unwrap_or_default();
    Error::model(path, reason, "the download is incomplete; fetch the tokenizer again")
}

/// Reads a JSON file; `None` if it does not exist.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(&text))
        .map(Some)
        .map_err(|e| Error::model(path, format!("is not valid JSON: {e}"), "fetch the file again"))
}
