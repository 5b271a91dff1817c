//! Digests of large files, made once.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Cache;
use crate::bundle::GraphFile;
use crate::error::{Error, Result};
use crate::files;

/// The folder in the cache that remembers digests.
pub(super) const FOLDER: &str = "digests";

/// Where a file stands and what would change with its contents.
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

#[derive(Serialize, Deserialize)]
struct Remembered {
    files: Vec<Stamp>,
    digest: String,
}

/// The sha256 of a graph, as [`GraphFile::digest`] gives it: taken from `cache` where that was made before and none of
/// the files has changed since.
///
/// # Errors
/// [`Error::Io`] where a file cannot be read.
pub fn digest(cache: Option<&Cache>, graph: &GraphFile) -> Result<String> {
    let Some(cache) = cache else { return graph.digest() };
    let paths = std::iter::once(&graph.path).chain(graph.external.iter().map(|external| &external.path));
    let whole = |path: &PathBuf| path.canonicalize().map_err(|e| Error::io(path, "reading", e));
    let files = paths.map(|path| Stamp::of(&whole(path)?)).collect::<Result<Vec<_>>>()?;
    let mut name = Sha256::new();
    files.iter().for_each(|stamp| name.update(stamp.name.as_os_str().as_encoded_bytes()));
    let mut name = files::hexadecimal(name);
    name.truncate(32);
    let place = cache.folder().join(FOLDER).join(format!("{name}.json"));
    let known = files::read(&place).ok().and_then(|text| serde_json::from_slice::<Remembered>(&text).ok());
    if let Some(known) = known.filter(|known| known.files == files) {
        return Ok(known.digest);
    }
    let digest = graph.digest()?;
    let remembered = Remembered { files, digest: digest.clone() };
    // What cannot be remembered is made again; that is all that follows from a disk that is full.
    if let (Some(folder), Ok(text)) = (place.parent(), serde_json::to_vec(&remembered))
        && std::fs::create_dir_all(folder).is_ok()
    {
        let _ = files::write_whole(&place, |file| std::io::Write::write_all(file, &text));
    }
    Ok(digest)
}
