//! Downloads one official build into the cache.

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::wheel::Wheel;
use super::{FetchEvent, LOCK, UNFINISHED, http, index, remove_unfinished, unpack, wheel};
use crate::error::{Error, Result};
use crate::files;
use crate::guard::contain;
use crate::session::Cancel;
use crate::session::library::{self, RuntimeOptions};

/// Fetches a wheel into `folder`, unless another process did so first; returns true in that case.
///
/// # Errors
/// As [`super::install`].
pub(super) fn fetch(
    wheel: &Wheel<'_>,
    (cache, folder): (&Path, &Path),
    options: &RuntimeOptions,
    manual_steps: &str,
    observer: &mut dyn FnMut(&FetchEvent),
) -> Result<bool> {
    let (index, agent) = (index::address(&options.env), http::agent(options.env.ca_bundle.as_deref())?);
    Job { wheel, index, agent, cancel: &options.cancel, cache, folder, manual_steps }.run(observer)
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
    manual_steps: &'a str,
}

impl Job<'_> {
    /// Fetches the build, unless another process did so first; returns true in that case.
    fn run(&self, observer: &mut dyn FnMut(&FetchEvent)) -> Result<bool> {
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
        observer(&FetchEvent::Begin {
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
        let within = wheel::folder(self.wheel.flavor);
        let count =
            contain(|| unpack::unpack(file, within, &libraries)).map_err(|panic| self.failed(panic.to_string()))?;
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
        observer(&FetchEvent::Done { folder: self.folder.to_path_buf() });
        Ok(false)
    }

    /// Waits until no other process changes the cache.
    fn lock(&self, observer: &mut dyn FnMut(&FetchEvent)) -> Result<File> {
        let path = self.cache.join(LOCK);
        let file = files::open_lock_file(&path).map_err(|e| Error::io(&path, "creating", e))?;
        let mut is_reported = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems have no locks. Then two processes may both download; each still publishes a
                // complete result, and the second finds the first's.
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(e)) => return Err(Error::io(&path, "locking", e)),
            }
            if !is_reported {
                observer(&FetchEvent::Waiting { folder: self.cache.to_path_buf() });
                is_reported = true;
            }
            self.cancel.check()?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Downloads `url` to the file `archive`, and checks its size and digest.
    fn download(&self, url: &str, archive: &Path, observer: &mut dyn FnMut(&FetchEvent)) -> Result<()> {
        let mut file = File::create_new(archive).map_err(|e| Error::io(archive, "creating", e))?;
        let (mut digest, mut done, mut is_whole, total) = (Sha256::new(), 0, false, self.wheel.bytes);
        let (agent, address) = (self.agent.clone(), url.to_owned());
        http::listen(
            self.cancel,
            move |sender| read(&agent, &address, sender),
            |part| {
                let chunk: Vec<u8> = part.map_err(|problem| {
                    self.failed(format!("fetching {} failed: {problem}", http::without_credentials(url)))
                })?;
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
                    observer(&FetchEvent::Progress { done, total });
                }
                self.cancel.check()
            },
        )?;
        if !is_whole {
            return Err(
                self.failed(format!("fetching {} failed: its thread ended early", http::without_credentials(url)))
            );
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
        Error::runtime(problem, self.manual_steps)
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
