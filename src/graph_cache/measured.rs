//! Measurements on this machine, stored next to the graphs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cache_folder::{GraphCache, MEASURED};
use super::checksums::{read_sealed, write_sealed};
use super::digest::digest;
use super::key::processor;
use crate::bundle::GraphFile;
use crate::error::Result;
use crate::files;
use crate::session::Runtime;

/// The version of the measurements. It changes when something else is measured.
const FORM: &str = "2";

/// The time of a denoiser for two rows of a call, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Two runs at the same time, each with a part of the threads.
    pub split: f64,
    /// One run after the other, each with all threads.
    pub sequential: f64,
    /// Two rows of one run of all rows, where that could be measured.
    pub batched: Option<f64>,
    /// True if that was tried.
    #[serde(default)]
    pub tried_batched: bool,
}

/// The file with the measurements of one graph, on one kind of CPU with a number of threads.
#[derive(Debug, Clone)]
pub struct MeasurementFile {
    path: PathBuf,
    is_read_only: bool,
}

impl GraphCache {
    /// The file with the measurements of `graph` on `threads` threads.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the graph's files cannot be read.
    pub fn measured(&self, runtime: &Runtime, graph: &GraphFile, threads: usize) -> Result<MeasurementFile> {
        let mut hash = Sha256::new();
        for part in [FORM, &digest(Some(self), graph)?, runtime.version(), &processor(), &threads.to_string()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut name = files::hexadecimal(hash);
        name.truncate(32);
        Ok(MeasurementFile {
            is_read_only: self.is_read_only,
            path: self.root.join(MEASURED).join(format!("{name}.json")),
        })
    }
}

impl MeasurementFile {
    /// The stored measurements, if any.
    pub fn read(&self) -> Option<Rows> {
        read_sealed(&self.path)
    }

    /// Stores measurements. If they cannot be written, the next run measures again.
    pub fn write(&self, rows: Rows) {
        if !self.is_read_only && self.path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok()) {
            let _ = write_sealed(&self.path, &rows);
        }
    }
}
