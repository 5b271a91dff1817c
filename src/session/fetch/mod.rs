//! Fetches an official package of ONNX Runtime from the Python package index into the user's cache.

#[cfg(feature = "fetch")]
mod download;
#[cfg(feature = "fetch")]
mod http;
#[cfg(feature = "fetch")]
mod index;
#[cfg(feature = "fetch")]
mod unpack;
mod wheel;

use std::path::{Path, PathBuf};

use super::library::{self, Flavor, RuntimeOptions};
use crate::error::{Error, Result};
use crate::files;
#[cfg(feature = "fetch")]
use download::fetch;
use wheel::Wheel;

pub use wheel::PINNED_VERSION;
pub(super) use wheel::pinned_version;

/// The prefix of the names of unfinished downloads.
const UNFINISHED: &str = ".fetch-";

/// The lock file, held by the one process that changes the cache.
const LOCK: &str = ".lock";

/// The progress of fetching a build.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FetchEvent {
    /// Another process is changing the cache; its result will be used.
    Waiting {
        /// The cache's folder.
        folder: PathBuf,
    },
    /// The download starts.
    Begin {
        /// The file's name.
        file: String,
        /// The host that serves it.
        host: String,
        /// Its size in bytes.
        bytes: u64,
        /// The folder that will contain the libraries.
        folder: PathBuf,
    },
    /// Part of the file was received.
    Progress {
        /// Bytes received so far.
        done: u64,
        /// The file's size in bytes.
        total: u64,
    },
    /// The libraries are in their folder.
    Done {
        /// The folder.
        folder: PathBuf,
    },
}

/// A package that [`install`] left in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledBuild {
    /// Its folder.
    pub folder: PathBuf,
    /// Its version.
    pub version: &'static str,
    /// True if it was already there.
    pub was_there: bool,
}

/// Fetches a package into the user's cache, unless it is already there.
///
/// The file is checked against a digest built into this program. Its libraries appear in the cache all at once.
///
/// # Errors
/// [`Error::Runtime`] if the network may not be used or fails, if there is no package of this flavor for this machine, or
/// if the file's digest is wrong; [`Error::Io`] if the cache cannot be written; [`Error::Interrupted`] if
/// `options.cancel` was cancelled.
pub fn install(
    flavor: Flavor,
    options: &RuntimeOptions,
    observer: &mut dyn FnMut(&FetchEvent),
) -> Result<InstalledBuild> {
    let cache = library::directory(&options.env)?;
    let version = pinned_version(flavor);
    let folder = cache.join(library::flavor_directory(version, flavor));
    if folder.is_dir() {
        return Ok(InstalledBuild { folder, version, was_there: true });
    }
    let manual_steps = manual_steps(flavor, version, &folder);
    if options.offline {
        return Err(Error::runtime(
            format!("the package {flavor} is not in the cache, and the network may not be used"),
            manual_steps,
        ));
    }
    let wheel = wheel_here(flavor).ok_or_else(|| {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        Error::runtime(format!("there is no official package {flavor} for {os} on {arch}"), manual_steps.clone())
    })?;
    let was_there = fetch(wheel, (&cache, &folder), options, &manual_steps, observer)?;
    Ok(InstalledBuild { folder, version, was_there })
}

/// Fails: this program was built without downloads.
#[cfg(not(feature = "fetch"))]
fn fetch(
    wheel: &Wheel<'_>,
    _: (&Path, &Path),
    _: &RuntimeOptions,
    manual_steps: &str,
    _: &mut dyn FnMut(&FetchEvent),
) -> Result<bool> {
    let problem = format!("{} is not in the cache, and this program was built without the feature `fetch`", wheel.file);
    Err(Error::runtime(problem, manual_steps))
}

impl Flavor {
    /// Returns true if there is an official package of it for this machine, which can be fetched.
    pub fn is_built_here(self) -> bool {
        wheel_here(self).is_some()
    }
}

fn wheel_here(flavor: Flavor) -> Option<&'static Wheel<'static>> {
    let wheel = wheel::wheel(flavor, std::env::consts::OS, std::env::consts::ARCH);
    wheel.filter(|_| !cfg!(target_env = "musl"))
}

/// Removes the remains of interrupted downloads from the cache, unless a download is in progress.
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

/// Removes the remains of downloads. The caller holds the lock.
fn remove_unfinished(cache: &Path) {
    for path in unfinished(cache) {
        if let Err(e) = std::fs::remove_dir_all(&path) {
            tracing::warn!("{}: cannot be removed: {e}", path.display());
        }
    }
}

/// Returns instructions for installing the package without network access.
fn manual_steps(flavor: Flavor, version: &str, folder: &Path) -> String {
    let minimum = library::minimum_version();
    let or = match flavor.is_plugin() {
        true => "name its library with --provider-library".to_owned(),
        false => format!("name a library of ONNX Runtime {minimum} or newer with --runtime or ORT_DYLIB_PATH"),
    };
    format!(
        "on a machine with network, `pip download --no-deps {}=={version}`; copy the libraries of its folder {} into {}, or \
         {or}",
        wheel::project(flavor),
        wheel::folder(flavor).trim_end_matches('/'),
        folder.display(),
    )
}
