//! Floating-point numbers computed from whole numbers and constants alone: lengths, timesteps, distances, masks.

use std::collections::HashSet;

use super::reason;
use super::selection::{Float32Selection, GraphView};
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::is_own;
use crate::tensor::DType;

/// Operators that are no arithmetic with whole numbers: they look up, multiply by or draw floating-point ones.
const OTHERS: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gemm",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
];

/// Adds these nodes, and returns the names of what they compute.
pub fn mark(view: &GraphView<'_>, selection: &mut Float32Selection) -> HashSet<String> {
    let mut whole = HashSet::new();
    for (at, node) in view.source.nodes.iter().enumerate() {
        let computes = node.output.iter().any(|name| view.types.get(name).is_some_and(DType::is_float));
        if computes && is_whole(view, node, &whole) {
            whole.extend(node.output.iter().cloned());
            selection.add(at, reason::WHOLE_NUMBERS);
        }
    }
    whole
}

/// Returns true if a node reads whole numbers, or what was computed from them, and else only small constants.
fn is_whole(view: &GraphView<'_>, node: &NodeProto, whole: &HashSet<String>) -> bool {
    if !is_own(node) || OTHERS.contains(&node.op_type.as_str()) {
        return false;
    }
    let mut reads_whole = false;
    for name in node.input.iter().filter(|name| !name.is_empty()) {
        let is_float = view.types.get(name).is_some_and(DType::is_float);
        if whole.contains(name) {
            reads_whole = true;
        } else if !is_float {
            reads_whole |= !view.is_constant(name);
        } else if !view.is_constant(name) || view.stored.get(name).is_none_or(|floats| floats.is_large()) {
            return false;
        }
    }
    reads_whole
}
