//! Opening a model's files, with the errors of incomplete downloads.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// The hint for a broken link: the Hugging Face cache creates the link before the file.
pub(crate) const INCOMPLETE: &str = "the download is incomplete; fetch the model again";

/// Opens a file, and distinguishes a broken link from a missing file.
pub(super) fn open_file(path: &Path) -> Result<File> {
    let is_folder = || Error::model(path, "is a directory; expected a .onnx file", "give the path of the file in it");
    let not_there = |e: std::io::Error| match (files::broken_link(path), e.kind()) {
        (Some(reason), _) => Error::model(path, reason, INCOMPLETE),
        (None, std::io::ErrorKind::NotFound) => Error::model(path, "no such file", "give the path of a .onnx file"),
        // Windows does not open a folder.
        _ if path.is_dir() => is_folder(),
        _ => Error::io(path, "reading", e),
    };
    let file = files::open(path).map_err(not_there)?;
    let metadata = file.metadata().map_err(|e| Error::io(path, "reading", e))?;
    if metadata.is_dir() {
        return Err(is_folder());
    }
    Ok(file)
}
