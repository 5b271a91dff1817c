//! Traces the operands of an attention back to their origin, and its result forward to its final layout.

use super::walk::Walk;
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{input, int, ints, is, output};
use crate::rewrite::length::Length;
use crate::tensor::DType;

/// The meaning of an operand's axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperandAxis {
    /// The batch, or batch and heads merged.
    Batch,
    /// The heads.
    Heads,
    /// The tokens, or pixels.
    Tokens,
    /// The channels of one head.
    Channels,
}

use OperandAxis::{Batch, Channels, Heads, Tokens};

/// The operator's order of four axes; it merges the last two.
pub const ORDER: [OperandAxis; 4] = [Batch, Tokens, Heads, Channels];

/// The operator's order of three axes.
pub const ORDER_OF_ONE: [OperandAxis; 3] = [Batch, Tokens, Channels];

impl OperandAxis {
    /// Returns the axes of one side of a product with `rank` axes: tokens before channels, unless `turned`.
    pub fn from_product(rank: usize, turned: bool) -> Option<Vec<Self>> {
        let last = if turned { [Channels, Tokens] } else { [Tokens, Channels] };
        match rank {
            3 => Some([[Batch].as_slice(), &last].concat()),
            4 => Some([[Batch, Heads].as_slice(), &last].concat()),
            _ => None,
        }
    }
}

/// A tensor, and the meaning of its axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The tensor's name.
    pub name: String,
    /// Its axes.
    pub axes: Vec<OperandAxis>,
    /// The factor by which it is multiplied on its way to the attention.
    pub scale: f64,
}

impl Operand {
    /// Returns the length of an axis.
    pub fn length<'s>(&self, walk: Walk<'s>, axis: OperandAxis) -> Option<&'s Length> {
        walk.facts.shape(&self.name)?.get(self.axes.iter().position(|&own| own == axis)?)
    }

    /// Returns the number of heads; one if they have no axis.
    pub fn heads(&self, walk: Walk<'_>) -> Option<i64> {
        if self.axes.contains(&Heads) { self.length(walk, Heads)?.number().filter(|&n| n > 0) } else { Some(1) }
    }

    /// Returns this operand before its batch and heads were merged.
    pub fn split(&self, walk: Walk<'_>) -> Option<Self> {
        let reshape = walk.source.maker(&self.name).filter(|node| is(node, "Reshape"))?;
        let [Batch, rows, columns] = *self.axes.as_slice() else { return None };
        let name = input(reshape, 0)?;
        let (joined, apart) = (walk.facts.shape(&self.name)?, walk.facts.shape(name)?);
        let ([all, height, width], [batch, heads, h, w]) = (joined, apart) else { return None };
        if (h, w) != (height, width) || batch.times(heads)? != *all {
            return None;
        }
        Some(walk.back(name, vec![Batch, Heads, rows, columns], Some(self.scale)))
    }

    /// Returns the tensor `[batch, tokens, heads · channels]` of which this operand is a view, if any, with the scale
    /// on the way.
    pub fn joined(&self, walk: Walk<'_>) -> Option<Self> {
        if self.axes == ORDER_OF_ONE {
            return Some(self.clone());
        }
        let reshape = walk.source.maker(&self.name).filter(|node| is(node, "Reshape") && self.axes == ORDER)?;
        let name = input(reshape, 0)?;
        walk.is_joined(&self.name, name).then(|| walk.back(name, ORDER_OF_ONE.to_vec(), Some(self.scale)))
    }
}

/// The tensor that an attention computes.
#[derive(Debug, Clone)]
pub struct AttentionOutput {
    /// The index of the node that computes it.
    pub at: usize,
    /// Its name.
    pub name: String,
    /// The meaning of its axes; `None` if they are those of the operator.
    pub axes: Option<Vec<OperandAxis>>,
}

impl<'s> Walk<'s> {
    /// Traces a tensor with these axes back through operators that only move its values, or, while `scale` is given,
    /// multiply all of them by the same factor.
    pub fn back(self, name: &str, axes: Vec<OperandAxis>, scale: Option<f64>) -> Operand {
        let (mut name, mut axes) = (name, axes);
        let mut scaled = scale.unwrap_or(1.0);
        while let Some(node) = self.source.maker(name) {
            if let Some(before) = self.unchanged(node) {
                name = before;
            } else if is(node, "Transpose")
                && let Some((before, order)) = input(node, 0).zip(order(node, axes.len()))
            {
                let place = |at: usize| order.iter().position(|&from| from == at);
                axes = (0..axes.len()).filter_map(|at| axes.get(place(at)?).copied()).collect();
                name = before;
            } else if scale.is_some()
                && let Some((before, by)) = self.scaled(node)
                && self.facts.shape(before).is_some_and(|shape| shape.len() == axes.len())
            {
                scaled *= by;
                name = before;
            } else {
                break;
            }
        }
        Operand { name: name.to_owned(), axes, scale: scaled }
    }

    /// Traces attention's result forward from the product that computes it, to the last tensor that the fused attention
    /// can compute as a whole. `heads` have a separate axis or, if there are several and `axes` are three, are in the
    /// batch.
    pub fn forward(
        self,
        at: usize,
        name: &'s str,
        axes: Vec<OperandAxis>,
        batch: &Length,
        heads: i64,
    ) -> Option<AttentionOutput> {
        let (mut at, mut name, mut axes) = (at, name, axes);
        let mut parted = axes.len() == 4 || heads == 1;
        while axes != ORDER_OF_ONE || !parted {
            let Some((next, node)) = self.source.only_reader(name) else { break };
            let Some(made) = output(node) else { break };
            if self.unchanged(node).is_some() {
            } else if is(node, "Transpose")
                && parted
                && let Some(order) = order(node, axes.len())
            {
                axes = order.iter().filter_map(|&from| axes.get(from).copied()).collect();
            } else if is(node, "Reshape") && !parted {
                let [Batch, rows, columns] = *axes.as_slice() else { return None };
                let ([_, height, width], [b, n, h, w]) = (self.facts.shape(name)?, self.facts.shape(made)?) else {
                    return None;
                };
                if (h, w) != (height, width) || b != batch || n.number() != Some(heads) {
                    return None;
                }
                axes = vec![Batch, Heads, rows, columns];
                parted = true;
            } else if is(node, "Reshape") && axes == ORDER && self.is_joined(name, made) {
                axes = ORDER_OF_ONE.to_vec();
            } else {
                break;
            }
            (at, name) = (next, made);
        }
        let axes = Some(axes).filter(|axes| axes != &ORDER_OF_ONE);
        parted.then(|| AttentionOutput { at, name: name.to_owned(), axes })
    }

    /// Returns true if two tensors differ only in that the first has heads and channels on two axes, the second on one.
    fn is_joined(self, apart: &str, joined: &str) -> bool {
        let lengths = || {
            let ([batch, tokens, heads, channels], [b, t, c]) = (self.facts.shape(apart)?, self.facts.shape(joined)?)
            else {
                return None;
            };
            Some(b == batch && t == tokens && *c == heads.times(channels)?)
        };
        lengths().unwrap_or(false)
    }

    /// Returns the input of a node that does not change it.
    pub fn unchanged(self, node: &'s NodeProto) -> Option<&'s str> {
        let name = input(node, 0)?;
        let is_cast = || is(node, "Cast") && int(node, "to") == Some(i64::from(DType::F32.to_onnx()));
        let stays = is(node, "Identity") || (is_cast() && self.facts.dtype(name) == Some(DType::F32));
        stays.then_some(name)
    }

    /// Returns the input that a node multiplies by a known number, and the number.
    pub fn scaled(self, node: &'s NodeProto) -> Option<(&'s str, f64)> {
        let (left, right) = (input(node, 0)?, input(node, 1)?);
        match (self.facts.scalar(left), self.facts.scalar(right)) {
            (_, Some(by)) if is(node, "Mul") => Some((left, by)),
            (Some(by), None) if is(node, "Mul") => Some((right, by)),
            (None, Some(by)) if is(node, "Div") => Some((left, 1.0 / by)),
            _ => None,
        }
    }
}

/// Returns the input axis of each output axis of a `Transpose`.
pub fn order(transpose: &NodeProto, rank: usize) -> Option<Vec<usize>> {
    let order = match ints(transpose, "perm") {
        None => (0..rank).rev().collect(),
        Some(order) => order.iter().map(|&at| usize::try_from(at).ok()).collect::<Option<Vec<_>>>()?,
    };
    let is_whole = order.len() == rank && (0..rank).all(|at| order.contains(&at));
    is_whole.then_some(order)
}
