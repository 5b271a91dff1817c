//! Divisions by sums that a constant keeps from being zero, as in Sana's linear attention.

use super::reason;
use super::selection::{Float32Selection, GraphView};
use crate::bundle::proto::NodeProto;
use crate::quantize::half_graph::operators::MOVES;
use crate::quantize::half_precision::HalfFit;
use crate::rewrite::indexed_graph::{input, is};

/// Adds divisions by a sum with a constant that is too small for half precision, and the sums of products that are divided:
/// diffusers computes linear attention in float32, since these grow with the number of tokens.
pub fn mark(view: &GraphView<'_>, selection: &mut Float32Selection) {
    let small = view.stored.iter().filter(|(_, f)| f.len() == 1 && matches!(f.fit, HalfFit::TooSmall(_)));
    let sums = small.flat_map(|(name, _)| view.readers(name)).filter(|(_, node)| is(node, "Add") || is(node, "Max"));
    for (_, sum) in sums {
        for (at, division) in view.following(sum).filter(|(_, node)| is(node, "Div")) {
            if input(division, 1).is_some_and(|name| sum.output.iter().any(|own| own == name)) {
                mark_origins(view, at, selection);
            }
        }
    }
}

/// Adds a node and the products that it is computed from.
fn mark_origins(view: &GraphView<'_>, from: usize, selection: &mut Float32Selection) {
    let is_sum = |node: &NodeProto| ["MatMul", "Add", "Max", "Relu"].iter().any(|name| is(node, name));
    let goes_on = |node: &NodeProto| (is_sum(node) || MOVES.contains(&node.op_type.as_str())) && !view.is_layer(node);
    view.with_origins(from, goes_on).into_iter().for_each(|at| selection.add(at, reason::DIVISIONS));
}
