//! A graph whose shapes are all known, as the finders of operators see it.

use crate::bundle::proto::NodeProto;
use crate::rewrite::facts::TensorFacts;
use crate::rewrite::indexed_graph::{IndexedGraph, input, is};
use crate::rewrite::numbers::Values;
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

    /// Returns the only reader of a tensor and its other operand, if that reader is this operator of two tensors.
    pub fn other_operand(self, name: &str, operator: &str) -> Option<(usize, &'s str)> {
        let (at, node) = self.only_reader(name).filter(|(_, node)| is(node, operator))?;
        let (a, b) = (input(node, 0)?, input(node, 1)?);
        let other = if a == name { b } else { a };
        (other != name).then_some((at, other))
    }

    /// Returns true for a float32 row of `width` numbers, for all of `batch` images or for each, that is broadcast to a tensor
    /// of `rank` axes.
    pub fn is_row_by_image(self, name: &str, batch: usize, rank: usize, width: usize) -> bool {
        let Some(lengths) = self.lengths(name).filter(|lengths| lengths.len() <= rank) else { return false };
        let Some((last, before)) = lengths.split_last() else { return false };
        let is_by_image = lengths.len() == rank && before.first() == Some(&batch);
        let ones = if is_by_image { &before[1..] } else { before };
        *last == width && ones.iter().all(|length| *length == 1) && self.is_float(name)
    }

    /// Returns true if all numbers of a stored tensor are this one.
    pub fn is_all(self, name: &str, value: f32) -> bool {
        const MOST: usize = 1 << 16;
        self.source.numbers(name, MOST).is_some_and(|numbers| match numbers.values {
            Values::Real(values) => values.iter().all(|v| *v == value),
            Values::Whole(_) => false,
        })
    }

    /// Returns the product of lengths.
    pub fn count(lengths: &[usize]) -> usize {
        lengths.iter().product()
    }
}
