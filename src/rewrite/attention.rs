//! Attention written out: `softmax(scale · Q Kᵀ) V` (Vaswani et al. 2017, arXiv 1706.03762, equation 1) as one
//! `com.microsoft.MultiHeadAttention`.
//!
//! Exporters write it in many forms: heads on an axis of their own or within the batch, the scale on the queries, on
//! the keys, on both as a square root, or on the scores, keys and values transposed before or after. What they have in
//! common is a softmax between two products. Each operand is followed back from there through what only moves or scales
//! its values, until it is known on which axes batch, heads, tokens and channels lie.
//!
//! With a mask the operator's kernel writes the scores out as the graph does, so that nothing is gained: such attention
//! is left as it is.

mod operand;
mod walk;

use operand::{Axis, Made, ORDER, ORDER_OF_ONE, Operand, order};
use walk::Walk;

use super::edits::{Edits, MICROSOFT, float, int, ints, node};
use super::facts::Facts;
use super::numbers::Values;
use super::source::{Source, input, int as int_of, is, output};
use crate::bundle::proto::Node;
use crate::tensor::DType;

/// Rewrites every attention that is understood, and says how many there were.
pub fn rewrite(source: &Source<'_>, facts: &Facts, edits: &mut Edits) -> usize {
    let mut sites = Vec::new();
    for softmax in source.nodes.iter().filter(|node| is(node, "Softmax")) {
        if let Some(site) = (Walk { source, facts }).site(softmax)
            && !edits.is_replaced(site.made.at)
        {
            let nodes = site.nodes(source, edits);
            edits.replace(site.made.at, nodes);
            sites.push((site.made.at, output(softmax).unwrap_or_default()));
        }
    }
    edits.keep_gains(source, sites)
}

/// One attention.
struct Site {
    /// Queries, keys and values.
    operands: [Operand; 3],
    heads: i64,
    scale: f32,
    made: Made,
}

impl<'s> Walk<'s> {
    /// The attention around a softmax.
    fn site(self, softmax: &'s Node) -> Option<Site> {
        let scores = input(softmax, 0)?;
        let rank = self.facts.shape(scores)?.len();
        if !self.is_along_last(softmax, rank)? {
            return None;
        }
        let (product, scale) = self.product(scores)?;
        let query = self.back(input(product, 0)?, Axis::of_product(rank, false)?, Some(scale));
        let key = self.back(input(product, 1)?, Axis::of_product(rank, true)?, Some(1.0));
        let (at, sum, turned) = self.sum(output(softmax)?)?;
        let value = input(sum, if turned { 0 } else { 1 })?;
        let axes = Axis::of_product(rank, turned)?;
        let value = self.back(value, axes.clone(), None);

        let made = output(sum)?;
        let [q, k, v] = [&query, &key, &value].map(|operand| operand.split(self));
        let apart = match (q, k, v) {
            (Some(q), Some(k), Some(v)) => self.assemble([q, k, v], at, made, axes.clone()),
            _ => None,
        };
        apart.or_else(|| self.assemble([query, key, value], at, made, axes))
    }

    /// Puts a site together, if its operands are of one batch and of as many heads.
    fn assemble(self, operands: [Operand; 3], at: usize, made: &'s str, axes: Vec<Axis>) -> Option<Site> {
        let [query, key, value] = &operands;
        let (heads, batch) = (query.heads(self)?, query.length(self, Axis::Batch)?);
        for other in [key, value] {
            if other.heads(self)? != heads || other.length(self, Axis::Batch)? != batch {
                return None;
            }
        }
        if operands.iter().any(|operand| self.facts.dtype(&operand.name) != Some(DType::F32)) {
            return None;
        }
        let made = self.forward(at, made, axes, batch, heads)?;
        let operands = operands.map(|operand| operand.joined(self).unwrap_or(operand));
        let scale = operands.iter().map(|operand| operand.scale).product::<f64>() as f32;
        // Zero stands for a scale that the operator chooses by itself.
        (scale.is_finite() && scale != 0.0).then_some(Site { operands, heads, scale, made })
    }

    /// Whether a softmax goes along the last axis.
    fn is_along_last(self, softmax: &Node, rank: usize) -> Option<bool> {
        /// Before this version of the operators a softmax without a word went along the second axis.
        const LAST_BY_DEFAULT: i64 = 13;
        let last = i64::try_from(rank).ok()? - 1;
        let version = *self.source.graph().opsets.get("")?;
        Some(match int_of(softmax, "axis") {
            Some(axis) => axis == -1 || axis == last,
            None => version >= LAST_BY_DEFAULT,
        })
    }

    /// The product that scores are made of, and what it is multiplied by.
    fn product(self, scores: &'s str) -> Option<(&'s Node, f64)> {
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
                name = self.plus_nothing(node)?;
            }
        }
    }

    /// What a node reads to which it adds only zeros, as `torch.baddbmm` with `beta = 0` does.
    fn plus_nothing(self, node: &'s Node) -> Option<&'s str> {
        let (left, right) = (input(node, 0)?, input(node, 1)?);
        let kept = match (self.is_zero(left), self.is_zero(right)) {
            _ if !is(node, "Add") => return None,
            (_, true) => left,
            (true, false) => right,
            (false, false) => return None,
        };
        (self.facts.shape(kept)? == self.facts.shape(output(node)?)?).then_some(kept)
    }

    /// Whether a tensor holds nothing but zeros.
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
            // Not of any tensor: zero times what is no number is no number.
            "Mul" => self.scaled(node).is_some_and(|(before, _)| self.is_zero(before)),
            "Expand" | "Cast" | "Identity" | "Reshape" | "Unsqueeze" => self.is_zero(first),
            _ => false,
        }
    }

    /// The product of probabilities and values, its index, and whether both are transposed in it.
    fn sum(self, probabilities: &'s str) -> Option<(usize, &'s Node, bool)> {
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
    /// The nodes that compute it.
    fn nodes(&self, source: &Source<'_>, edits: &mut Edits) -> Vec<Node> {
        let mut nodes = Vec::new();
        let operands: Vec<String> =
            self.operands.iter().map(|operand| lay_out(operand, source, edits, &mut nodes)).collect();
        let inputs: Vec<&str> = operands.iter().map(String::as_str).collect();
        let attributes = vec![int("num_heads", self.heads), float("scale", self.scale)];
        let made = &self.made;
        let Some(axes) = &made.axes else {
            nodes.push(Node {
                domain: MICROSOFT.to_owned(),
                ..node("MultiHeadAttention", &inputs, &made.name, attributes)
            });
            return nodes;
        };
        let mut given = edits.name(source, "attention");
        nodes.push(Node { domain: MICROSOFT.to_owned(), ..node("MultiHeadAttention", &inputs, &given, attributes) });
        let own: &[Axis] = if axes.len() == 4 { &ORDER } else { &ORDER_OF_ONE };
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

/// Adds the nodes that bring an operand to `[batch, tokens, heads · channels]`, and gives the result's name.
fn lay_out(operand: &Operand, source: &Source<'_>, edits: &mut Edits, nodes: &mut Vec<Node>) -> String {
    let own: &[Axis] = if operand.axes.len() == 4 { &ORDER } else { &ORDER_OF_ONE };
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

/// For each of the axes `to`, its index among the axes `from`.
fn permutation(from: &[Axis], to: &[Axis]) -> Vec<i64> {
    to.iter().filter_map(|axis| from.iter().position(|own| own == axis)).map(|at| at as i64).collect()
}
