//! A folder of images.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::key::Key;
use super::store::{Claim, Store};
use super::whole::{EDGE, is_whole};
use crate::error::{Error, Result};
use crate::files;

/// The folder of claims: an empty, locked file for each image at work.
const CLAIMS: &str = "claims";

/// A folder with images in folders of two hexadecimal digits.
pub struct LocalStore {
    dir: PathBuf,
}

impl LocalStore {
    /// Makes the store of a folder, which may not exist yet. Touches no file.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        name.split('/').fold(self.dir.clone(), |path, part| path.join(part))
    }

    /// The folders of images.
    fn folders(&self) -> Result<Vec<PathBuf>> {
        let read = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|error| Error::io(&self.dir, "reading", error))?,
        };
        let is_folder = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) && path.is_dir()
        };
        Ok(read.flatten().map(|entry| entry.path()).filter(is_folder).collect())
    }
}

impl Store for LocalStore {
    fn place(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn prepare(&self) -> Result<()> {
        const KEY: &str = "--out";
        files::require_writable_folder(KEY, &self.dir)?;
        files::require_format(KEY, &self.dir, "", "images are written to a folder, each under a name of its own")?;
        for folder in [self.dir.join("manifest"), self.dir.join(CLAIMS)] {
            create_folder(&folder)?;
        }
        self.folders()?.iter().for_each(|folder| files::remove_leftovers(folder));
        Ok(())
    }

    fn list(&self) -> Result<HashSet<String>> {
        let mut names = HashSet::new();
        for folder in self.folders()? {
            let first = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let entries = std::fs::read_dir(&folder).map_err(|error| Error::io(&folder, "reading", error))?;
            let found = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.extend(found.filter(|name| !name.starts_with('.')).map(|name| format!("{first}/{name}")));
        }
        Ok(names)
    }

    fn has_whole(&self, name: &str) -> Result<bool> {
        let path = self.path(name);
        match edges(&path) {
            Ok((start, end, length)) => Ok(is_whole(&start, &end, length)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(false),
            Err(error) => Err(Error::io(&path, "reading", error)),
        }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        match files::open(&path).and_then(|mut file| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_| bytes)
        }) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, "reading", error)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        path.parent().map_or(Ok(()), create_folder)?;
        files::write_whole(&path, |file| file.write_all(bytes))
    }

    fn append(&self, name: &str, text: &str) -> Result<()> {
        // Opened each time, since another process may have replaced the file. One write keeps the lines of two apart.
        let path = self.path(name);
        files::append(&path, text.as_bytes()).map_err(|error| Error::io(&path, "writing", error))
    }

    fn claim(&self, key: Key) -> Option<Claim> {
        let path = self.dir.join(CLAIMS).join(key.to_string());
        // File systems without locks have no claims.
        let Ok(file) = files::open_lock_file(&path) else { return Some(Claim::free()) };
        match file.try_lock() {
            Ok(()) => Some(Claim::locked(file, path)),
            Err(std::fs::TryLockError::WouldBlock) => None,
            Err(std::fs::TryLockError::Error(_)) => Some(Claim::free()),
        }
    }
}

fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, "creating the folder", error))
}

/// The first and the last bytes of a file, and its length.
fn edges(path: &Path) -> std::io::Result<([u8; EDGE], [u8; EDGE], u64)> {
    let mut file = files::open(path)?;
    let (mut start, mut end) = ([0; EDGE], [0; EDGE]);
    file.read_exact(&mut start)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(EDGE as u64)))?;
    file.read_exact(&mut end)?;
    Ok((start, end, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_lasts_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (LocalStore::new(dir.path()), LocalStore::new(dir.path()));
        one.prepare().unwrap();
        let key = Key::of("a");
        let claim = one.claim(key);
        assert!(claim.is_some() && other.claim(key).is_none() && other.claim(Key::of("b")).is_some());
        drop(claim);
        assert!(other.claim(key).is_some());
        assert_eq!(std::fs::read_dir(dir.path().join(CLAIMS)).unwrap().count(), 0);
    }
}
