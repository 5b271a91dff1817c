//! A second opening of a graph.

use std::path::PathBuf;

use crate::session::SessionOptions;
use crate::session::invoke::OpenGraph;

/// The graph opened a second time, with all threads for one run.
pub(super) enum SingleRunGraph {
    /// Not open yet: its path and its options.
    Closed(PathBuf, SessionOptions),
    Open(OpenGraph),
}
