//! Fetches an official build of ONNX Runtime from the Python package index into the user's cache.

mod http;
mod index;
mod unpack;
mod wheel;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Cancel;
use super::library::{self, Flavour, RuntimeOptions};
use crate::error::{Error, Result};
use crate::files;
use crate::guard::contain;
use wheel::Wheel;

pub use wheel::PINNED_VERSION;
pub(super) use wheel::pinned_version;

/// The prefix of the names of unfinished downloads.
const UNFINISHED: &str = ".fetch-";

/// The lock file, held by the one process that changes the cache.
const LOCK: &str = ".lock";

/// The progress of fetching a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
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

/// A build that [`install`] left in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its folder.
    pub folder: PathBuf,
    /// Its version.
    pub version: &'static str,
    /// True if it was already there.
    pub was_there: bool,
}

/// Fetches a build into the user's cache, unless it is already there.
///
/// The file is checked against a digest built into this program. Its libraries appear in the cache all at once.
///
/// # Errors
/// [`Error::Runtime`] if the network may not be used or fails, if there is no build of this flavor for this machine, or
/// if the file's digest is wrong; [`Error::Io`] if the cache cannot be written; [`Error::Interrupted`] if
/// `options.cancel` was cancelled.
pub fn install(flavour: Flavour, options: &RuntimeOptions, observer: &mut dyn FnMut(&Event)) -> Result<Installed> {
    let cache = library::directory(&options.env)?;
    let version = pinned_version(flavour);
    let folder = cache.join(library::flavour_directory(version, flavour));
    if folder.is_dir() {
        return Ok(Installed { folder, version, was_there: true });
    }
    let by_hand = by_hand(flavour, version, &folder);
    if options.offline {
        return Err(Error::runtime(
            format!("the build {flavour} is not in the cache, and the network may not be used"),
            by_hand,
        ));
    }
    let wheel = wheel_here(flavour).ok_or_else(|| {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        Error::runtime(format!("there is no official build {flavour} for {os} on {arch}"), by_hand.clone())
    })?;
    let job = Job {
        wheel,
        index: index::address(&options.env),
        agent: http::agent(options.env.ca_bundle.as_deref())?,
        cancel: &options.cancel,
        cache: &cache,
        folder: &folder,
        by_hand: &by_hand,
    };
    let was_there = job.run(observer)?;
    Ok(Installed { folder, version, was_there })
}

/// Returns true if there is an official build of this flavor for this machine.
pub(super) fn has_build(flavour: Flavour) -> bool {
    wheel_here(flavour).is_some()
}

fn wheel_here(flavour: Flavour) -> Option<&'static Wheel<'static>> {
    let wheel = wheel::wheel(flavour, std::env::consts::OS, std::env::consts::ARCH);
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

/// Returns instructions for installing the build without network access.
fn by_hand(flavour: Flavour, version: &str, folder: &Path) -> String {
    format!(
        "on a machine with network, `pip download --no-deps {}=={version}`; copy the libraries of its folder \
         onnxruntime/capi into {}, or name a library of ONNX Runtime {} or newer with --runtime or ORT_DYLIB_PATH",
        wheel::project(flavour),
        folder.display(),
        library::minimum_version(),
    )
}

/// One fetch of a build.
struct Job<'a> {
    wheel: &'a Wheel<'a>,
    index: String,
    agent: ureq::Agent,
    cancel: &'a Cancel,
    cache: &'a Path,
    /// The libraries' final folder, in `cache`.
    folder: &'a Path,
    /// The instructions to show if this fails.
    by_hand: &'a str,
}

impl Job<'_> {
    /// Fetches the build, unless another process did so first; returns true in that case.
    fn run(&self, observer: &mut dyn FnMut(&Event)) -> Result<bool> {
        std::fs::create_dir_all(self.cache).map_err(|e| Error::io(self.cache, "creating the folder", e))?;
        let _lock = self.lock(observer)?;
        if self.folder.is_dir() {
            return Ok(true);
        }
        remove_unfinished(self.cache);
        // Removed when this function returns, for whatever reason.
        let room = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempdir_in(self.cache)
            .map_err(|e| Error::io(self.cache, "writing", e))?;

        let found = index::find(&self.agent, &self.index, self.wheel, self.cancel)?;
        let url = found.map_err(|problem| self.failed(problem))?;
        observer(&Event::Begin {
            file: self.wheel.file.to_string(),
            host: http::host(&url),
            bytes: self.wheel.bytes,
            folder: self.folder.to_path_buf(),
        });
        let archive = room.path().join(self.wheel.file);
        self.download(&url, &archive, observer)?;

        let libraries = room.path().join("libraries");
        std::fs::create_dir(&libraries).map_err(|e| Error::io(&libraries, "creating the folder", e))?;
        let file = File::open(&archive).map_err(|e| Error::io(&archive, "opening", e))?;
        let count = contain(|| unpack::unpack(file, &libraries)).map_err(|panic| self.failed(panic.to_string()))?;
        let count = count.map_err(|e| Error::io(&libraries, "unpacking into", e))?;
        if count == 0 {
            return Err(self.failed(format!("{} contains no libraries", self.wheel.file)));
        }
        library::digests::write(&libraries)?;
        match files::rename_folder(&libraries, self.folder) {
            Ok(()) => {}
            // Another process finished first, on a file system without locks.
            Err(_) if self.folder.is_dir() => return Ok(true),
            Err(e) => return Err(Error::io(self.folder, "creating the folder", e)),
        }
        // The name is on disk once the parent folder is synced. If that is not possible, the worst result is another
        // download.
        let _ = File::open(self.cache).and_then(|folder| folder.sync_all());
        observer(&Event::Done { folder: self.folder.to_path_buf() });
        Ok(false)
    }

    /// Waits until no other process changes the cache.
    fn lock(&self, observer: &mut dyn FnMut(&Event)) -> Result<File> {
        let path = self.cache.join(LOCK);
        let file = files::open_lock_file(&path).map_err(|e| Error::io(&path, "creating", e))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems have no locks. Then two processes may both download; each still publishes a
                // complete result, and the second finds the first's.
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(e)) => return Err(Error::io(&path, "locking", e)),
            }
            if !told {
                observer(&Event::Waiting { folder: self.cache.to_path_buf() });
                told = true;
            }
            self.check_cancel()?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Downloads `url` to the file `archive`, and checks its size and digest.
    fn download(&self, url: &str, archive: &Path, observer: &mut dyn FnMut(&Event)) -> Result<()> {
        let mut file = File::create_new(archive).map_err(|e| Error::io(archive, "creating", e))?;
        let (mut digest, mut done, mut is_whole, total) = (Sha256::new(), 0, false, self.wheel.bytes);
        let (agent, address) = (self.agent.clone(), url.to_owned());
        http::listen(
            self.cancel,
            move |sender| read(&agent, &address, sender),
            |part| {
                let chunk: Vec<u8> =
                    part.map_err(|problem| self.failed(format!("fetching {} failed: {problem}", http::shown(url))))?;
                is_whole = chunk.is_empty();
                if done + chunk.len() as u64 > total {
                    let (file, host) = (self.wheel.file, http::host(url));
                    return Err(
                        self.failed(format!("{file} from {host} is longer than the official file's {total} bytes"))
                    );
                }
                digest.update(&chunk);
                file.write_all(&chunk).map_err(|e| Error::io(archive, "writing", e))?;
                done += chunk.len() as u64;
                if !is_whole {
                    observer(&Event::Progress { done, total });
                }
                self.check_cancel()
            },
        )?;
        if !is_whole {
            return Err(self.failed(format!("fetching {} failed: its thread ended early", http::shown(url))));
        }
        let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != self.wheel.sha256 {
            return Err(self.failed(format!(
                "{} from {} is not the official file: expected sha256 {}, found {found} ({done} bytes)",
                self.wheel.file,
                http::host(url),
                self.wheel.sha256
            )));
        }
        Ok(())
    }

    fn failed(&self, problem: String) -> Error {
        Error::runtime(problem, self.by_hand)
    }

    fn check_cancel(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Interrupted { at_step: None }) } else { Ok(()) }
    }
}

/// Sends the contents of `url` piece by piece, with a final empty piece, until the first failure or until the receiver
/// is gone.
fn read(agent: &ureq::Agent, url: &str, sender: &SyncSender<std::result::Result<Vec<u8>, String>>) {
    let mut reader = match agent.get(url).call() {
        Ok(response) => response.into_body().into_with_config().limit(u64::MAX).reader(),
        Err(e) => return drop(sender.send(Err(e.to_string()))),
    };
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = reader.read(&mut buffer).map(|count| buffer.get(..count).unwrap_or_default().to_vec());
        let is_last = read.as_ref().map_or(true, Vec::is_empty);
        if sender.send(read.map_err(|e| e.to_string())).is_err() || is_last {
            return;
        }
    }
}
