//! The cache of optimized graphs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::integrity::Integrity;
use crate::error::Result;
use crate::session::Cancel;

/// The folder that prepared graphs are kept in.
///
/// Its files are checked against the checksums that were written with them: small files before they are opened,
/// large ones in the background, each once for a cache and its clones ([`GraphCache::wait_checked`]).
#[derive(Debug, Clone)]
pub struct GraphCache {
    pub(super) root: PathBuf,
    /// The size up to which files are checked before they are opened.
    pub(super) checked_first: u64,
    pub(super) integrity: Arc<Integrity>,
}

/// The size up to which files are checked before they are opened, if nothing sets another.
const CHECKED_FIRST: u64 = 8 << 20;

impl GraphCache {
    /// The cache in the folder `root`, which is made when the first graph is kept.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), checked_first: CHECKED_FIRST, integrity: Arc::default() }
    }

    /// Sets the size in bytes up to which files are checked before they are opened, 8 MiB by default. Larger ones are
    /// checked in the background.
    pub fn checking_first(self, bytes: u64) -> Self {
        Self { checked_first: bytes, ..self }
    }

    /// Waits until all that was opened is checked. A run does so before it hands out an image.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming a file that is not as it was written, whose graph the next run makes again;
    /// [`Error::Interrupted`](crate::Error::Interrupted) if `cancel` is thrown.
    pub fn wait_checked(&self, cancel: &Cancel) -> Result<()> {
        self.integrity.wait(cancel)
    }

    /// The number of damaged files that were found in the background so far. Once it grows, a graph that was opened before
    /// may be a damaged one.
    pub fn damages(&self) -> usize {
        self.integrity.found()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.root
    }
}
