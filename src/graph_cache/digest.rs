//! Digests of large files, computed once.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::GraphCache;
use super::checksums::{read_sealed, write_sealed};
use crate::bundle::GraphFile;
use crate::error::{Error, Result};
use crate::files;
use crate::session::Cancel;

/// The folder of the cache with the digests.
pub(super) const FOLDER: &str = "digests";

/// The path of a file, and the properties that would change with its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub name: PathBuf,
    pub bytes: u64,
    /// Nanoseconds since 1970, of the last change of its contents.
    pub modified: u128,
    /// The last change of anything about it, which no program can set back; 0 where the system does not tell.
    pub changed: i128,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, "reading", e))?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt;
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let changed = 0;
        Ok(Self {
            name: path.to_path_buf(),
            bytes: metadata.len(),
            modified: modified.map_or(0, |time| time.as_nanos()),
            changed,
        })
    }
}

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
    let place = cache.folder().join(FOLDER).join(format!("{name}.json"));
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
