//! Opening files for reading.
//!
//! All file reads use this module, because opening a path can hang: a FIFO blocks until its other end opens, and a
//! device such as `/dev/zero` never ends.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::Path;

use crate::error::NotRegularFile;

/// Opens a file.
///
/// # Errors
/// Those of [`File::open`], [`NotRegularFile`] for a FIFO, a socket or a device, which is not opened, and
/// [`io::ErrorKind::IsADirectory`] for a directory, which Linux opens without an error and Windows with "access denied".
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    match special_kind(kind) {
        Some(kind) => Err(io::Error::new(io::ErrorKind::InvalidInput, NotRegularFile(kind))),
        None => File::open(path),
    }
}

/// Reads a whole file.
///
/// # Errors
/// As [`open`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text.
///
/// # Errors
/// As [`open`], and [`io::ErrorKind::InvalidData`] for other text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Reads `from` to its end; `None` if that is more than `limit` bytes.
///
/// # Errors
/// Those of reading.
pub(crate) fn read_at_most(from: impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= limit))
}

/// Returns the kind of a file that is neither regular nor a directory.
fn special_kind(kind: FileType) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kinds = [
            (kind.is_fifo(), "FIFO"),
            (kind.is_socket(), "socket"),
            (kind.is_char_device() || kind.is_block_device(), "device"),
        ];
        if let Some((_, name)) = kinds.iter().find(|(is, _)| *is) {
            return Some(name);
        }
    }
    (!kind.is_file() && !kind.is_dir()).then_some("special file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_allowed() {
        assert_eq!(read_at_most(&b"abc"[..], 3).unwrap().as_deref(), Some(&b"abc"[..]));
        assert_eq!(read_at_most(&b"abcd"[..], 3).unwrap(), None);
        assert_eq!(read_at_most(io::repeat(0), 3).unwrap(), None);
    }

    #[test]
    fn a_directory_is_called_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }

    #[cfg(unix)]
    #[test]
    fn only_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for (path, kind) in [(socket.as_path(), "socket"), (Path::new("/dev/zero"), "device"), (&link, "device")] {
            let error = open(path).unwrap_err();
            assert!(error.to_string().contains(kind), "{error}");
        }
        assert_eq!(open(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = dir.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read_text(&file).unwrap(), "text");
    }
}
