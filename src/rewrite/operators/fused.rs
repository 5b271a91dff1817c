//! Nodes of a graph that one operator replaces.

use crate::kernels::{Activation, OperandType, OwnOperator, RotaryPairs};
use crate::rewrite::pass::OperatorChoice;

/// Some nodes that become one operator.
#[derive(Debug, Clone)]
pub struct FusedNodes<'s> {
    /// The operator.
    pub fused: Fused<'s>,
    /// The nodes, in their order.
    pub nodes: Vec<usize>,
    /// The tensor that they compute.
    pub output: &'s str,
}

/// The operator that replaces some nodes.
#[derive(Debug, Clone)]
pub enum Fused<'s> {
    /// A product.
    Product(FusedProduct<'s>),
    /// Group normalization.
    GroupNorm(FusedGroupNorm<'s>),
    /// Normalization of rows.
    RowNorm(FusedRowNorm<'s>),
    /// Normalization of heads and rotary embedding.
    HeadNorm(FusedHeadNorm<'s>),
    /// Attention.
    Attention(FusedAttention<'s>),
}

/// A product, in the words of the operator `Product`.
#[derive(Debug, Clone)]
pub struct FusedProduct<'s> {
    /// The left operand: an image, or a matrix whose last axis is the depth.
    pub input: &'s str,
    /// True if it is an image, `[batch, channels, height, width]` in the graph.
    pub is_image: bool,
    /// The stored weights.
    pub weights: &'s str,
    /// True if the weights are `[depth, columns]`, as those of a `MatMul`.
    pub is_by_depth: bool,
    /// The columns of the weights.
    pub columns: usize,
    /// The depth of the weights, at each place of the kernel.
    pub depth: usize,
    /// The side of the kernel, 1 or 3.
    pub kernel: usize,
    /// The distance of two windows.
    pub stride: usize,
    /// The first pixel of the first window.
    pub offset: usize,
    /// True if the image is doubled before.
    pub upsamples: bool,
    /// A stored number for each column.
    pub bias: Option<&'s str>,
    /// A computed number for each image and column.
    pub added: Option<&'s str>,
    /// The activation.
    pub activation: Activation,
    /// True if half of the columns are gates.
    pub is_gated: bool,
    /// A computed factor for each image and column.
    pub gate: Option<&'s str>,
    /// A tensor that is added to the result.
    pub residual: Option<&'s str>,
    /// The node that joins the axes of the left operand for the graph's own operator, which this one does not need.
    pub fold: Option<usize>,
}

impl FusedProduct<'_> {
    /// The type that it multiplies in.
    pub fn operands(&self, choice: OperatorChoice) -> OperandType {
        choice.operands_of(self.columns.min(self.depth))
    }

    /// True if it is a linear layer that multiplies int8.
    pub fn is_int8(&self, choice: OperatorChoice) -> bool {
        !self.is_image && choice.is_int8(self.columns.min(self.depth))
    }

    /// True if it multiplies in the lowest precision of all.
    pub fn is_as_asked(&self, choice: OperatorChoice) -> bool {
        if choice.linear_in_int8 { self.is_int8(choice) } else { self.operands(choice) == choice.operands }
    }
}

/// Group normalization, in the words of the operator `GroupNorm`.
#[derive(Debug, Clone)]
pub struct FusedGroupNorm<'s> {
    /// The image, `[batch, channels, height, width]` in the graph.
    pub input: &'s str,
    /// The number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// The stored factor of each channel.
    pub scale: &'s str,
    /// The stored number that is added to each channel.
    pub shift: &'s str,
    /// The activation of the result.
    pub activation: Activation,
}

/// Normalization of rows, in the words of the operator `RowNorm`.
#[derive(Debug, Clone)]
pub struct FusedRowNorm<'s> {
    /// The rows.
    pub input: &'s str,
    /// Added to the variance.
    pub epsilon: f32,
    /// True if the mean is subtracted.
    pub centers: bool,
    /// The stored factors.
    pub scale: Option<&'s str>,
    /// Factors after those, computed for all images or for each.
    pub modulation: Option<&'s str>,
    /// The offsets, stored, or computed for all images or for each.
    pub shift: Option<&'s str>,
}

/// Normalization of heads and rotary embedding, in the words of the operator `HeadNorm`.
#[derive(Debug, Clone)]
pub struct FusedHeadNorm<'s> {
    /// One or two sequences, of which the second follows the first.
    pub sequences: Vec<FusedHeadRows<'s>>,
    /// Added to the mean of squares; `None` if heads are not normalized.
    pub epsilon: Option<f32>,
    /// The rotary embedding.
    pub rotary: Option<FusedRotary<'s>>,
}

/// A sequence, `[batch, rows, heads, width]`.
#[derive(Debug, Clone, Copy)]
pub struct FusedHeadRows<'s> {
    /// The rows.
    pub rows: &'s str,
    /// The stored factors of a head.
    pub scale: Option<&'s str>,
}

/// A rotary embedding.
#[derive(Debug, Clone, Copy)]
pub struct FusedRotary<'s> {
    /// The cosines of each row.
    pub cosines: &'s str,
    /// The sines of each row.
    pub sines: &'s str,
    /// The pairs.
    pub pairs: RotaryPairs,
    /// True if there is one cosine a pair.
    pub is_by_pair: bool,
}

/// Attention, in the words of the operator `Attention`.
#[derive(Debug, Clone)]
pub struct FusedAttention<'s> {
    /// Queries, keys and values, `[batch, rows, heads · width]`.
    pub operands: [&'s str; 3],
    /// The mask that is added to the scores, `[batch or 1, heads or 1, 1, keys]`.
    pub mask: Option<&'s str>,
    /// The number of heads.
    pub heads: usize,
    /// The factor of the scores.
    pub scale: f32,
}

impl Fused<'_> {
    /// The operator's kind.
    pub fn operator(&self) -> OwnOperator {
        match self {
            Self::Product(_) => OwnOperator::Product,
            Self::GroupNorm(_) => OwnOperator::GroupNorm,
            Self::RowNorm(_) => OwnOperator::RowNorm,
            Self::HeadNorm(_) => OwnOperator::HeadNorm,
            Self::Attention(_) => OwnOperator::Attention,
        }
    }
}

impl FusedNodes<'_> {
    /// The node in whose place the operator is put: all that it reads is computed before.
    pub fn last(&self) -> usize {
        self.nodes.last().copied().unwrap_or_default()
    }
}
