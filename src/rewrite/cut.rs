//! Cuts a UNet along one of its long skip connections: into the whole graph with an inner tensor as an extra output,
//! and the shallow layers alone, with that tensor as an input.
//!
//! DeepCache (Ma et al. 2023, arXiv 2312.00858) runs only the shallow layers at most steps, with the output of the deep
//! layers from an earlier step. A skip connection concatenates two tensors along their channels: one directly from the
//! down path, and one that passed through deeper layers. The last of them is branch 0, the one before it branch 1, and
//! so on: branch n keeps n layers of the down path and n + 1 of the up path.

use std::collections::HashSet;

use super::edits::Edits;
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, int, is, output, reads};
use super::pass::Pass;
use super::versions::is_known;
use crate::bundle::GraphFile;
use crate::bundle::proto::{Dimension, NodeProto, ShapeProto, TensorType, TypeProto, ValueInfoProto};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// A place where a UNet can be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipBranch {
    /// The tensor that the deep layers pass to the shallow ones.
    pub tensor: String,
    /// The size in bytes of the weights that the shallow layers read.
    pub shallow_weights: u64,
}

/// Returns the places where a graph can be cut, by branch number; empty for a graph without long skip connections.
///
/// # Errors
/// As [`rewrite`](super::rewrite).
pub fn branches(graph: &GraphFile) -> Result<Vec<SkipBranch>> {
    if !is_known(graph) {
        return Ok(Vec::new());
    }
    let source = IndexedGraph::open(graph)?;
    let facts = TensorFacts::infer(&source);
    let branch = |cut: ValueInfoProto| {
        let mut edits = Edits::default();
        let tensor = cut.name.clone();
        edits.add_input(cut);
        let needed = edits.needed(&source);
        let read = source.stored().filter(|(tensor, _)| needed.contains(&tensor.name));
        SkipBranch { shallow_weights: read.filter_map(|(tensor, _)| facts.bytes(&tensor.name)).sum(), tensor }
    };
    Ok(cuts(&source, &facts).into_iter().map(branch).collect())
}

/// Makes the cut of a pass; `axes` are lengths of the file's dynamic axes, by name.
pub fn rewrite(source: &IndexedGraph<'_>, pass: Pass, axes: &[(String, usize)], edits: &mut Edits) -> Result<()> {
    let (Pass::DeepOutput(branch) | Pass::Shallow(branch)) = pass else { return Ok(()) };
    let mut cuts = cuts(source, &TensorFacts::infer_with_axes(source, axes));
    if branch >= cuts.len() {
        return Err(no_such_branch(source.graph(), branch, cuts.len()));
    }
    let cut = cuts.swap_remove(branch);
    match pass {
        Pass::Shallow(_) => edits.add_input(cut),
        _ => edits.add_output(cut),
    }
    Ok(())
}

/// Returns the error for a branch number that a graph does not have.
pub fn no_such_branch(graph: &GraphFile, branch: usize, branches: usize) -> Error {
    Error::model(
        &graph.path,
        format!("cannot be cut at branch {branch}: {branches} long skip connections were found in it"),
        "choose a smaller branch, or another model",
    )
}

/// Returns the tensors at which a graph can be cut, the last one in node order first, each with its declaration as an
/// input or output.
fn cuts(source: &IndexedGraph<'_>, facts: &TensorFacts) -> Vec<ValueInfoProto> {
    if !source.is_sorted {
        return Vec::new();
    }
    let mut cuts = Vec::new();
    // The nodes upstream of the last tensor found: each skip connection is on the deep side of the next.
    let mut within: Option<HashSet<usize>> = None;
    for (at, node) in source.nodes.iter().enumerate().rev() {
        if within.as_ref().is_some_and(|within| !within.contains(&at)) {
            continue;
        }
        let Some((deep, skip)) = skip_connection(source, facts, node) else { continue };
        let Some(info) = declared(facts, deep, skip) else { continue };
        cuts.push(info);
        within = Some(makers(source, deep));
    }
    cuts
}

/// Returns the deep and the skipped input of a node that concatenates a long skip connection.
fn skip_connection<'s>(
    source: &IndexedGraph<'_>,
    facts: &TensorFacts,
    node: &'s NodeProto,
) -> Option<(&'s str, &'s str)> {
    /// Channels are the second of four axes.
    const CHANNELS: [i64; 2] = [1, -3];
    let [a, b] = node.input.as_slice() else { return None };
    let joins = is(node, "Concat") && int(node, "axis").is_some_and(|axis| CHANNELS.contains(&axis));
    let rank = [a, b].into_iter().chain(node.output.first()).find_map(|name| Some(facts.shape(name)?.len()));
    if !joins || rank != Some(4) {
        return None;
    }
    let [of_a, of_b] = [a, b].map(|name| makers(source, name));
    // The skipped one comes from the same nodes as the deep one, or from few more: a ControlNet residual may be added
    // to it. The deep one passed through more layers, and both come from some.
    let weighs = |at: &usize| source.nodes.get(*at).is_some_and(is_layer);
    let (a_goes_on, b_goes_on) = (of_a.difference(&of_b).any(weighs), of_b.difference(&of_a).any(weighs));
    let (deep, skip) = match (a_goes_on, b_goes_on) {
        (true, false) => (a.as_str(), b.as_str()),
        (false, true) => (b.as_str(), a.as_str()),
        _ => return None,
    };
    // The nodes upstream of the tensor must compute nothing else that is read, or it would be computed twice.
    let is_alone = source.maker(deep).and_then(output).is_some();
    (is_alone && of_a.intersection(&of_b).any(weighs)).then_some((deep, skip))
}

/// Returns true for a node that multiplies by weights or attends: the operators of layers, in any domain.
fn is_layer(node: &NodeProto) -> bool {
    ["Conv", "MatMul", "Gemm", "Attention"].iter().any(|operator| node.op_type.contains(operator))
}

/// Returns the indices of the nodes upstream of a tensor.
fn makers(source: &IndexedGraph<'_>, name: &str) -> HashSet<usize> {
    let mut found = HashSet::new();
    let mut open: Vec<usize> = source.maker_index(name).into_iter().collect();
    while let Some(at) = open.pop() {
        if found.insert(at) {
            let read = source.nodes.get(at).map(reads).unwrap_or_default();
            open.extend(read.iter().filter_map(|name| source.maker_index(name)));
        }
    }
    found
}

/// Returns the deep tensor with its element type and its shape, which apart from the channels is also the skipped
/// one's.
fn declared(facts: &TensorFacts, deep: &str, skip: &str) -> Option<ValueInfoProto> {
    let dtype = facts.dtype(deep).or_else(|| facts.dtype(skip)).filter(|dtype| dtype.is_float())?;
    let dimension = |name: &str, axis: usize| -> Dimension {
        facts.shape(name).and_then(|shape| facts.dimension(shape.get(axis)?)).unwrap_or_default()
    };
    let dim = (0..4).map(|axis| match dimension(deep, axis) {
        unknown if unknown == Dimension::default() && axis != 1 => dimension(skip, axis),
        known => known,
    });
    Some(ValueInfoProto { name: deep.to_owned(), r#type: Some(tensor(dtype, ShapeProto { dim: dim.collect() })) })
}

fn tensor(dtype: DType, shape: ShapeProto) -> TypeProto {
    TypeProto { tensor_type: Some(TensorType { elem_type: dtype.to_onnx(), shape: Some(shape) }) }
}
