//! Float32 arithmetic over weights of half precision or bfloat16.
//!
//! diffusers runs a VAE in half precision in float32 where its configuration has `force_upcast`, and most providers have no
//! operators for bfloat16: the weights are those that are stored, and everything that is computed from them is float32. A
//! stored tensor keeps its name and type, so that LoRAs find it, and the nodes that read it read its `Cast`.

use std::collections::HashMap;

use super::edits::{Declarations, Edits, int, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, is, output};
use super::numbers::Values;
use super::pass::Pass;
use super::versions::is_known;
use crate::bundle::GraphFile;
use crate::bundle::proto::{NodeProto, TensorProto, ValueInfoProto};
use crate::error::{Error, Result};
use crate::tensor::{DType, Field};

/// Opens a graph as the other passes see it: with [`Pass::Float32`] among the `passes`, as it computes then.
///
/// # Errors
/// As [`IndexedGraph::open`]; [`Error::Model`] if a graph that is to be widened has branches or functions, is of a version
/// that is not known, or has values that cannot be read.
pub fn open<'g>(graph: &'g GraphFile, passes: &[Pass]) -> Result<(IndexedGraph<'g>, usize)> {
    let source = IndexedGraph::open(graph)?;
    if !passes.contains(&Pass::Float32) {
        return Ok((source, 0));
    }
    let mut edits = Edits::default();
    let sites = rewrite(&source, &TensorFacts::infer(&source), &mut edits)?;
    let bytes = edits.write(&source)?;
    Ok((IndexedGraph::of_rewritten(graph, bytes)?, sites))
}

/// True for a graph that [`open`] widens, but for what only reading its nodes shows.
pub fn can_widen(graph: &GraphFile) -> bool {
    let has_branches = graph.operators.keys().any(|operator| ["If", "Loop", "Scan"].contains(&operator.name.as_str()));
    is_known(graph) && !graph.has_functions && !has_branches
}

/// Computes in float32 what the graph computes in half precision or bfloat16, and returns the number of stored tensors and
/// nodes that change.
fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> Result<usize> {
    let has_branches = |node: &NodeProto| node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
    for (is_so, problem) in [
        (source.nodes.iter().any(has_branches), "has branches"),
        (source.graph().has_functions, "has functions of its own"),
        (!source.is_sorted, "has nodes in the wrong order"),
        (!is_known(source.graph()), "is of an older version: operator set 11 is the first one that is known"),
    ] {
        if is_so {
            return Err(refused(source, problem));
        }
    }
    let mut sites = 0;
    let is_half_tensor = |(tensor, _): &(&TensorProto, Field)| is_half(DType::from_onnx(tensor.data_type));
    let mut stored: Vec<_> = source.stored().filter(is_half_tensor).collect();
    stored.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let mut wide = HashMap::new();
    for (tensor, _) in stored {
        let name = edits.name(source, "float32");
        edits.follow(None, cast(&tensor.name, &name));
        wide.insert(tensor.name.as_str(), name);
        sites += 1;
    }
    for (at, node) in source.nodes.iter().enumerate() {
        if let Some(nodes) = widened(source, facts, (node, &wide), edits)? {
            edits.replace(at, nodes);
            sites += 1;
        }
    }
    declare(source, edits);
    Ok(sites)
}

fn refused(source: &IndexedGraph<'_>, problem: &str) -> Error {
    let problem = format!("is to compute in float32, not in the type of its weights, and {problem}");
    Error::model(&source.graph().path, problem, "export it in float32")
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}

fn cast(from: &str, to: &str) -> NodeProto {
    node("Cast", &[from], to, vec![int("to", i64::from(DType::F32.to_onnx()))])
}

/// Returns the replacement of a node that reads a stored tensor, or whose result is of one of these types whatever it reads.
fn widened(
    source: &IndexedGraph<'_>,
    facts: &TensorFacts,
    (node, wide): (&NodeProto, &HashMap<&str, String>),
    edits: &mut Edits,
) -> Result<Option<Vec<NodeProto>>> {
    let mut changed = node.clone();
    let mut is_changed = false;
    for input in &mut changed.input {
        if let Some(name) = wide.get(input.as_str()) {
            input.clone_from(name);
            is_changed = true;
        }
    }
    let Some(made) = output(node).filter(|name| facts.dtype(name).is_some_and(is_half)) else {
        return Ok(is_changed.then(|| vec![changed]));
    };
    if is(node, "Constant") || is(node, "ConstantOfShape") {
        let numbers = source.constant(made).ok_or_else(|| refused(source, "a constant of it cannot be read"))?;
        let Values::Real(values) = numbers.values else { return Ok(None) };
        let shape = input(node, 0).filter(|_| is(node, "ConstantOfShape"));
        let dims: Vec<usize> = numbers.dims.iter().filter_map(|&n| usize::try_from(n).ok()).collect();
        let stored = match (shape, values.first()) {
            (Some(_), Some(&value)) => edits.floats(source, "constant", &[], &[value]),
            _ => edits.floats(source, "constant", &dims, &values),
        };
        let same = match shape {
            Some(shape) => self::node("Expand", &[&stored, shape], made, Vec::new()),
            None => self::node("Identity", &[&stored], made, Vec::new()),
        };
        return Ok(Some(vec![same]));
    }
    let code = i64::from(DType::F32.to_onnx());
    let types = changed.attribute.iter_mut().filter(|a| a.name == "dtype" || (a.name == "to" && is(node, "Cast")));
    for attribute in types {
        attribute.i = code;
        is_changed = true;
    }
    Ok(is_changed.then(|| vec![changed]))
}

/// Declares inputs and outputs in float32.
fn declare(source: &IndexedGraph<'_>, edits: &mut Edits) {
    let single = |info: &ValueInfoProto| {
        let mut info = info.clone();
        if let Some(tensor) = info.r#type.as_mut().and_then(|t| t.tensor_type.as_mut())
            && is_half(DType::from_onnx(tensor.elem_type))
        {
            tensor.elem_type = DType::F32.to_onnx();
        }
        info
    };
    // Stored tensors are declared as inputs by older exports, and so that they are widened at every run.
    let is_stored = |info: &&ValueInfoProto| source.stored().any(|(tensor, _)| tensor.name == info.name);
    let Declarations { inputs, outputs } = edits.declarations(source);
    edits.declare(Declarations {
        inputs: inputs.iter().filter(|info| !is_stored(info)).map(single).collect(),
        outputs: outputs.iter().map(single).collect(),
    });
}
