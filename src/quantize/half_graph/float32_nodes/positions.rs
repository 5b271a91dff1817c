//! Sinusoidal embeddings of timesteps and positions, and rotary embeddings.

use std::collections::HashSet;

use super::reason;
use super::selection::{Float32Selection, GraphView};
use crate::bundle::proto::NodeProto;
use crate::quantize::half_graph::operators::MOVES;
use crate::rewrite::indexed_graph::{is, is_own};
use crate::tensor::DType;

/// Operators that end the way back from a sine to a timestep: they compute activations.
const ACTIVATIONS: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "Softmax",
];

/// Adds the nodes that sines and cosines are computed from, and the rotations by them.
///
/// A timestep of 999 has no place for a fraction in half precision, and at position 1000 an angle is off by half a
/// radian. diffusers computes both in float32, and multiplies queries and keys by the tables in float32.
pub fn mark(view: &GraphView<'_>, selection: &mut Float32Selection) {
    let mut tables = HashSet::new();
    for (at, node) in view.source.nodes.iter().enumerate().filter(|(_, node)| is_wave(node)) {
        mark_origins(view, at, selection);
        tables.extend(node.output.iter().map(String::as_str));
    }
    let is_float = |name: &str| view.types.get(name).is_some_and(DType::is_float);
    let mut rotated = HashSet::new();
    for (at, node) in view.source.nodes.iter().enumerate().filter(|(_, node)| is_own(node)) {
        let count = |names: &HashSet<&str>| node.input.iter().filter(|name| names.contains(name.as_str())).count();
        let floats = node.input.iter().filter(|name| is_float(name) && !view.is_constant(name)).count();
        let moves = MOVES.contains(&node.op_type.as_str()) || is(node, "Mul");
        if count(&tables) > 0 && count(&tables) == floats && moves {
            tables.extend(node.output.iter().map(String::as_str));
            selection.add(at, reason::POSITIONS);
        } else if is(node, "Mul") && count(&tables) == 1 {
            rotated.extend(node.output.iter().map(String::as_str));
            selection.add(at, reason::POSITIONS);
        } else if (is(node, "Add") || is(node, "Sub")) && count(&rotated) == 2 {
            selection.add(at, reason::POSITIONS);
        }
    }
}

fn is_wave(node: &NodeProto) -> bool {
    is(node, "Sin") || is(node, "Cos")
}

/// Adds a node and all that it is computed from, up to activations.
fn mark_origins(view: &GraphView<'_>, from: usize, selection: &mut Float32Selection) {
    let goes_on = |node: &NodeProto| !ACTIVATIONS.contains(&node.op_type.as_str()) && !view.is_layer(node);
    view.with_origins(from, goes_on).into_iter().for_each(|at| selection.add(at, reason::POSITIONS));
}
