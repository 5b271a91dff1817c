//! Cutting a UNet along one of its long skip connections: into the whole that hands out a tensor on the way, and the
//! shallow layers alone, which take that tensor instead of making it.
//!
//! DeepCache (Ma et al. 2023, arXiv 2312.00858) runs the shallow layers at most steps, on what the deep ones gave at an
//! earlier step. A skip connection joins two tensors along their channels: one that comes straight from the way down,
//! and one that went on through deeper layers. The last of them is branch 0, the one before it branch 1, and so on: with
//! branch n, n layers of the way down and n + 1 of the way up are left.

use std::collections::HashSet;

use super::edits::Edits;
use super::facts::Facts;
use super::pass::{Pass, is_known};
use super::source::{Source, int, is, output, reads};
use crate::bundle::GraphFile;
use crate::bundle::proto::{Dimension, Node, Shape, TensorType, Type, ValueInfo};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// One of the places at which a UNet can be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The tensor that the deep layers give to the shallow ones.
    pub tensor: String,
    /// Bytes of the weights that the shallow layers read.
    pub outer_weights: u64,
}

/// The places at which a graph can be cut, by the number of the branch; none of a graph without long skip connections.
///
/// # Errors
/// As [`rewrite`](super::rewrite).
pub fn branches(graph: &GraphFile) -> Result<Vec<Branch>> {
    if !is_known(graph) {
        return Ok(Vec::new());
    }
    let source = Source::open(graph)?;
    let facts = Facts::of(&source);
    let branch = |cut: ValueInfo| {
        let mut edits = Edits::default();
        let tensor = cut.name.clone();
        edits.feed(cut);
        let needed = edits.needed(&source);
        let read = source.stored().filter(|(tensor, _)| needed.contains(&tensor.name));
        Branch { outer_weights: read.filter_map(|(tensor, _)| facts.bytes(&tensor.name)).sum(), tensor }
    };
    Ok(cuts(&source, &facts).into_iter().map(branch).collect())
}

/// Makes the cut that a pass asks for; `axes` are lengths of axes that the file leaves free, by name.
pub fn rewrite(source: &Source<'_>, pass: Pass, axes: &[(String, usize)], edits: &mut Edits) -> Result<()> {
    let (Pass::HandOut(branch) | Pass::Shallow(branch)) = pass else { return Ok(()) };
    let mut cuts = cuts(source, &Facts::at(source, axes));
    if branch >= cuts.len() {
        return Err(none(source.graph(), branch, cuts.len()));
    }
    let cut = cuts.swap_remove(branch);
    match pass {
        Pass::Shallow(_) => edits.feed(cut),
        _ => edits.hand_out(cut),
    }
    Ok(())
}

/// What is wrong with a cut at a branch of a graph that has only so many.
pub fn none(graph: &GraphFile, branch: usize, branches: usize) -> Error {
    Error::model(
        &graph.path,
        format!("cannot be cut at branch {branch}: {branches} long skip connections were found in it"),
        "choose a smaller branch, or another model",
    )
}

/// The tensors at which a graph can be cut, the last one in the order of the nodes first, each as an input or output of
/// a graph is declared.
fn cuts(source: &Source<'_>, facts: &Facts) -> Vec<ValueInfo> {
    if !source.is_sorted {
        return Vec::new();
    }
    let mut cuts = Vec::new();
    // What went into the last tensor found: each skip connection lies on the deep side of the next.
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

/// The deep and the skipping input of a node that joins the two of a long skip connection.
fn skip_connection<'s>(source: &Source<'_>, facts: &Facts, node: &'s Node) -> Option<(&'s str, &'s str)> {
    /// From the batch, channels are the second of four axes.
    const CHANNELS: [i64; 2] = [1, -3];
    let [a, b] = node.input.as_slice() else { return None };
    let joins = is(node, "Concat") && int(node, "axis").is_some_and(|axis| CHANNELS.contains(&axis));
    let rank = [a, b].into_iter().chain(node.output.first()).find_map(|name| Some(facts.shape(name)?.len()));
    if !joins || rank != Some(4) {
        return None;
    }
    let [of_a, of_b] = [a, b].map(|name| makers(source, name));
    // The skipping one is made of nothing but what the deep one is made of, or of little more: a control network's residual
    // may be added to it. The deep one went on through layers, and both come from some.
    let weighs = |at: &usize| source.nodes.get(*at).is_some_and(is_layer);
    let (a_goes_on, b_goes_on) = (of_a.difference(&of_b).any(weighs), of_b.difference(&of_a).any(weighs));
    let (deep, skip) = match (a_goes_on, b_goes_on) {
        (true, false) => (a.as_str(), b.as_str()),
        (false, true) => (b.as_str(), a.as_str()),
        _ => return None,
    };
    // What feeds the tensor must make nothing else that is read, or it would be made twice.
    let is_alone = source.maker(deep).and_then(output).is_some();
    (is_alone && of_a.intersection(&of_b).any(weighs)).then_some((deep, skip))
}

/// Whether a node multiplies by weights or attends: one of the operators that layers are made of, in whichever domain.
fn is_layer(node: &Node) -> bool {
    ["Conv", "MatMul", "Gemm", "Attention"].iter().any(|operator| node.op_type.contains(operator))
}

/// The nodes that a tensor is made by, by their indices.
fn makers(source: &Source<'_>, name: &str) -> HashSet<usize> {
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

/// The deep tensor with its element type and its shape, of which all but the channels are the skipping one's too.
fn declared(facts: &Facts, deep: &str, skip: &str) -> Option<ValueInfo> {
    let dtype = facts.dtype(deep).or_else(|| facts.dtype(skip)).filter(|dtype| dtype.is_float())?;
    let dimension = |name: &str, axis: usize| -> Dimension {
        facts.shape(name).and_then(|shape| facts.dimension(shape.get(axis)?)).unwrap_or_default()
    };
    let dim = (0..4).map(|axis| match dimension(deep, axis) {
        unknown if unknown == Dimension::default() && axis != 1 => dimension(skip, axis),
        known => known,
    });
    Some(ValueInfo { name: deep.to_owned(), r#type: Some(tensor(dtype, Shape { dim: dim.collect() })) })
}

fn tensor(dtype: DType, shape: Shape) -> Type {
    Type { tensor_type: Some(TensorType { elem_type: dtype.to_onnx(), shape: Some(shape) }) }
}
