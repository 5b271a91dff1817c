//! Locks, flushes and renames, with Windows' restrictions.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

/// Flushes a file's contents to disk.
pub(crate) fn flush_to_disk(path: &Path) -> io::Result<()> {
    // Windows flushes only a file that is open for writing.
    File::options().write(true).open(path)?.sync_all()
}

/// Opens a lock file, which has no contents, and creates it if necessary.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    // Another process may hold a lock on it, under which Windows refuses to truncate it.
    File::options().write(true).create(true).truncate(false).open(path)
}

/// Appends bytes to a file in one write, and creates the file if necessary.
pub(crate) fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::options().append(true).create(true).open(path)?.write_all(bytes)
}

/// True if a file can be created in the folder.
pub(crate) fn is_writable_folder(folder: &Path) -> bool {
    // Neither the permission bits nor the mount flags tell all of it. The file has no name on most systems, and is gone
    // with its handle on all.
    tempfile::tempfile_in(folder).is_ok()
}

/// Renames a folder within one file system.
pub(crate) fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    run_with_retries(&mut Retries::for_renames(), || std::fs::rename(from, to))
}

/// Retries of an operation that another program can block briefly.
pub(super) struct Retries {
    left: u32,
    is_transient: fn(&io::Error) -> bool,
}

impl Retries {
    /// Returns the retries of a rename. Windows rejects it while the file is open, and virus scanners open files right
    /// after they are written.
    pub(super) fn for_renames() -> Self {
        Self { left: if cfg!(windows) { 19 } else { 0 }, is_transient: is_windows_refusal }
    }

    /// Returns true, after a short wait, if the operation should be retried after this error.
    pub(super) fn should_retry(&mut self, error: &io::Error) -> bool {
        let retry = self.left > 0 && (self.is_transient)(error);
        if retry {
            self.left -= 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        retry
    }
}

/// Returns true for "access denied" and for the sharing and lock violations of Windows, which have no `ErrorKind`.
fn is_windows_refusal(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied || cfg!(windows) && matches!(error.raw_os_error(), Some(32 | 33))
}

fn run_with_retries(retries: &mut Retries, mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match work() {
            Err(e) if retries.should_retry(&e) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_writable_if_a_file_can_be_created_in_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_writable_folder(folder.path()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(!is_writable_folder(&file) && !is_writable_folder(&folder.path().join("none")));
        // Nobody creates files here, the superuser included.
        #[cfg(target_os = "linux")]
        assert!(!is_writable_folder(Path::new("/proc")));
    }

    #[test]
    fn a_flushed_file_keeps_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        assert!(flush_to_disk(&path).is_err(), "it is not made");
        std::fs::write(&path, b"whole").unwrap();
        flush_to_disk(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    /// A flush needs write access on Windows, so it asks for it on every system.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_flush_asks_for_write_access() {
        let error = flush_to_disk(Path::new("/proc/self/exe")).unwrap_err();
        let is_refused = matches!(error.kind(), ErrorKind::ExecutableFileBusy | ErrorKind::PermissionDenied);
        assert!(is_refused, "{error}");
    }

    #[test]
    fn a_lock_file_is_made_once_and_never_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let held = open_lock_file(&path).unwrap();
        held.try_lock().unwrap();
        let other = open_lock_file(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
        std::fs::write(&path, b"kept").unwrap();
        open_lock_file(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn a_refusal_is_tried_again_and_other_errors_are_not() {
        let run = |attempts: u32, mut answers: Vec<io::Result<()>>| {
            let count = answers.len();
            let mut retries = Retries { left: attempts - 1, ..Retries::for_renames() };
            let result = run_with_retries(&mut retries, || answers.remove(0)).map_err(|e| e.kind());
            (result, count - answers.len())
        };
        let refused = || Err(ErrorKind::PermissionDenied.into());
        let full = || Err(ErrorKind::StorageFull.into());
        assert_eq!(run(3, vec![refused(), Ok(()), Ok(())]), (Ok(()), 2));
        assert_eq!(run(3, vec![full(), Ok(())]), (Err(ErrorKind::StorageFull), 1));
        assert_eq!(run(2, vec![refused(), refused(), Ok(())]), (Err(ErrorKind::PermissionDenied), 2));
        assert_eq!(run(1, vec![refused(), Ok(())]), (Err(ErrorKind::PermissionDenied), 1));
    }
}
