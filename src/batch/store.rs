//! The place of a batch's images.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;

use super::key::Key;
use crate::error::Result;

/// A place for images and manifests, by names with `/` between folders. Several processes may use it at once.
pub trait Store: Send + Sync {
    /// Returns the path or the address of a name, for people.
    fn place(&self, name: &str) -> String;

    /// Prepares the place, so that a wrong one is known before the work is done.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if nothing can be written there.
    fn prepare(&self) -> Result<()>;

    /// Returns the names of all images.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the place cannot be read.
    fn list(&self) -> Result<HashSet<String>>;

    /// True if an image is there, from its first byte to its last. Its pixels are not decoded.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the place cannot be read.
    fn has_whole(&self, name: &str) -> Result<bool>;

    /// Returns the bytes under a name, if any.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if they cannot be read.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Stores bytes under a name, whole or not at all, and replaces what was there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if they cannot be written.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// Appends text to what is under a name.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be written.
    fn append(&self, name: &str, text: &str) -> Result<()>;

    /// Writes what [`Store::append`] has kept in memory.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be written.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Claims an image for this process, until the claim is dropped or the process ends. `None` if another process has it.
    /// Claims save work and nothing depends on them: where a place has none, every claim is granted.
    fn claim(&self, key: Key) -> Option<Claim>;
}

/// A claim on an image.
pub struct Claim {
    lock: Option<(File, PathBuf)>,
}

impl Claim {
    /// Makes a claim without a lock, for places that have none.
    pub fn free() -> Self {
        Self { lock: None }
    }

    /// Makes a claim of a locked file.
    pub(super) fn locked(file: File, path: PathBuf) -> Self {
        Self { lock: Some((file, path)) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((file, path)) = self.lock.take() {
            // Another process may lock the removed file; it then finds the image, or makes it a second time.
            let _ = std::fs::remove_file(path);
            drop(file);
        }
    }
}
