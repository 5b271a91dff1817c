//! Digests of large files, computed once.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cache_folder::{DIGESTS, GraphCache};
use super::checksums::{read_sealed, write_sealed};
use super::stamp::Stamp;
use crate::bundle::GraphFile;
use crate::error::{Error, Result};
use crate::files;
use crate::session::Cancel;

/// A digest and the files that it is of.
#[derive(Serialize, Deserialize)]
pub(super) struct Remembered {
    /// The graph, and the files next to it that hold weights.
    pub files: Vec<Stamp>,
    pub digest: String,
}

impl Remembered {
    pub(super) fn read(place: &Path) -> Option<Self> {
        read_sealed(place)
    }

    /// True if sizes and times of all files are as they were.
    pub(super) fn is_current(&self) -> bool {
        self.files.iter().all(|file| Stamp::of(&file.name).is_ok_and(|now| now == *file))
    }

    /// Reads the files, and digests them.
    pub(super) fn digest_now(&self, cancel: &Cancel) -> Result<String> {
        let mut hash = Sha256::new();
        for file in &self.files {
            cancel.check()?;
            files::digest_into(&file.name, &mut hash)?;
        }
        Ok(files::hexadecimal(hash))
    }
}

/// The sha256 of a graph, as [`GraphFile::digest`] gives it: from `cache` if it was computed before and none of the
/// files has changed since.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read.
pub fn digest(cache: Option<&GraphCache>, graph: &GraphFile) -> Result<String> {
    let Some(cache) = cache else { return graph.digest() };
    let paths = std::iter::once(&graph.path).chain(graph.external.iter().map(|external| &external.path));
    let whole = |path: &PathBuf| path.canonicalize().map_err(|e| Error::io(path, "reading", e));
    let files = paths.map(|path| Stamp::of(&whole(path)?)).collect::<Result<Vec<_>>>()?;
    let mut name = Sha256::new();
    files.iter().for_each(|stamp| name.update(stamp.name.as_os_str().as_encoded_bytes()));
    let mut name = files::hexadecimal(name);
    name.truncate(32);
    let place = cache.folder().join(DIGESTS).join(format!("{name}.json"));
    let known = Remembered::read(&place);
    if let Some(known) = known.filter(|known| known.files == files) {
        return Ok(known.digest);
    }
    let digest = graph.digest()?;
    let remembered = Remembered { files, digest: digest.clone() };
    // If it cannot be written, the next run digests again.
    if !cache.is_read_only && place.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok()) {
        let _ = write_sealed(&place, &remembered);
    }
    Ok(digest)
}
