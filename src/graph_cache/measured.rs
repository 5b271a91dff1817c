//! Measurements on this machine, stored next to the graphs.

use serde::{Deserialize, Serialize};

use super::cache_file::CacheFile;
use super::cache_folder::{GraphCache, MEASURED};
use super::digest::digest;
use super::key::processor;
use crate::bundle::GraphFile;
use crate::error::Result;
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

impl GraphCache {
    /// The file with the measurements of `graph` on `threads` threads.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the graph's files cannot be read.
    pub fn measured(&self, runtime: &Runtime, graph: &GraphFile, threads: usize) -> Result<CacheFile<Rows>> {
        let parts = [FORM, &digest(Some(self), graph)?, runtime.version(), &processor(), &threads.to_string()];
        Ok(self.file(MEASURED, parts.map(str::to_owned)))
    }
}
