//! Graphs that the cache is asked for.

use std::path::PathBuf;

use crate::bundle::GraphFile;
use crate::rewrite::Pass;
use crate::session::{Runtime, SessionOptions};

/// A graph with everything that decides its entry.
pub(super) struct Wanted<'a> {
    pub runtime: &'a Runtime,
    pub graph: &'a GraphFile,
    pub passes: &'a [Pass],
    pub options: &'a SessionOptions,
    /// The digest of the graph.
    pub source: String,
    pub key: String,
    pub folder: PathBuf,
}
