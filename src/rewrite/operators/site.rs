//! A graph whose shapes are all known, as the finders of operators see it.

use crate::bundle::proto::NodeProto;
use crate::rewrite::facts::TensorFacts;
use crate::rewrite::indexed_graph::IndexedGraph;
use crate::tensor::DType;

/// A graph and what is known about its tensors.
#[derive(Clone, Copy)]
pub struct Site<'s> {
    /// The graph.
    pub source: &'s IndexedGraph<'s>,
    /// Its shapes and types.
    pub facts: &'s TensorFacts,
}

impl<'s> Site<'s> {
    /// Returns a tensor's lengths; `None` if one is unknown.
    pub fn lengths(self, name: &str) -> Option<Vec<usize>> {
        self.facts.shape(name)?.iter().map(|length| usize::try_from(length.number()?).ok()).collect()
    }

    /// Returns true for float32.
    pub fn is_float(self, name: &str) -> bool {
        self.facts.dtype(name) == Some(DType::F32)
    }

    /// Returns true if a tensor is stored, float32, and has this shape.
    pub fn is_stored(self, name: &str, lengths: &[usize]) -> bool {
        self.stored(name).is_some_and(|own| own == lengths)
    }

    /// Returns the lengths of a tensor that is stored as float32 and that no caller replaces.
    pub fn stored(self, name: &str) -> Option<Vec<usize>> {
        let (tensor, place) = self.source.stored_tensor(name)?;
        self.source.float_bytes(tensor, place)?;
        tensor.dims.iter().map(|&length| usize::try_from(length).ok()).collect()
    }

    /// Returns the only reader of a tensor, and its index.
    pub fn only_reader(self, name: &str) -> Option<(usize, &'s NodeProto)> {
        self.source.only_reader(name)
    }

    /// Returns the product of lengths.
    pub fn count(lengths: &[usize]) -> usize {
        lengths.iter().product()
    }
}
