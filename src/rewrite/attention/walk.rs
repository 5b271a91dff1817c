//! Walks through a graph from an attention.

use crate::rewrite::facts::TensorFacts;
use crate::rewrite::indexed_graph::IndexedGraph;

/// A graph and the known facts about its tensors.
#[derive(Clone, Copy)]
pub struct Walk<'s> {
    pub source: &'s IndexedGraph<'s>,
    pub facts: &'s TensorFacts,
}
