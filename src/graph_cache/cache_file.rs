//! Findings about a graph on this machine, stored next to the optimized graphs.

use std::marker::PhantomData;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::cache_folder::GraphCache;
use super::checksums::{read_sealed, write_sealed};
use crate::files;

/// The file of one finding, named by a digest of everything that it depends on.
#[derive(Debug, Clone)]
pub struct CacheFile<T> {
    path: PathBuf,
    is_read_only: bool,
    finding: PhantomData<fn() -> T>,
}

impl GraphCache {
    /// The file in `folder` of a finding that depends on `parts`.
    pub(super) fn file<T>(&self, folder: &str, parts: impl IntoIterator<Item = String>) -> CacheFile<T> {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut name = files::hexadecimal(hash);
        name.truncate(32);
        CacheFile {
            path: self.root.join(folder).join(format!("{name}.json")),
            is_read_only: self.is_read_only,
            finding: PhantomData,
        }
    }
}

impl<T: Serialize + DeserializeOwned> CacheFile<T> {
    /// The stored finding, if there is one.
    pub fn read(&self) -> Option<T> {
        read_sealed(&self.path)
    }

    /// Stores a finding. If it cannot be written, the next run looks again.
    pub fn write(&self, finding: T) {
        if !self.is_read_only && self.path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok()) {
            let _ = write_sealed(&self.path, &finding);
        }
    }
}
