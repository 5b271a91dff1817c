//! One prepared graph on the disk.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::digest::Stamp;
use super::processor;
use crate::bundle::GraphFile;
use crate::error::{Error, Result};
use crate::files;
use crate::session::{Optimization, Runtime, Session, SessionOptions};

/// The prepared graph, in an entry's folder.
pub(super) const GRAPH: &str = "model.onnx";
/// What the folder of an entry begins with until it is whole.
pub(super) const UNFINISHED: &str = "unfinished-";
/// What is said of an entry, in its folder.
const CARD: &str = "entry.json";
const SCHEMA: u32 = 1;
/// ONNX Runtime's name for leaving weights where they lie, in the mapped file, instead of packing copies of them for its
/// matrix products.
const UNPACKED: &str = "session.disable_prepacking";

/// A prepared graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    schema: u32,
    /// Its name: what of graph, runtime, processor and options it belongs to.
    pub key: String,
    /// The component that it is, such as `unet`.
    pub component: String,
    /// The graph that it was made from.
    pub source: PathBuf,
    /// The digest of that graph.
    pub digest: String,
    /// The version of ONNX Runtime that made it.
    pub runtime: String,
    /// The kind of processor that it was made for.
    pub processor: String,
    /// The axes that it is fixed at.
    pub axes: Vec<(String, usize)>,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// How long that took, in seconds.
    pub seconds: f64,
    files: Vec<Stamp>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Entry {
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
        }
    }

    /// Takes down what lies in `folder` and writes the card that makes it an entry.
    pub(super) fn write(&mut self, folder: &Path) -> Result<()> {
        let listed = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "listing", e))?;
        let mut paths: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        self.files.clear();
        for path in paths {
            files::flush_to_disk(&path).map_err(|e| Error::io(&path, "writing", e))?;
            self.files.push(stamp(&path)?);
        }
        let card = serde_json::to_vec_pretty(self).map_err(|e| Error::io(folder, "writing", e.into()))?;
        files::write_whole(&folder.join(CARD), |file| std::io::Write::write_all(file, &card))
    }

    /// The entry in a folder, where there is a whole one whose files are as they were written.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let card = files::read(&folder.join(CARD)).ok()?;
        let mut entry: Self = serde_json::from_slice(&card).ok()?;
        entry.folder = folder.to_path_buf();
        let is_named = folder.file_name().is_some_and(|name| *name == *entry.key);
        let is_whole = entry.files.iter().all(|file| stamp(&folder.join(&file.name)).is_ok_and(|now| now == *file));
        (entry.schema == SCHEMA && is_named && is_whole).then_some(entry)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The room it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Why it is of no more use, where that is so: what it was made from is gone, or was made for another processor.
    pub fn stale(&self) -> Option<&'static str> {
        match self {
            _ if !self.source.exists() => Some("its graph is gone"),
            _ if self.processor != processor() => Some("made for another processor"),
            _ => None,
        }
    }

    /// Opens it in the place of the graph that it was made from.
    pub(super) fn open(&self, runtime: &Runtime, graph: &GraphFile, options: &SessionOptions) -> Result<Session> {
        let mut config = options.config.clone();
        config.push((UNPACKED.to_owned(), "1".to_owned()));
        let options = SessionOptions {
            optimization: Optimization::None,
            config,
            axes: Vec::new(),
            weight_files: Vec::new(),
            edits: Vec::new(),
            of: Some(graph.path.clone()),
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

/// Removes an entry's folder, its card first, so that nobody takes what is half gone for whole.
pub(super) fn remove(folder: &Path) -> Result<()> {
    let failed = |e| Error::io(folder, "removing", e);
    match std::fs::remove_file(folder.join(CARD)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(()),
    }
}

/// The bytes of the files in a folder.
pub(super) fn bytes_in(folder: &Path) -> u64 {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    listed.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
