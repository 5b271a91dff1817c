//! Stamps of files, by which changes are noticed.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
