//! Atomic file writes.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::leftovers::{PREFIX, SUFFIX};
use super::system::Retries;
use super::target::{Target, parent_folder, resolve_target};
use crate::error::{Error, Result};

/// Writes a user's file atomically: `write` fills a temporary file in the same folder, which is flushed to disk and
/// renamed to `path`. If `path` is a symbolic link, its target is replaced. A device, a FIFO or an open descriptor such
/// as `/dev/stdout` is written to directly.
///
/// # Errors
///
/// [`Error::Io`] naming `path` if `write`, the disk or the final rename fails. An existing file is then unchanged and
/// the temporary file removed.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let written = resolve_target(path).and_then(|target| match target {
        Target::Stream(stream) => {
            // Appending preserves earlier output to a redirected descriptor.
            let file = File::options().append(cfg!(unix)).write(true).open(stream)?;
            let mut writer = BufWriter::new(file);
            write(&mut writer)?;
            writer.flush()
        }
        Target::File(file) => {
            let temp = TempFile::write(parent_folder(&file), write, true)?;
            temp.copy_permissions_from(&file)?;
            temp.replace(&file)
        }
    });
    written.map_err(|e| Error::io(path, "writing", e))
}

/// Atomically replaces one of this program's files, without flushing it to disk: a power failure can lose it.
///
/// # Errors
///
/// As [`write_whole`].
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let written = TempFile::write(parent_folder(path), write, false).and_then(|temp| temp.replace(path));
    written.map_err(|e| Error::io(path, "writing", e))
}

/// Writes a new file under the first free name and returns that name. All names are in one folder. Names are claimed by
/// creating the file, so concurrent processes get different names and no file is replaced.
///
/// # Errors
///
/// [`Error::Io`] naming the file that cannot be written; no part of it remains.
#[cfg(feature = "cli")]
pub(crate) fn write_new(names: impl IntoIterator<Item = PathBuf>, bytes: &[u8]) -> Result<PathBuf> {
    write_first(names, bytes, |_| false)
}

/// Writes a file as [`write_new`] does, unless a regular file with the same bytes already has one of the earlier names.
///
/// # Errors
///
/// As [`write_new`].
pub(crate) fn write_new_or_same(names: impl IntoIterator<Item = PathBuf>, bytes: &[u8]) -> Result<PathBuf> {
    write_first(names, bytes, |path| has_contents(path, bytes))
}

fn write_first(
    names: impl IntoIterator<Item = PathBuf>,
    bytes: &[u8],
    is_same: impl Fn(&Path) -> bool,
) -> Result<PathBuf> {
    let mut temp: Option<TempFile> = None;
    for path in names {
        let fail = |e| Error::io(&path, "writing", e);
        if std::fs::symlink_metadata(&path).is_ok() {
            if is_same(&path) {
                return Ok(path);
            }
            continue;
        }
        let ready = match temp.take() {
            Some(ready) => ready,
            None => TempFile::write(parent_folder(&path), |file| file.write_all(bytes), true).map_err(fail)?,
        };
        match ready.claim(&path).map_err(fail)? {
            ClaimOutcome::Claimed => return Ok(path),
            // Another process claimed the name first.
            ClaimOutcome::Occupied(_) if is_same(&path) => return Ok(path),
            ClaimOutcome::Occupied(ready) => temp = Some(ready),
        }
    }
    Err(Error::io(Path::new(""), "writing", io::Error::new(ErrorKind::AlreadyExists, "all names are in use")))
}

/// Returns true if a regular file has exactly these bytes. Other files are not opened, since a FIFO would block.
fn has_contents(path: &Path, bytes: &[u8]) -> bool {
    let has_size = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == bytes.len() as u64);
    has_size && std::fs::read(path).is_ok_and(|there| there == bytes)
}

/// A complete temporary file without its final name. Dropping it removes it.
struct TempFile(TempPath);

/// The outcome of claiming a name.
enum ClaimOutcome {
    /// The file has the name.
    Claimed,
    /// Another file has the name.
    Occupied(TempFile),
}

impl TempFile {
    /// Writes a temporary file in `folder`; `durable` flushes it to disk.
    fn write(
        folder: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
        durable: bool,
    ) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        // Temporary files are private by default; this file gets the mode of an ordinary one, subject to the umask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let (file, path) = builder.tempfile_in(folder)?.into_parts();
        // Windows cannot rename an open file: the writer is dropped before the path is returned.
        let mut writer = BufWriter::new(file);
        write(&mut writer).and_then(|()| writer.flush())?;
        if durable {
            writer.get_ref().sync_all()?;
        }
        Ok(Self(path))
    }

    /// Copies the permissions of the file to be replaced, if any.
    fn copy_permissions_from(&self, path: &Path) -> io::Result<()> {
        let Ok(there) = std::fs::metadata(path).map(|there| there.permissions()) else { return Ok(()) };
        // Some file systems have one mode for all files and reject changes.
        if std::fs::metadata(&self.0)?.permissions() == there {
            return Ok(());
        }
        std::fs::set_permissions(&self.0, there)
    }

    fn replace(mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let mut retries = Retries::for_renames();
        loop {
            match self.0.persist(path) {
                Err(e) if retries.should_retry(&e.error) => self = Self(e.path),
                result => return result.map_err(|e| e.error),
            }
        }
    }

    /// Renames the file to `path` in one step that fails if the name exists: a rename without replacement, or a hard
    /// link. File systems without either use [`TempFile::claim_empty`].
    fn claim(mut self, path: &Path) -> io::Result<ClaimOutcome> {
        let mut retries = Retries::for_renames();
        loop {
            return match self.0.persist_noclobber(path) {
                Ok(()) => Ok(ClaimOutcome::Claimed),
                Err(e) if e.error.kind() == ErrorKind::AlreadyExists => Ok(ClaimOutcome::Occupied(Self(e.path))),
                Err(e) if retries.should_retry(&e.error) => {
                    self = Self(e.path);
                    continue;
                }
                Err(e) if lacks_hard_links(&e.error) => Self(e.path).claim_empty(path),
                Err(e) => Err(e.error),
            };
        }
    }

    /// Claims the name with an empty file and replaces it. Only a process killed in between leaves the empty file.
    fn claim_empty(self, path: &Path) -> io::Result<ClaimOutcome> {
        match File::create_new(path) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(ClaimOutcome::Occupied(self)),
            Err(e) => return Err(e),
        }
        self.replace(path).map(|()| ClaimOutcome::Claimed).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }
}

/// Returns true for errors of file systems without hard links: FAT, exFAT, many network and user-space file systems.
fn lacks_hard_links(error: &io::Error) -> bool {
    use ErrorKind::{InvalidInput, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), Unsupported | PermissionDenied | InvalidInput | TooManyLinks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> impl Iterator<Item = PathBuf> {
        (1..).map(move |number| dir.join(format!("{number}.bin")))
    }

    fn count(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_whole(&path, |f| f.write_all(b"first")).unwrap();
        let full = write_whole(&path, |f| {
            f.write_all(b"sec")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(full.to_string().contains("a.bin: writing failed: no storage space"), "{full}");
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(count(dir.path()), 1);
        write_whole(&path, |f| f.write_all(b"second")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(write_whole(dir.path(), |_| Ok(())), Err(Error::Io { .. })));
        assert!(matches!(replace(dir.path(), |_| Ok(())), Err(Error::Io { .. })));
        assert!(matches!(write_whole(&dir.path().join("no/a.bin"), |_| Ok(())), Err(Error::Io { .. })));
    }

    /// Forty threads that claim the same names get forty files, by either way of claiming.
    #[test]
    fn a_name_is_claimed_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for number in 0..40u32 {
                let dir = dir.path();
                scope.spawn(move || write_new(names(dir), &number.to_le_bytes()).unwrap());
            }
        });
        let mut found: Vec<_> = names(dir.path()).take(40).map(|path| std::fs::read(path).unwrap()).collect();
        found.sort();
        found.dedup();
        assert_eq!((found.len(), count(dir.path())), (40, 40));

        let path = dir.path().join("new");
        let ready = |byte: u8| TempFile::write(dir.path(), |file| file.write_all(&[byte]), false).unwrap();
        assert!(matches!(ready(1).claim_empty(&path), Ok(ClaimOutcome::Claimed)));
        assert!(matches!(ready(2).claim_empty(&path), Ok(ClaimOutcome::Occupied(_))));
        assert_eq!((std::fs::read(&path).unwrap(), count(dir.path())), (vec![1], 41));
        assert!(ready(3).claim_empty(&dir.path().join("no/new")).is_err());
        assert_eq!(count(dir.path()), 41, "no temporary file is left");
    }

    #[test]
    fn the_same_bytes_are_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = write_new_or_same(names(dir.path()), b"same").unwrap();
        assert_eq!(write_new_or_same(names(dir.path()), b"same").unwrap(), first);
        assert_eq!(write_new_or_same(names(dir.path()), b"else").unwrap(), dir.path().join("2.bin"));
        assert_eq!(write_new(names(dir.path()), b"same").unwrap(), dir.path().join("3.bin"));
        assert_eq!(count(dir.path()), 3);
    }

    #[cfg(unix)]
    mod unix {
        use std::io::Read;
        use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

        use super::*;

        fn fifo(path: &Path) {
            let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo is there");
            assert!(made.success());
        }

        #[test]
        fn a_written_file_has_default_permissions() {
            let dir = tempfile::tempdir().unwrap();
            let (ours, new, plain) = (dir.path().join("ours"), dir.path().join("new"), dir.path().join("plain"));
            write_whole(&ours, |_| Ok(())).unwrap();
            write_new([new.clone()], b"").unwrap();
            std::fs::write(&plain, b"").unwrap();
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!([mode(&ours), mode(&new)], [mode(&plain); 2]);
            // A replaced file keeps its permissions.
            std::fs::set_permissions(&ours, PermissionsExt::from_mode(0o600)).unwrap();
            write_whole(&ours, |f| f.write_all(b"secret")).unwrap();
            assert_eq!(mode(&ours) & 0o777, 0o600);
        }

        #[test]
        fn a_link_stays_and_its_target_is_replaced() {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            std::fs::create_dir(at("elsewhere")).unwrap();
            std::fs::write(at("elsewhere/a.bin"), b"old").unwrap();
            symlink("elsewhere/a.bin", at("near")).unwrap();
            symlink(at("near"), at("far")).unwrap();
            symlink("elsewhere/none-yet", at("dangling")).unwrap();
            symlink("loop", at("loop")).unwrap();
            let inode = std::fs::metadata(at("far")).unwrap().ino();
            write_whole(&at("far"), |f| f.write_all(b"new")).unwrap();
            write_whole(&at("dangling"), |f| f.write_all(b"made")).unwrap();
            assert_eq!(std::fs::read(at("elsewhere/a.bin")).unwrap(), b"new");
            assert_eq!(std::fs::read(at("elsewhere/none-yet")).unwrap(), b"made");
            assert_ne!(std::fs::metadata(at("far")).unwrap().ino(), inode, "replaced, not overwritten in place");
            for link in ["near", "far", "dangling"] {
                assert!(std::fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
            }
            let error = write_whole(&at("loop"), |_| Ok(())).unwrap_err().to_string();
            assert!(error.contains("loop") && error.contains("links"), "{error}");
            // A dangling link also occupies its name.
            symlink("nowhere", at("1.bin")).unwrap();
            assert_eq!(write_new_or_same(names(dir.path()), b"x").unwrap(), at("2.bin"));
        }

        #[test]
        fn a_fifo_is_written_into() {
            let dir = tempfile::tempdir().unwrap();
            let (pipe, link) = (dir.path().join("1.bin"), dir.path().join("link"));
            fifo(&pipe);
            symlink(&pipe, &link).unwrap();
            for name in [&pipe, &link] {
                let reader = std::thread::spawn({
                    let name = name.clone();
                    move || {
                        let mut bytes = Vec::new();
                        File::open(name).unwrap().read_to_end(&mut bytes).unwrap();
                        bytes
                    }
                });
                write_whole(name, |f| f.write_all(b"through")).unwrap();
                assert_eq!(reader.join().unwrap(), b"through");
            }
            assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
            // A FIFO is never read for comparison.
            assert_eq!(write_new_or_same(names(dir.path()), b"x").unwrap(), dir.path().join("2.bin"));
        }

        #[test]
        fn a_device_is_written_into() {
            let null = Path::new("/dev/null");
            write_whole(null, |f| f.write_all(b"nothing")).unwrap();
            assert!(std::fs::symlink_metadata(null).unwrap().file_type().is_char_device());
            if cfg!(target_os = "linux") {
                let full = write_whole(Path::new("/dev/full"), |f| f.write_all(b"x")).unwrap_err();
                assert!(full.to_string().contains("/dev/full: writing failed"), "{full}");
            }
        }
    }
}
