//! The demands of file systems beyond reading and writing, above all of Windows'.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// Waits until a file's contents are on the disk.
pub(crate) fn flush_to_disk(path: &Path) -> io::Result<()> {
    // Windows flushes only a file that is open for writing.
    File::options().write(true).open(path)?.sync_all()
}

/// Opens a lock file, which has no contents, making it where there is none.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    // Another process may hold a lock on it, under which Windows refuses to truncate it.
    File::options().write(true).create(true).truncate(false).open(path)
}

/// Gives a folder another name, within one file system.
pub(crate) fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    // Windows refuses while any file within is open, and virus scanners open files right after they are written.
    let attempts = if cfg!(windows) { 20 } else { 1 };
    retried(attempts, || std::fs::rename(from, to))
}

/// Repeats work that is refused for lack of permission, up to `attempts` times in all.
fn retried(attempts: u32, mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut left = attempts;
    loop {
        left -= 1;
        match work() {
            Err(e) if e.kind() == ErrorKind::PermissionDenied && left > 0 => {
                std::thread::sleep(Duration::from_millis(50))
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let result = retried(attempts, || answers.remove(0)).map_err(|e| e.kind());
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
