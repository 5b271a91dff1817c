//! One optimized graph on the disk.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::checksums::{Checksums, read_sealed, write_sealed};
use super::key::processor;
use super::stamp::Stamp;
use super::usage::InUse;
use super::wanted::Wanted;
use crate::bundle::GraphFile;
use crate::error::{Error, Result};
use crate::files;
use crate::session::{Optimization, Runtime, Session, SessionOptions};

/// The optimized graph, in an entry's folder.
pub(super) const GRAPH: &str = "model.onnx";
/// The prefix of an entry's folder until it is whole.
pub(super) const UNFINISHED: &str = "unfinished-";
/// The description of an entry, in its folder.
const CARD: &str = "entry.json";
const SCHEMA: u32 = 2;
/// ONNX Runtime's name for using weights in the mapped file instead of packing copies of them for its
/// matrix products.
const UNPACKED: &str = "session.disable_prepacking";

/// An optimized graph in the cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CachedGraph {
    schema: u32,
    /// Its name: a digest of graph, runtime, CPU and options.
    pub key: String,
    /// Its component, such as `unet`.
    pub component: String,
    /// The graph that it was made from.
    pub source: PathBuf,
    /// The digest of that graph.
    pub digest: String,
    /// The version of ONNX Runtime that made it.
    pub runtime: String,
    /// The kind of CPU that it was made for.
    pub processor: String,
    /// The axes that it is fixed at, with their lengths.
    pub axes: Vec<(String, usize)>,
    /// The time at which it was made, in seconds since 1970.
    pub made: u64,
    /// The time that making it took, in seconds.
    pub seconds: f64,
    files: Vec<StoredFile>,
    #[serde(skip)]
    folder: PathBuf,
    /// Keeps it from eviction.
    #[serde(skip)]
    in_use: InUse,
}

/// A file of an entry, as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredFile {
    stamp: Stamp,
    checksums: Checksums,
}

/// A file of an entry that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    /// The component that the entry is.
    pub component: String,
    /// The file.
    pub path: PathBuf,
    /// The damage and its place.
    pub problem: String,
    /// True if the entry was dropped, so that the next run makes it again; false if its folder is read-only.
    pub is_dropped: bool,
}

impl DamagedFile {
    /// The error of a run that used the file.
    pub(super) fn error(&self) -> Error {
        let problem = if self.is_dropped {
            format!(
                "{}; the optimized graph of {} was dropped, and the next run makes it again; if this happens again, check \
                 the disk and the memory of this machine",
                self.problem, self.component
            )
        } else {
            format!("{}; it cannot be removed from here: remove the folder that it is in", self.problem)
        };
        Error::io(&self.path, "reading", std::io::Error::new(std::io::ErrorKind::InvalidData, problem))
    }
}

impl CachedGraph {
    pub(super) fn new(key: &str, graph: &GraphFile, digest: &str, runtime: &Runtime, options: &SessionOptions) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            key: key.to_owned(),
            component: options.component.clone(),
            source: std::path::absolute(&graph.path).unwrap_or_else(|_| graph.path.clone()),
            digest: digest.to_owned(),
            runtime: runtime.version().to_owned(),
            processor: processor(),
            axes: options.axes.clone(),
            made: now.map_or(0, |time| time.as_secs()),
            seconds: 0.0,
            files: Vec::new(),
            folder: PathBuf::new(),
            in_use: InUse::default(),
        }
    }

    /// Lists the files in `folder` and writes the card that makes it an entry.
    pub(super) fn write(&mut self, folder: &Path) -> Result<()> {
        let listed = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "listing", e))?;
        let mut paths: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        self.files.clear();
        for path in paths {
            files::flush_to_disk(&path).map_err(|e| Error::io(&path, "writing", e))?;
            let checksums = Checksums::of(&path)?;
            self.files.push(StoredFile { stamp: stamp(&path)?, checksums });
        }
        write_sealed(&folder.join(CARD), self)
    }

    /// The entry in a folder, if it is whole and its files are as they were written.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let mut entry: Self = read_sealed(&folder.join(CARD))?;
        entry.folder = folder.to_path_buf();
        let is_named = folder.file_name().is_some_and(|name| *name == *entry.key);
        let is_same = |file: &StoredFile| stamp(&folder.join(&file.stamp.name)).is_ok_and(|now| now == file.stamp);
        let is_whole = entry.files.iter().all(is_same);
        (entry.schema == SCHEMA && is_named && is_whole).then_some(entry)
    }

    /// The same entry, which is not evicted as long as it lives.
    pub(super) fn in_use(self, in_use: InUse) -> Self {
        Self { in_use, ..self }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its size on disk, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.stamp.bytes).sum()
    }

    /// A text that differs between two entries of one name made at different times.
    pub(super) fn identity(&self) -> String {
        let stamps = self.files.iter().map(|file| format!("{} {} ", file.stamp.modified, file.stamp.changed));
        stamps.collect()
    }

    /// Reads the entry's files of up to `largest` bytes, and returns the first that is not as it was written. Ends early,
    /// without one, as soon as `goes_on` says so.
    pub(super) fn damage(&self, largest: u64, goes_on: &dyn Fn() -> bool) -> Option<DamagedFile> {
        self.files.iter().filter(|file| file.stamp.bytes <= largest).find_map(|file| {
            let path = self.folder.join(&file.stamp.name);
            let problem = match file.checksums.damage(&path, goes_on) {
                Ok(None) => return None,
                Ok(Some(at)) => format!("is damaged: the bytes from {at} on are not those that were written"),
                Err(error) => error.to_string(),
            };
            Some(DamagedFile { component: self.component.clone(), path, problem, is_dropped: false })
        })
    }

    /// Removes the card, without which the entry is made again, and leaves the files, which may be mapped.
    pub(super) fn invalidate(&self) -> Result<()> {
        remove_card(&self.folder)
    }

    /// The reason why nothing can use it any more, if any: its graph is gone, or it was made for another CPU.
    pub fn stale(&self) -> Option<&'static str> {
        match self {
            _ if !self.source.exists() => Some("its graph is gone"),
            _ if self.processor != processor() => Some("made for another CPU"),
            _ => None,
        }
    }

    /// Opens it instead of the graph that it was made from, `in_use` as long as the session is open.
    pub(super) fn open(&self, wanted: &Wanted<'_>, in_use: &InUse) -> Result<Session> {
        let &Wanted { runtime, graph, options, passes, .. } = wanted;
        let mut config = options.config.clone();
        config.push((UNPACKED.to_owned(), "1".to_owned()));
        let options = SessionOptions {
            optimization: Optimization::None,
            config,
            axes: Vec::new(),
            weight_files: Vec::new(),
            edits: Vec::new(),
            display_path: Some(graph.path.clone()),
            held: in_use.0.clone(),
            has_own_operators: passes.iter().any(|pass| pass.operators().is_some()),
            ..options.clone()
        };
        Session::open(runtime, &self.folder.join(GRAPH), &options)
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`Error::Io`] naming what cannot be removed.
    pub fn remove(&self) -> Result<()> {
        remove(&self.folder)
    }
}

/// A file's stamp, under its name in its folder.
///
/// Moving the folder to its place changes none of what is compared: the files themselves are not touched.
fn stamp(path: &Path) -> Result<Stamp> {
    let stamp = Stamp::of(path)?;
    Ok(Stamp { name: path.file_name().map(PathBuf::from).unwrap_or_default(), ..stamp })
}

/// Removes an entry's folder, its card first, so that a folder that is half removed is no entry.
pub(super) fn remove(folder: &Path) -> Result<()> {
    let failed = |e| Error::io(folder, "removing", e);
    remove_card(folder)?;
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(()),
    }
}

fn remove_card(folder: &Path) -> Result<()> {
    match std::fs::remove_file(folder.join(CARD)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, "removing", e)),
        _ => Ok(()),
    }
}

/// The bytes of the files in a folder.
pub(super) fn bytes_in(folder: &Path) -> u64 {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    listed.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
