//! Selects the stored tensors to quantize, and their formats.

use std::collections::HashMap;

use super::WeightFormat;
use super::half_precision::BLOCK;
use crate::bundle::proto::{NodeProto, TensorProto};
use crate::rewrite::indexed_graph::{IndexedGraph, is, output, reads};
use crate::tensor::DType;

/// Smaller tensors are biases, norms and first layers, which take little space.
const FEWEST: usize = 1024;

/// The storage format of a tensor, and its dequantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorFormat {
    /// Half precision, with a `Cast` before all nodes that read it.
    Half,
    /// Half precision, with a `Cast` after each `Gather` that looks it up.
    Table,
    /// Blocks of 8 bits, with a `DequantizeLinear` before all nodes that read it.
    Int8,
    /// Columns of 8 bits, with an 8-bit product instead of each `MatMul` that multiplies by it.
    Columns,
}

/// The selected formats of a graph's large float32 tensors.
pub struct Selection {
    /// The format of each, by its name.
    pub forms: HashMap<String, TensorFormat>,
    /// The number of tensors that stay as they are because of the nodes that read them.
    pub unknown: usize,
}

impl Selection {
    /// Selects formats by the nodes that read each tensor.
    pub fn choose(source: &IndexedGraph<'_>, weights: WeightFormat) -> Self {
        let mut readers: HashMap<String, Vec<&NodeProto>> = HashMap::new();
        for node in &source.nodes {
            for name in reads(node) {
                readers.entry(name.into_owned()).or_default().push(node);
            }
        }
        let is_edge = |name: &str| source.inputs.iter().chain(&source.outputs).any(|edge| edge.name == name);
        let mut selection = Self { forms: HashMap::new(), unknown: 0 };
        for (tensor, _) in source.stored().filter(|(tensor, _)| is_large(tensor)) {
            let form = readers
                .get(&tensor.name)
                .filter(|_| !is_edge(&tensor.name))
                .and_then(|nodes| form(tensor, nodes, &readers, weights));
            match form {
                Some(form) => {
                    selection.forms.insert(tensor.name.clone(), form);
                }
                None => selection.unknown += 1,
            }
        }
        selection
    }
}

fn is_large(tensor: &TensorProto) -> bool {
    let is_single = DType::from_onnx(tensor.data_type) == DType::F32;
    is_single && tensor.dims.len() >= 2 && count(tensor).is_some_and(|count| count >= FEWEST)
}

/// Returns a tensor's number of values.
pub fn count(tensor: &TensorProto) -> Option<usize> {
    tensor.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
}

fn form(
    tensor: &TensorProto,
    nodes: &[&NodeProto],
    readers: &HashMap<String, Vec<&NodeProto>>,
    weights: WeightFormat,
) -> Option<TensorFormat> {
    let name = tensor.name.as_str();
    let at_only = |node: &NodeProto, at: usize| {
        node.input.get(at).is_some_and(|input| input == name) && node.input.iter().filter(|i| *i == name).count() == 1
    };
    if weights == WeightFormat::DynamicInt8 {
        let is_factor = |node: &&NodeProto| is(node, "MatMul") && at_only(node, 1) && output(node).is_some();
        return (tensor.dims.len() == 2 && nodes.iter().all(is_factor)).then_some(TensorFormat::Columns);
    }
    if nodes.iter().all(|node| is(node, "Gather") && at_only(node, 0) && output(node).is_some()) {
        return Some(TensorFormat::Table);
    }
    let multiplies = |node: &NodeProto, name: &str| {
        let any = |operators: &[&str]| operators.iter().any(|operator| is(node, operator));
        let at = node.input.iter().position(|input| input == name);
        (any(&["MatMul", "Gemm"]) && matches!(at, Some(0 | 1))) || (any(&["Conv", "ConvTranspose"]) && at == Some(1))
    };
    // ONNX Runtime fuses a transposition into the product after it.
    let is_turned = |node: &NodeProto| {
        let behind = output(node).and_then(|made| Some((made, readers.get(made)?)));
        is(node, "Transpose") && behind.is_some_and(|(made, nodes)| nodes.iter().all(|node| multiplies(node, made)))
    };
    if !nodes.iter().all(|node| multiplies(node, name) || is_turned(node)) {
        return None;
    }
    match weights {
        WeightFormat::Int8 if count(tensor)?.is_multiple_of(BLOCK) => Some(TensorFormat::Int8),
        _ => Some(TensorFormat::Half),
    }
}
