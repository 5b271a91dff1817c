//! The folder of the cache, its settings and its entries.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::entry::{self, CachedGraph};
use super::integrity::Integrity;
use super::lock;
use super::size_limit::SizeLimit;
use crate::error::{Error, Result};
use crate::session::Cancel;

/// The folder in the cache with the digests of large files.
pub(super) const DIGESTS: &str = "digests";

/// The folder in the cache with the measurements.
pub(super) const MEASURED: &str = "measured";

/// The folder in the cache with the comparisons of providers with the CPU.
pub(super) const VERIFIED: &str = "verified";

/// The folder in the cache with the graphs that have few products for bf16.
pub(super) const FEW_PRODUCTS: &str = "few-products";

/// The cache of optimized graphs, in a folder.
///
/// Its files are checked against the checksums that were written with them: small files before they are opened, large ones
/// in the background, each once for a cache and its clones ([`GraphCache::wait_checked`]).
#[derive(Debug, Clone)]
pub struct GraphCache {
    pub(super) root: PathBuf,
    /// The size up to which files are checked before they are opened.
    pub(super) checked_first: u64,
    pub(super) limit: SizeLimit,
    pub(super) is_read_only: bool,
    /// True once a warning said that the folder cannot be written.
    pub(super) is_told: Arc<AtomicBool>,
    pub(super) integrity: Arc<Integrity>,
}

/// The size up to which files are checked before they are opened, unless another is set.
const CHECKED_FIRST: u64 = 8 << 20;

impl GraphCache {
    /// The cache in the folder `root`, which is created with the first entry.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            checked_first: CHECKED_FIRST,
            limit: SizeLimit::default(),
            is_read_only: false,
            is_told: Arc::default(),
            integrity: Arc::default(),
        }
    }

    /// Sets the size in bytes up to which files are checked before they are opened, 8 MiB by default. Larger ones are
    /// checked in the background.
    pub fn checking_first(self, bytes: u64) -> Self {
        Self { checked_first: bytes, ..self }
    }

    /// Sets the size limit.
    pub fn limited_to(self, limit: SizeLimit) -> Self {
        Self { limit, ..self }
    }

    /// Opens the entries that exist and writes nothing. A folder that cannot be written is treated so in any case.
    pub fn read_only(self) -> Self {
        Self { is_read_only: true, ..self }
    }

    /// Waits until all that was opened is checked. A run does so before it hands out an image.
    ///
    /// # Errors
    /// [`Error::Io`] naming a damaged file, whose graph the next run makes again; [`Error::Interrupted`] if `cancel` is
    /// thrown.
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

    /// All entries, the oldest first, without incomplete and damaged ones.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn entries(&self) -> Result<Vec<CachedGraph>> {
        let mut entries: Vec<CachedGraph> =
            self.folders()?.iter().filter_map(|folder| CachedGraph::read(folder)).collect();
        entries.sort_by(|a, b| (a.made, &a.key).cmp(&(b.made, &b.key)));
        Ok(entries)
    }

    /// Removes all entries for which `is_chosen` returns true, and all incomplete or damaged ones. Returns the bytes that
    /// were freed. Entries that another process is making stay.
    ///
    /// # Errors
    /// [`Error::Io`] naming what cannot be removed.
    pub fn clear(&self, is_chosen: impl Fn(&CachedGraph) -> bool) -> Result<u64> {
        let mut freed = 0;
        for folder in self.folders()? {
            if CachedGraph::read(&folder).is_some_and(|entry| !is_chosen(&entry)) {
                continue;
            }
            let Some(_lock) = lock::try_lock(&self.root, &folder)? else { continue };
            freed += entry::bytes_in(&folder);
            entry::remove(&folder)?;
        }
        Ok(freed)
    }

    pub(super) fn folders(&self) -> Result<Vec<PathBuf>> {
        let listed = match std::fs::read_dir(&self.root) {
            Ok(listed) => listed,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(&self.root, "listing", e)),
        };
        let folders = listed.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        const FINDINGS: [&str; 4] = [DIGESTS, MEASURED, VERIFIED, FEW_PRODUCTS];
        let is_entry = |path: &PathBuf| path.file_name().is_some_and(|n| !FINDINGS.iter().any(|own| n == *own));
        Ok(folders.filter(is_entry).collect())
    }
}
