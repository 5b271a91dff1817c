//! Weights and constants that half precision cannot hold.

use std::collections::HashSet;

use super::reason;
use super::selection::{Float32Selection, GraphView};
use crate::quantize::half_graph::operators::MOVES;

/// Adds the nodes that compute with weights that leave half precision's range.
pub fn mark(view: &GraphView<'_>, selection: &mut Float32Selection) {
    let mut open: Vec<&str> =
        view.stored.iter().filter(|(_, floats)| floats.refusal().is_some()).map(|(name, _)| name.as_str()).collect();
    let mut seen = HashSet::new();
    while let Some(name) = open.pop() {
        for (at, node) in view.readers(name) {
            if !seen.insert(at) {
                continue;
            }
            selection.add(at, reason::WEIGHTS);
            if MOVES.contains(&node.op_type.as_str()) {
                open.extend(node.output.iter().map(String::as_str));
            }
        }
    }
}

/// Limits the results of nodes that read a number beyond half precision's range, and of nodes of `whole` numbers after
/// them: such a number hides what it is added to, and infinity would make a row that is hidden as a whole NaN.
pub fn limit(view: &GraphView<'_>, whole: &HashSet<String>, selection: &mut Float32Selection) {
    for (at, node) in view.source.nodes.iter().enumerate() {
        let is_huge = |name: &String| view.stored.get(name).is_some_and(|f| f.len() == 1 && f.is_beyond());
        let is_whole = node.output.iter().all(|name| whole.contains(name));
        let goes_on = |name: &String| is_whole && selection.is_limited(name);
        if node.input.iter().any(|name| is_huge(name) || goes_on(name)) && selection.contains(at) {
            node.output.iter().for_each(|name| selection.limit(name));
        }
    }
}
