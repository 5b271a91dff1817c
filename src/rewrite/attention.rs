//! Fuses attention, `softmax(scale · Q Kᵀ) V` (Vaswani et al. 2017, arXiv 1706.03762, equation 1), into one
//! `com.microsoft.MultiHeadAttention`.
//!
//! Exporters decompose it in many forms: heads on a separate axis or within the batch; the scale on the queries, on the
//! keys, on both as a square root, or on the scores; keys and values transposed before or after. The common part is a
//! softmax between two products. From there each operand is traced back through operators that only move or scale its
//! values, until the axes of batch, heads, tokens and channels are known.
//!
//! With a mask, ONNX Runtime's kernel materializes the scores just as the graph does, so nothing is gained: such attention
//! is rewritten only where an operator of our own takes its place, and only if the mask is the same for all queries.

mod operand;
mod walk;

use operand::{AttentionOutput, ORDER, ORDER_OF_ONE, Operand, OperandAxis, order};
use walk::Walk;

use super::edits::{Edits, MICROSOFT, float, int, ints, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, int as int_of, is, output};
use super::length::Length;
use super::numbers::Values;
use crate::bundle::proto::NodeProto;
use crate::tensor::DType;

/// Rewrites every attention whose form is recognized, those with a mask `with_masks`, and returns their number.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, with_masks: bool, edits: &mut Edits) -> usize {
    let mut sites = Vec::new();
    for softmax in source.nodes.iter().filter(|node| is(node, "Softmax")) {
        if let Some(site) = (Walk { source, facts }).site(softmax)
            && (with_masks || site.mask.is_none())
            && !edits.is_replaced(site.made.at)
        {
            let nodes = site.nodes(source, edits);
            edits.replace(site.made.at, nodes);
            sites.push((site.made.at, output(softmax).unwrap_or_default()));
        }
    }
    edits.retain_useful(source, sites)
}

/// One attention.
struct Site {
    /// Queries, keys and values.
    operands: [Operand; 3],
    mask: Option<KeyMask>,
    heads: i64,
    scale: f32,
    made: AttentionOutput,
}

/// A mask of keys, which is added to their scores.
struct KeyMask {
    /// Its name, `[batch or 1, heads or 1, 1, keys]`.
    name: String,
    /// The number of queries.
    queries: i64,
}

impl<'s> Walk<'s> {
    /// Finds the attention around a softmax.
    fn site(self, softmax: &'s NodeProto) -> Option<Site> {
        let scores = input(softmax, 0)?;
        let rank = self.facts.shape(scores)?.len();
        if !self.is_along_last(softmax, rank)? {
            return None;
        }
        let (mask, scores) = match self.mask(scores) {
            Some((mask, scores)) => (Some(mask), scores),
            None => (None, scores),
        };
        let (product, scale) = self.product(scores)?;
        let query = self.back(input(product, 0)?, OperandAxis::from_product(rank, false)?, Some(scale));
        let key = self.back(input(product, 1)?, OperandAxis::from_product(rank, true)?, Some(1.0));
        let (at, sum, turned) = self.sum(output(softmax)?)?;
        let value = input(sum, if turned { 0 } else { 1 })?;
        let axes = OperandAxis::from_product(rank, turned)?;
        let value = self.back(value, axes.clone(), None);

        let made = output(sum)?;
        let [q, k, v] = [&query, &key, &value].map(|operand| operand.split(self));
        let apart = match (q, k, v) {
            (Some(q), Some(k), Some(v)) => self.assemble([q, k, v], at, made, axes.clone()),
            _ => None,
        };
        let site = apart.or_else(|| self.assemble([query, key, value], at, made, axes))?;
        Some(Site { mask, ..site })
    }

    /// Finds a mask of keys that is added to scores, and the scores before.
    fn mask(self, masked: &'s str) -> Option<(KeyMask, &'s str)> {
        let node = self.source.maker(masked).filter(|node| is(node, "Add"))?;
        let whole = self.facts.shape(masked)?;
        let of = |place: usize| Some((input(node, place)?, self.facts.shape(input(node, place)?)?));
        let (first, second) = (of(0)?, of(1)?);
        let ((scores, _), (name, lengths)) = if first.1 == whole { (first, second) } else { (second, first) };
        if self.is_zero(name) {
            return None;
        }
        let ([batch, heads, queries, keys], [b, h, q, k]) = (whole, lengths) else { return None };
        let is_one = |length: &Length| length.number() == Some(1);
        let fits = is_one(q) && k == keys && (b == batch || is_one(b)) && (h == heads || is_one(h));
        let is_whole = self.facts.shape(scores)? == whole && self.facts.dtype(name) == Some(DType::F32);
        let queries = queries.number().filter(|_| fits && is_whole)?;
        Some((KeyMask { name: name.to_owned(), queries }, scores))
    }

    /// Assembles a site, if its operands have the same batch and the same number of heads.
    fn assemble(self, operands: [Operand; 3], at: usize, made: &'s str, axes: Vec<OperandAxis>) -> Option<Site> {
        let [query, key, value] = &operands;
        let (heads, batch) = (query.heads(self)?, query.length(self, OperandAxis::Batch)?);
        for other in [key, value] {
            if other.heads(self)? != heads || other.length(self, OperandAxis::Batch)? != batch {
                return None;
            }
        }
        if operands.iter().any(|operand| self.facts.dtype(&operand.name) != Some(DType::F32)) {
            return None;
        }
        let made = self.forward(at, made, axes, batch, heads)?;
        let operands = operands.map(|operand| operand.joined(self).unwrap_or(operand));
        let scale = operands.iter().map(|operand| operand.scale).product::<f64>() as f32;
        // Zero means that the operator chooses the scale itself.
        (scale.is_finite() && scale != 0.0).then_some(Site { operands, mask: None, heads, scale, made })
    }

    /// Returns true if a softmax is along the last axis.
    fn is_along_last(self, softmax: &NodeProto, rank: usize) -> Option<bool> {
        /// Before this operator set version, the default axis of a softmax was the second.
        const LAST_BY_DEFAULT: i64 = 13;
        let last = i64::try_from(rank).ok()? - 1;
        let version = *self.source.graph().opsets.get("")?;
        Some(match int_of(softmax, "axis") {
            Some(axis) => axis == -1 || axis == last,
            None => version >= LAST_BY_DEFAULT,
        })
    }

    /// Finds the product that computes the scores, and its scale.
    fn product(self, scores: &'s str) -> Option<(&'s NodeProto, f64)> {
        let (mut name, mut scale) = (scores, 1.0);
        loop {
            let node = self.source.maker(name)?;
            if is(node, "MatMul") {
                let is_whole =
                    |name: &str| self.facts.shape(name).map(<[_]>::len) == self.facts.shape(scores).map(<[_]>::len);
                return is_whole(input(node, 0)?)
                    .then_some((node, scale))
                    .filter(|_| input(node, 1).is_some_and(is_whole));
            }
            if let Some(before) = self.unchanged(node) {
                name = before;
            } else if let Some((before, by)) = self.scaled(node) {
                scale *= by;
                name = before;
            } else {
                name = self.skip_zero_addition(node)?;
            }
        }
    }

    /// Returns the input of a node that only adds zeros to it, as `torch.baddbmm` with `beta = 0` does.
    fn skip_zero_addition(self, node: &'s NodeProto) -> Option<&'s str> {
        let (left, right) = (input(node, 0)?, input(node, 1)?);
        let kept = match (self.is_zero(left), self.is_zero(right)) {
            _ if !is(node, "Add") => return None,
            (_, true) => left,
            (true, false) => right,
            (false, false) => return None,
        };
        (self.facts.shape(kept)? == self.facts.shape(output(node)?)?).then_some(kept)
    }

    /// Returns true if a tensor contains only zeros.
    fn is_zero(self, name: &str) -> bool {
        if self.facts.scalar(name) == Some(0.0) {
            return true;
        }
        let Some((node, first)) = self.source.maker(name).and_then(|node| Some((node, input(node, 0)?))) else {
            return false;
        };
        match node.op_type.as_str() {
            "ConstantOfShape" => {
                let is_zero = |values: &Values| match values {
                    Values::Whole(values) => values.iter().all(|&v| v == 0),
                    Values::Real(values) => values.iter().all(|&v| v == 0.0),
                };
                node.attribute.is_empty() || self.source.constant(name).is_some_and(|n| is_zero(&n.values))
            }
            // Only of a scaled tensor: zero times NaN is NaN.
            "Mul" => self.scaled(node).is_some_and(|(before, _)| self.is_zero(before)),
            "Expand" | "Cast" | "Identity" | "Reshape" | "Unsqueeze" => self.is_zero(first),
            _ => false,
        }
    }

    /// Finds the product of probabilities and values: its index, and true if both are transposed in it.
    fn sum(self, probabilities: &'s str) -> Option<(usize, &'s NodeProto, bool)> {
        let (mut name, mut turned) = (probabilities, false);
        loop {
            let (at, node) = self.source.only_reader(name)?;
            if is(node, "MatMul") {
                let side = if turned { 1 } else { 0 };
                return (input(node, side)? == name).then_some((at, node, turned));
            }
            if is(node, "Transpose") && !turned {
                let rank = self.facts.shape(name)?.len();
                let mut swapped: Vec<usize> = (0..rank).collect();
                swapped.swap(rank.checked_sub(2)?, rank - 1);
                if order(node, rank)? != swapped {
                    return None;
                }
                turned = true;
            } else {
                self.unchanged(node)?;
            }
            name = output(node)?;
        }
    }
}

impl Site {
    /// Returns the nodes that compute it.
    fn nodes(&self, source: &IndexedGraph<'_>, edits: &mut Edits) -> Vec<NodeProto> {
        let mut nodes = Vec::new();
        let operands: Vec<String> =
            self.operands.iter().map(|operand| append_layout(operand, source, edits, &mut nodes)).collect();
        let mask = self.mask.as_ref().map(|mask| {
            let (wide, shape) = (edits.name(source, "mask"), edits.list(source, &[1, 1, mask.queries, 1]));
            nodes.push(node("Expand", &[&mask.name, &shape], &wide, Vec::new()));
            wide
        });
        let mut inputs: Vec<&str> = operands.iter().map(String::as_str).collect();
        // Between are a bias and a mask of whole numbers.
        inputs.extend(mask.iter().flat_map(|mask| ["", "", mask]));
        let attributes = vec![int("num_heads", self.heads), float("scale", self.scale)];
        let made = &self.made;
        let Some(axes) = &made.axes else {
            nodes.push(NodeProto {
                domain: MICROSOFT.to_owned(),
                ..node("MultiHeadAttention", &inputs, &made.name, attributes)
            });
            return nodes;
        };
        let mut given = edits.name(source, "attention");
        nodes.push(NodeProto {
            domain: MICROSOFT.to_owned(),
            ..node("MultiHeadAttention", &inputs, &given, attributes)
        });
        let own: &[OperandAxis] = if axes.len() == 4 { &ORDER } else { &ORDER_OF_ONE };
        if axes.len() == 4 {
            let apart = if axes == own { made.name.clone() } else { edits.name(source, "attention") };
            let shape = edits.list(source, &[0, 0, self.heads, -1]);
            nodes.push(node("Reshape", &[&given, &shape], &apart, Vec::new()));
            given = apart;
        }
        if axes != own {
            nodes.push(node("Transpose", &[&given], &made.name, vec![ints("perm", &permutation(own, axes))]));
        }
        nodes
    }
}

/// Appends the nodes that bring an operand to `[batch, tokens, heads · channels]`, and returns the result's name.
fn append_layout(
    operand: &Operand,
    source: &IndexedGraph<'_>,
    edits: &mut Edits,
    nodes: &mut Vec<NodeProto>,
) -> String {
    let own: &[OperandAxis] = if operand.axes.len() == 4 { &ORDER } else { &ORDER_OF_ONE };
    let mut name = operand.name.clone();
    if operand.axes != own {
        let turned = edits.name(source, "operand");
        nodes.push(node("Transpose", &[&name], &turned, vec![ints("perm", &permutation(&operand.axes, own))]));
        name = turned;
    }
    if operand.axes.len() == 4 {
        let (joined, shape) = (edits.name(source, "operand"), edits.list(source, &[0, 0, -1]));
        nodes.push(node("Reshape", &[&name, &shape], &joined, Vec::new()));
        name = joined;
    }
    name
}

/// Returns the index among the axes `from` of each of the axes `to`.
fn permutation(from: &[OperandAxis], to: &[OperandAxis]) -> Vec<i64> {
    to.iter().filter_map(|axis| from.iter().position(|own| own == axis)).map(|at| at as i64).collect()
}
