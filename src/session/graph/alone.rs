//! A graph opened for one of several runs, and again for a lone one.

use std::path::PathBuf;

use crate::session::SessionOptions;
use crate::session::invoke::Graph;

/// The graph opened a second time, with all threads for one run.
pub(super) enum Alone {
    /// Not yet: where it lies, and how it is opened.
    Closed(PathBuf, SessionOptions),
    Open(Graph),
}
