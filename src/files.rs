//! File access: opening inputs without hanging, and atomic writes.

mod atomic;
mod home;
mod leftovers;
mod link;
mod reading;
mod system;
mod target;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

#[cfg(feature = "cli")]
pub(crate) use atomic::write_new;
pub(crate) use atomic::{replace, write_new_or_same, write_whole};
pub(crate) use home::expand_home;
pub(crate) use leftovers::remove_leftovers;
pub(crate) use link::broken_link;
pub(crate) use reading::{open, read, read_at_most, read_text};
pub(crate) use system::{append, flush_to_disk, is_writable_folder, open_lock_file, rename_folder};
#[cfg(feature = "cli")]
pub(crate) use target::{is_stream, require_writable_file};
pub(crate) use target::{require_format, require_writable_folder};

use crate::error::{Error, NotRegularFile, Result};

/// Opens an input file.
///
/// # Errors
///
/// [`Error::Input`] if the file is missing, a directory, a FIFO or a device; [`Error::Io`] if it cannot be opened.
pub(crate) fn open_input(path: &Path) -> Result<File> {
    let input_error = |problem: &str| Error::input(path.display().to_string(), problem, "name a file that exists");
    match open(path) {
        Ok(_) if path.is_dir() => Err(input_error("is a directory")),
        Ok(file) => Ok(file),
        Err(_) if broken_link(path).is_some() => Err(input_error(&broken_link(path).unwrap_or_default())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(input_error("no such file")),
        Err(_) if path.is_dir() => Err(input_error("is a directory")),
        Err(e) if NotRegularFile::find_in(&e).is_some() => Err(input_error(&e.to_string())),
        Err(e) => Err(Error::io(path, "opening", e)),
    }
}

/// Adds all bytes of a file to a digest.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read.
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

/// Returns the SHA-256 of a file in hexadecimal.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    digest_into(path, &mut hash)?;
    Ok(hexadecimal(hash))
}

/// Formats a digest in hexadecimal.
pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(open_input(dir.path()), Err(Error::Input { .. })));
    }
}
