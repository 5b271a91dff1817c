//! What was measured on this machine once, and is remembered beside the graphs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cache::GraphCache;
use super::checksums::{read_sealed, write_sealed};
use super::digest::digest;
use super::machine::processor;
use crate::bundle::GraphFile;
use crate::error::Result;
use crate::files;
use crate::session::Runtime;

/// The folder in the cache that measurements are in.
pub(super) const FOLDER: &str = "measured";

/// What is changed when something else is measured.
const FORM: &str = "2";

/// How long two rows of a call took of a denoiser, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Two runs at the same time, each with a part of the threads.
    pub split: f64,
    /// One run after the other, each with all threads.
    pub sequential: f64,
    /// Two rows of one run of all rows, where that could be measured.
    pub batched: Option<f64>,
    /// Whether that was tried.
    #[serde(default)]
    pub tried_batched: bool,
}

/// A place for what is measured of one graph, on one kind of processor with so many threads.
#[derive(Debug, Clone)]
pub struct MeasurementFile(PathBuf);

impl GraphCache {
    /// The place for what is measured of `graph` run on `threads` threads.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) where the graph's files cannot be read.
    pub fn measured(&self, runtime: &Runtime, graph: &GraphFile, threads: usize) -> Result<MeasurementFile> {
        let mut hash = Sha256::new();
        for part in [FORM, &digest(Some(self), graph)?, runtime.version(), &processor(), &threads.to_string()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut name = files::hexadecimal(hash);
        name.truncate(32);
        Ok(MeasurementFile(self.root.join(FOLDER).join(format!("{name}.json"))))
    }
}

impl MeasurementFile {
    /// What is remembered, where anything is.
    pub fn read(&self) -> Option<Rows> {
        read_sealed(&self.0)
    }

    /// Remembers. What cannot be written is measured again; that is all that follows from a disk that is full.
    pub fn write(&self, rows: Rows) {
        if self.0.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok()) {
            let _ = write_sealed(&self.0, &rows);
        }
    }
}
