//! Fetching an official build of ONNX Runtime from the Python package index.

use std::path::PathBuf;

use super::library::{self, Flavour, RuntimeOptions};
use crate::error::{Error, Result};

/// The version of the builds `cpu` and `cuda` that this program fetches.
pub const PINNED_VERSION: &str = "1.31.1";

/// The version of the build that is fetched of a flavour.
pub(super) fn pinned_version(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Cpu | Flavour::Cuda => PINNED_VERSION,
        // The newest one there is.
        Flavour::OpenVino => "1.24.1",
    }
}

/// What happens while a build is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another process is fetching the same build; its result will be used.
    Waiting {
        /// The build's folder.
        folder: PathBuf,
    },
    /// The download begins.
    Begin {
        /// The file's name.
        file: String,
        /// The host it comes from.
        host: String,
        /// Its size in bytes.
        bytes: u64,
        /// The folder in which the library will lie.
        folder: PathBuf,
    },
    /// So many bytes are there.
    Progress {
        /// Bytes read so far.
        done: u64,
        /// The file's size in bytes.
        total: u64,
    },
    /// The library lies in its folder.
    Done {
        /// The folder.
        folder: PathBuf,
    },
}

/// A build that [`install`] left in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its folder.
    pub folder: PathBuf,
    /// Its version.
    pub version: &'static str,
    /// Whether it was there already.
    pub was_there: bool,
}

/// Fetches a build into the user's cache, unless it is there.
///
/// # Errors
/// [`Error::Runtime`] where it may not be fetched, does not exist for this machine, or is not what it should be.
pub fn install(flavour: Flavour, options: &RuntimeOptions, _observer: &mut dyn FnMut(&Event)) -> Result<Installed> {
    let version = pinned_version(flavour);
    let folder = library::directory(&options.env)?.join(library::flavour_directory(version, flavour));
    if folder.is_dir() {
        return Ok(Installed { folder, version, was_there: true });
    }
    Err(Error::runtime(
        "no library was found on this machine",
        format!("put ONNX Runtime {version} into {} or name its file with --runtime", folder.display()),
    ))
}
