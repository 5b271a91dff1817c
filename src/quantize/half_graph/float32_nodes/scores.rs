//! Scores of attention, in models that ask for more than half precision there.

use super::reason;
use super::selection::{Float32Selection, GraphView};
use crate::bundle::proto::NodeProto;
use crate::quantize::half_graph::operators::MOVES;
use crate::rewrite::indexed_graph::is;

/// Adds the softmax of each attention and the products of queries and keys before it. Those of Stable Diffusion 2, whose UNet
/// has `upcast_attention`, leave the range of half precision; torch's fused attention keeps them in float32 by itself.
pub fn mark(view: &GraphView<'_>, selection: &mut Float32Selection) {
    let is_score = |node: &NodeProto| {
        let computes = ["MatMul", "Mul", "Div", "Add"].iter().any(|name| is(node, name));
        (computes || MOVES.contains(&node.op_type.as_str())) && !view.is_layer(node)
    };
    for (at, _) in view.source.nodes.iter().enumerate().filter(|(_, node)| is(node, "Softmax")) {
        view.with_origins(at, is_score).into_iter().for_each(|at| selection.add(at, reason::SCORES));
    }
}
