//! A walk from a softmax back and on through a graph.

use crate::rewrite::facts::Facts;
use crate::rewrite::source::Source;

/// A graph and what is known of its tensors.
#[derive(Clone, Copy)]
pub(super) struct Walk<'s> {
    pub(super) source: &'s Source<'s>,
    pub(super) facts: &'s Facts,
}
