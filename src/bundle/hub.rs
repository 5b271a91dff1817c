//! The Hugging Face cache: `models--ORG--NAME` with `blobs/`, `refs/` and `snapshots/`. A model directory in it is a
//! snapshot of links to the blobs.

use std::path::{Component, Path, PathBuf};

use super::onnx::INCOMPLETE;
use super::search::{exists, list};
use crate::error::{Error, Result};
use crate::files;

/// Returns the model directory for `dir`: that directory itself or, for an entry of the Hugging Face cache, the
/// snapshot that its `refs/main` names, which is the one that `from_pretrained` loads. An entry without that file must
/// have exactly one snapshot.
///
/// # Errors
/// [`Error::Model`] if it is an entry without a snapshot, or with several snapshots and no `refs/main`.
pub(super) fn snapshot(dir: &Path) -> Result<PathBuf> {
    let snapshots = dir.join("snapshots");
    let is_entry = ["blobs", "refs"].iter().any(|name| dir.join(name).is_dir());
    if !snapshots.is_dir() || !is_entry || exists(&dir.join("model_index.json")) {
        return Ok(dir.to_path_buf());
    }
    let main = dir.join("refs/main");
    if let Ok(name) = files::read_text(&main) {
        let name = Path::new(name.trim());
        let is_plain = matches!(name.components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)]);
        let named = snapshots.join(name);
        return match is_plain && named.is_dir() {
            true => Ok(named),
            false => {
                let problem = format!("names the snapshot {}, which {} lacks", name.display(), snapshots.display());
                Err(Error::model(&main, problem, INCOMPLETE))
            }
        };
    }
    let mut names = list(&snapshots)?;
    match names.len() {
        1 => Ok(snapshots.join(names.remove(0))),
        0 => Err(Error::model(&snapshots, "contains no snapshot of the model", INCOMPLETE)),
        _ => Err(Error::model(
            dir,
            format!("contains several snapshots and no refs/main: {}", names.join(", ")),
            format!("use one of them, such as {}", snapshots.join(&names[0]).display()),
        )),
    }
}
