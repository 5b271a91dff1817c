//! Room in the cache: the eviction of the least recently used entries.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::cache_folder::GraphCache;
use super::entry::{self, CachedGraph};
use super::lock;
use super::usage::Usage;
use crate::error::{Error, Result};

/// The outcome of [`GraphCache::trim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// The bytes that were freed.
    pub freed: u64,
    /// The bytes of the entries that are left.
    pub left: u64,
}

/// An entry that may be evicted, or what is left of one.
struct Candidate {
    folder: PathBuf,
    bytes: u64,
    last_use: SystemTime,
}

impl GraphCache {
    /// Removes entries, the least recently used first, until the rest has at most `limit` bytes. Entries that a process has
    /// open stay, so that more may be left.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read or an entry cannot be removed.
    pub fn trim(&self, limit: u64) -> Result<Trimmed> {
        let before = self.bytes()?;
        let left = self.evict(None, |left, _| left <= limit)?;
        Ok(Trimmed { freed: before.saturating_sub(left), left })
    }

    /// The time of an entry's last use: when it was made, if it was not opened since.
    pub fn last_use(&self, entry: &CachedGraph) -> SystemTime {
        let made = UNIX_EPOCH + Duration::from_secs(entry.made);
        Usage::last(&self.root, entry.folder()).map_or(made, |last| last.max(made))
    }

    /// Makes room for an entry of about `bytes` bytes: below the limit, and on the disk with a tenth to spare.
    ///
    /// # Errors
    /// [`Error::Input`] if there is not enough after everything was evicted that can be.
    pub(super) fn make_room(&self, bytes: u64) -> Result<()> {
        let needed = bytes.saturating_add(bytes / 10);
        let fits =
            |cached: u64, free: u64| cached.saturating_add(bytes) <= self.limit.bytes(cached, free) && free > needed;
        let cached = self.evict(None, fits)?;
        let free = self.free();
        if fits(cached, free) {
            return Ok(());
        }
        let limit = self.limit.bytes(cached, free);
        let (problem, help) = if free <= needed {
            (
                format!("the optimized graph takes {}, and the disk has {} free", size(bytes), size(free)),
                "free space on the disk, name another folder with LDM_ORT_CACHE_DIR, or set [device] optimize = false",
            )
        } else {
            (
                format!(
                    "the optimized graph takes {}, and the graph cache is limited to {}{}",
                    size(bytes),
                    size(limit),
                    if cached > 0 { format!(", of which graphs in use take {}", size(cached)) } else { String::new() }
                ),
                "raise the limit with LDM_ORT_GRAPH_CACHE_SIZE, or set [device] optimize = false",
            )
        };
        Err(Error::input(self.root.display().to_string(), problem, help))
    }

    /// Evicts entries until the cache is within its limit, but not the one with the key `spared`.
    pub(super) fn evict_beyond_limit(&self, spared: Option<&str>) -> Result<()> {
        self.evict(spared, |cached, free| cached <= self.limit.bytes(cached, free)).map(|_| ())
    }

    /// Evicts entries, the least recently used first, until `is_enough` is true of the bytes that are left and those that
    /// the disk has free. Returns the bytes that are left.
    fn evict(&self, spared: Option<&str>, is_enough: impl Fn(u64, u64) -> bool) -> Result<u64> {
        let mut candidates = self.candidates()?;
        candidates.sort_by(|a, b| (a.last_use, &a.folder).cmp(&(b.last_use, &b.folder)));
        let mut left: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
        for Candidate { folder, bytes, .. } in candidates {
            if is_enough(left, self.free()) {
                break;
            }
            if folder.file_name().is_some_and(|name| Some(&*name.to_string_lossy()) == spared) {
                continue;
            }
            // One process makes it, or has it open, or removes it itself.
            let Some(_lock) = lock::try_lock(&self.root, &folder)? else { continue };
            let Some(_taken) = Usage::take(&self.root, &folder) else { continue };
            entry::remove(&folder)?;
            left = left.saturating_sub(bytes);
        }
        Ok(left)
    }

    fn candidates(&self) -> Result<Vec<Candidate>> {
        let candidate = |folder: PathBuf| {
            let last_use = match CachedGraph::read(&folder) {
                Some(entry) => self.last_use(&entry),
                // The oldest of all: nobody can open it.
                None => UNIX_EPOCH,
            };
            Candidate { bytes: entry::bytes_in(&folder), folder, last_use }
        };
        Ok(self.folders()?.into_iter().map(candidate).collect())
    }

    /// The bytes of all that is in the cache.
    fn bytes(&self) -> Result<u64> {
        Ok(self.folders()?.iter().map(|folder| entry::bytes_in(folder)).sum())
    }

    /// The bytes that the disk has free. A file system that does not tell is taken to have enough.
    fn free(&self) -> u64 {
        fs4::available_space(&self.root).unwrap_or(u64::MAX)
    }
}

fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < 1e9 { format!("{:.1} MB", bytes / 1e6) } else { format!("{:.1} GB", bytes / 1e9) }
}
