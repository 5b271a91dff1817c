//! Float32 arithmetic over half-precision weights.
//!
//! diffusers runs a VAE in half precision in float32 where its configuration has `force_upcast`: the weights are those of
//! half precision, and everything that is computed from them is float32. A stored tensor gets another name and a `Cast`
//! that makes the old one, so that the nodes that read it stay as they are.

use prost::Message;

use super::edits::{Declarations, Edits, int, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, is, output};
use super::numbers::{TensorValues, Values};
use crate::bundle::proto::{NodeProto, TensorProto, ValueInfoProto};
use crate::error::{Error, Result};
use crate::tensor::{DType, Field};

/// Computes in float32 what the graph computes in half precision, and returns the number of stored tensors and nodes that
/// change.
///
/// # Errors
/// [`Error::Model`] if the graph has branches, or values that cannot be read.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> Result<usize> {
    let has_branches = |node: &NodeProto| node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
    if source.nodes.iter().any(has_branches) {
        return Err(refused(source, "has branches"));
    }
    let mut sites = 0;
    let is_half_tensor = |(tensor, _): &(&TensorProto, Field)| is_half(DType::from_onnx(tensor.data_type));
    let mut stored: Vec<_> = source.stored().filter(is_half_tensor).collect();
    stored.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    for (tensor, place) in stored {
        widen_stored(source, tensor, place, edits)?;
        sites += 1;
    }
    for (at, node) in source.nodes.iter().enumerate() {
        if let Some(nodes) = widened(source, facts, node, edits)? {
            edits.replace(at, nodes);
            sites += 1;
        }
    }
    declare(source, edits);
    Ok(sites)
}

fn refused(source: &IndexedGraph<'_>, problem: &str) -> Error {
    let problem =
        format!("computes in half precision, which this VAE's configuration rules out (force_upcast), and {problem}");
    Error::model(&source.graph().path, problem, "export the VAE in float32")
}

fn is_half(dtype: DType) -> bool {
    dtype == DType::F16
}

fn cast(from: &str, to: &str) -> NodeProto {
    node("Cast", &[from], to, vec![int("to", i64::from(DType::F32.to_onnx()))])
}

/// Renames a stored tensor, and computes its old name.
fn widen_stored(source: &IndexedGraph<'_>, tensor: &TensorProto, place: Field, edits: &mut Edits) -> Result<()> {
    let values = source.bytes().get(place.body..place.end).and_then(|bytes| TensorValues::decode(bytes).ok());
    let values = values.ok_or_else(|| refused(source, &format!("tensor {} cannot be read", tensor.name)))?;
    let name = edits.name(source, "half");
    edits.follow(None, cast(&name, &tensor.name));
    edits.replace_stored(&tensor.name, TensorValues { name, ..values });
    Ok(())
}

/// Returns the replacement of a node whose result is of half precision whatever it reads.
fn widened(
    source: &IndexedGraph<'_>,
    facts: &TensorFacts,
    node: &NodeProto,
    edits: &mut Edits,
) -> Result<Option<Vec<NodeProto>>> {
    let Some(made) = output(node).filter(|name| facts.dtype(name).is_some_and(is_half)) else { return Ok(None) };
    if is(node, "Constant") || is(node, "ConstantOfShape") {
        let numbers = source.constant(made).ok_or_else(|| refused(source, "a constant of it cannot be read"))?;
        let Values::Real(values) = numbers.values else { return Ok(None) };
        let dims: Vec<usize> = numbers.dims.iter().filter_map(|&n| usize::try_from(n).ok()).collect();
        let stored = edits.floats(source, "constant", &dims, &values);
        let shape = input(node, 0).filter(|_| is(node, "ConstantOfShape"));
        let same = match shape {
            Some(shape) => self::node("Expand", &[&stored, shape], made, Vec::new()),
            None => self::node("Identity", &[&stored], made, Vec::new()),
        };
        return Ok(Some(vec![same]));
    }
    let code = i64::from(DType::F32.to_onnx());
    let mut changed = node.clone();
    let types = changed.attribute.iter_mut().filter(|a| a.name == "dtype" || (a.name == "to" && is(node, "Cast")));
    let mut is_typed = false;
    for attribute in types {
        attribute.i = code;
        is_typed = true;
    }
    Ok(is_typed.then(|| vec![changed]))
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
