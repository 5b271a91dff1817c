//! Moves the dequantization of stored weights.
//!
//! ONNX Runtime derives its own execution order: from the outputs back, and of a node's inputs, those computed later in
//! the file first. A node that reads only stored tensors, such as one that dequantizes weights, therefore runs long
//! before it is needed if it comes late in the file, and its output is held until then. If it precedes all other nodes,
//! it runs right before the node that reads it.

use std::collections::HashSet;

use super::indexed_graph::{is, places};
use crate::bundle::proto::{ModelProto, NodeProto};
use crate::tensor::Field;

/// Returns a graph's file with the nodes that read only stored tensors first; `None` if there are none, or if the file
/// is not a whole graph.
pub fn hoist_dequantization(file: &[u8]) -> Option<Vec<u8>> {
    let graph = ModelProto::read(file).ok()?.graph?;
    let nodes = places(file)?.nodes;
    if nodes.len() != graph.node.len() {
        return None;
    }
    let mut stored: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let (mut first, mut others): (Vec<Field>, Vec<Field>) = (Vec::new(), Vec::new());
    for (node, place) in graph.node.iter().zip(nodes) {
        if widens(node, &stored) {
            stored.extend(node.output.iter().map(String::as_str));
            first.push(place);
        } else {
            others.push(place);
        }
    }
    if first.is_empty() {
        return None;
    }
    // The size does not change: only the nodes change places, among the places of nodes.
    let mut ordered = Vec::with_capacity(file.len());
    let mut left: Vec<Field> = first.iter().chain(&others).copied().collect();
    left.sort_by_key(|place| place.start);
    let mut at = 0;
    for (hole, node) in left.into_iter().zip(first.into_iter().chain(others)) {
        ordered.extend_from_slice(file.get(at..hole.start)?);
        ordered.extend_from_slice(file.get(node.start..node.end)?);
        at = hole.end;
    }
    ordered.extend_from_slice(file.get(at..)?);
    (ordered.len() == file.len()).then_some(ordered)
}

/// Returns true if a node dequantizes stored tensors.
fn widens(node: &NodeProto, stored: &HashSet<&str>) -> bool {
    let known = ["Cast", "DequantizeLinear", "Reshape"].iter().any(|operator| is(node, operator));
    known && node.input.iter().all(|name| name.is_empty() || stored.contains(name.as_str()))
}
