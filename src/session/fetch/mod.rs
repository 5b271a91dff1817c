//! Fetching an official build of ONNX Runtime from the Python package index into the user's cache.

#[cfg(feature = "fetch")]
mod download;
#[cfg(feature = "fetch")]
mod http;
#[cfg(feature = "fetch")]
mod index;
#[cfg(feature = "fetch")]
mod unpack;
mod wheel;

#[cfg(all(test, feature = "fetch"))]
mod tests;

use std::path::{Path, PathBuf};

use super::library::{self, Flavour, RuntimeOptions};
use crate::error::{Error, Result};
use crate::files;
#[cfg(feature = "fetch")]
use download::fetch;
use wheel::Wheel;

pub use wheel::PINNED_VERSION;
pub(super) use wheel::pinned_version;

/// What the names of unfinished downloads begin with.
const UNFINISHED: &str = ".fetch-";

/// The file whose lock is held by the one process that changes the cache.
const LOCK: &str = ".lock";

/// What happens while a build is fetched.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FetchEvent {
    /// Another process is changing the cache; what it leaves there will be used.
    Waiting {
        /// The cache's folder.
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
        /// The folder in which the libraries will lie.
        folder: PathBuf,
    },
    /// So many bytes are there.
    Progress {
        /// Bytes read so far.
        done: u64,
        /// The file's size in bytes.
        total: u64,
    },
    /// The libraries lie in their folder.
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
/// The file is checked against a digest that stands in this program, and its libraries appear in the cache all at once.
///
/// # Errors
/// [`Error::Runtime`] where the network may not be used or fails, where no build of this flavour exists for this
/// machine, or where the file is not the one it should be; [`Error::Io`] where the cache cannot be written;
/// [`Error::Interrupted`] when `options.cancel` was thrown.
pub fn install(flavour: Flavour, options: &RuntimeOptions, observer: &mut dyn FnMut(&FetchEvent)) -> Result<Installed> {
    let cache = library::directory(&options.env)?;
    let version = pinned_version(flavour);
    let folder = cache.join(library::flavour_directory(version, flavour));
    if folder.is_dir() {
        return Ok(Installed { folder, version, was_there: true });
    }
    let by_hand = by_hand(flavour, version, &folder);
    if options.offline {
        return Err(Error::runtime(
            format!("the build {flavour} is not there, and the network may not be used"),
            by_hand,
        ));
    }
    let wheel = wheel_here(flavour).ok_or_else(|| {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        Error::runtime(format!("there is no official build {flavour} for {os} on {arch}"), by_hand.clone())
    })?;
    let was_there = fetch(wheel, (&cache, &folder), options, &by_hand, observer)?;
    Ok(Installed { folder, version, was_there })
}

/// Refuses: this build of the program has no downloads.
#[cfg(not(feature = "fetch"))]
fn fetch(
    wheel: &Wheel<'_>,
    _: (&Path, &Path),
    _: &RuntimeOptions,
    by_hand: &str,
    _: &mut dyn FnMut(&FetchEvent),
) -> Result<bool> {
    let problem = format!("{} is not there, and this program was built without the feature `fetch`", wheel.file);
    Err(Error::runtime(problem, by_hand))
}

/// True if there is an official build of this flavour for this machine.
pub(super) fn has_build(flavour: Flavour) -> bool {
    wheel_here(flavour).is_some()
}

fn wheel_here(flavour: Flavour) -> Option<&'static Wheel<'static>> {
    let wheel = wheel::wheel(flavour, std::env::consts::OS, std::env::consts::ARCH);
    wheel.filter(|_| !cfg!(target_env = "musl"))
}

/// Removes what downloads that were cut off left in the cache, unless one is under way.
pub(super) fn tidy(options: &RuntimeOptions) {
    let Ok(cache) = library::directory(&options.env) else { return };
    if unfinished(&cache).next().is_some()
        && let Ok(lock) = files::open_lock_file(&cache.join(LOCK))
        && lock.try_lock().is_ok()
    {
        remove_unfinished(&cache);
    }
}

fn unfinished(cache: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED)).map(|entry| entry.path())
}

/// Removes the remains of downloads; only for the holder of the lock.
fn remove_unfinished(cache: &Path) {
    for path in unfinished(cache) {
        if let Err(e) = std::fs::remove_dir_all(&path) {
            tracing::warn!("{}: cannot be removed: {e}", path.display());
        }
    }
}

/// How to do without the network.
fn by_hand(flavour: Flavour, version: &str, folder: &Path) -> String {
    format!(
        "on a machine with network, `pip download --no-deps {}=={version}`; copy the libraries of its folder \
         onnxruntime/capi into {}, or name a library of ONNX Runtime {} or newer with --runtime or ORT_DYLIB_PATH",
        wheel::project(flavour),
        folder.display(),
        library::minimum_version(),
    )
}
