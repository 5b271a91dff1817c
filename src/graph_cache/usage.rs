//! The use of entries: by a process right now, and the last time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::Result;
use crate::files;
use crate::session::Cancel;

/// The use file of an entry, `KEY.use` next to its folder. Processes that have the entry open hold a shared lock on it, and
/// the time of its last change is that of the entry's last use.
///
/// It is not in the entry's folder, whose files are compared with their times.
pub(super) struct Usage;

/// A shared lock on the use file of an entry, until the last clone is dropped; none if nothing can be written.
#[derive(Debug, Clone, Default)]
pub(super) struct InUse(pub(super) Option<Arc<File>>);

/// The lock is no part of what an entry is.
impl PartialEq for InUse {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Usage {
    fn path(root: &Path, folder: &Path) -> PathBuf {
        root.join(format!("{}.use", folder.file_name().unwrap_or_default().to_string_lossy()))
    }

    /// The time of an entry's last use, if that was noted.
    pub(super) fn last(root: &Path, folder: &Path) -> Option<SystemTime> {
        std::fs::metadata(Self::path(root, folder)).ok()?.modified().ok()
    }

    /// Takes an entry that no process has open, so that none opens it as long as the file is. `None` if one has, or if the
    /// file system has no locks to tell.
    pub(super) fn take(root: &Path, folder: &Path) -> Option<File> {
        let file = files::open_lock_file(&Self::path(root, folder)).ok()?;
        file.try_lock().is_ok().then_some(file)
    }

    /// Notes the use of an entry, and keeps it from eviction as long as the answer lives.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if `cancel` is thrown while another process evicts the entry.
    pub(super) fn begin(root: &Path, folder: &Path, cancel: &Cancel) -> Result<InUse> {
        let Ok(file) = files::open_lock_file(&Self::path(root, folder)) else { return Ok(InUse(None)) };
        loop {
            match file.try_lock_shared() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => cancel.check()?,
                Err(TryLockError::Error(_)) => return Ok(InUse(None)),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = file.set_modified(SystemTime::now());
        Ok(InUse(Some(Arc::new(file))))
    }
}
