//! Opening what the user names, and writing files whole or not at all.

mod reading;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, NotRegularFile, Result};

pub(crate) use reading::{open, read, read_at_most, read_text};

/// Opens a file that the user named as an input.
///
/// # Errors
///
/// [`Error::Input`] if the file is missing, a directory, a FIFO or a device; [`Error::Io`] where it cannot be opened.
pub(crate) fn open_input(path: &Path) -> Result<File> {
    let at_fault = |problem: &str| Error::input(path.display().to_string(), problem, "name a file that exists");
    match open(path) {
        Ok(_) if path.is_dir() => Err(at_fault("is a directory")),
        Ok(file) => Ok(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(at_fault("there is no such file")),
        Err(_) if path.is_dir() => Err(at_fault("is a directory")),
        Err(e) if NotRegularFile::of(&e).is_some() => Err(at_fault(&e.to_string())),
        Err(e) => Err(Error::io(path, "opening", e)),
    }
}

/// Adds all bytes of a file to a digest.
///
/// # Errors
///
/// [`Error::Io`] where the file cannot be read.
pub(crate) fn digest_into(path: &Path, hash: &mut Sha256) -> Result<()> {
    let failed = |e| Error::io(path, "reading", e);
    let mut file = open(path).map_err(failed)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// A digest as it is written, in hexadecimal.
pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file whole or not at all: `write` fills a temporary file in the same directory, which is flushed to the
/// disk and takes the place of `path` only then.
///
/// # Errors
///
/// [`Error::Io`] naming `path`, whether `write`, the disk or the last move failed. What stood at `path` is untouched
/// then, and the temporary file is gone.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    write_then(path, write, File::sync_all)
}

/// As [`write_whole`], but for a file that may be lost with the power: nothing waits for the disk.
///
/// # Errors
///
/// As [`write_whole`].
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    write_then(path, write, |_| Ok(()))
}

fn write_then(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    settle: impl FnOnce(&File) -> io::Result<()>,
) -> Result<()> {
    let fail = |e| Error::io(path, "writing", e);
    if path.is_dir() {
        return Err(fail(io::ErrorKind::IsADirectory.into()));
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ldm-ort-").suffix(".part");
    // Temporary files are private by default; this one is to become an ordinary file, which the umask rules.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(dir).map_err(fail)?;

    let (file, temporary_path) = temporary.into_parts();
    let mut writer = BufWriter::new(file);
    write(&mut writer).and_then(|()| writer.flush()).map_err(fail)?;
    settle(writer.get_ref()).map_err(fail)?;
    // Windows does not move a file that is open.
    drop(writer);
    temporary_path.persist(path).map_err(|e| fail(e.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
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
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        write_whole(&path, |f| f.write_all(b"second")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
    }

    #[test]
    fn a_directory_is_neither_read_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(write_whole(dir.path(), |_| Ok(())), Err(Error::Io { .. })));
        assert!(matches!(open_input(dir.path()), Err(Error::Input { .. })));
        assert!(matches!(write_whole(&dir.path().join("no/a.bin"), |_| Ok(())), Err(Error::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_written_file_has_the_rights_of_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write_whole(&ours, |_| Ok(())).unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
