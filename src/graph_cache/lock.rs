//! Locks: one process makes or removes an entry at a time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::entry::UNFINISHED;
use crate::error::{Error, Result};
use crate::files;
use crate::session::Cancel;

/// Waits until no other process makes the entry in `folder`, and calls `waiting` once if one does. The lock is held as long
/// as the file that is returned is open.
pub(super) fn lock(root: &Path, folder: &Path, cancel: &Cancel, waiting: impl FnOnce()) -> Result<Option<File>> {
    let mut waiting = Some(waiting);
    loop {
        match attempt(root, folder)? {
            Attempt::Held(file) => return Ok(Some(file)),
            Attempt::NoLocks => return Ok(None),
            Attempt::Busy => {}
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        cancel.check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// As [`lock`] without waiting; `None` if another process holds it.
pub(super) fn try_lock(root: &Path, folder: &Path) -> Result<Option<Option<File>>> {
    Ok(match attempt(root, folder)? {
        Attempt::Held(file) => Some(Some(file)),
        Attempt::NoLocks => Some(None),
        Attempt::Busy => None,
    })
}

enum Attempt {
    Held(File),
    Busy,
    /// Some network file systems have no locks. Two processes may then both make it; each puts its own in place whole.
    NoLocks,
}

fn attempt(root: &Path, folder: &Path) -> Result<Attempt> {
    let path = path(root, folder);
    let file = files::open_lock_file(&path).map_err(|e| Error::io(&path, "creating", e))?;
    match file.try_lock() {
        Ok(()) => Ok(Attempt::Held(file)),
        Err(TryLockError::WouldBlock) => Ok(Attempt::Busy),
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(Attempt::NoLocks),
        Err(TryLockError::Error(e)) => Err(Error::io(&path, "locking", e)),
    }
}

/// The lock of an entry, whole or unfinished.
fn path(root: &Path, folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let key = name.strip_prefix(UNFINISHED).and_then(|rest| rest.split('-').next()).unwrap_or(&name);
    root.join(format!("{key}.lock"))
}
