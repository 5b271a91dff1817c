//! Which stored tensors are written in fewer bits, and in which form.

use std::collections::HashMap;

use super::half_precision::BLOCK;
use super::outcome::Weights;
use crate::bundle::proto::{Node, Tensor};
use crate::rewrite::source::{Source, is, output, reads};
use crate::tensor::DType;

/// Tensors of fewer numbers are biases, norms and first layers, which take no room to speak of.
const FEWEST: usize = 1024;

/// How a tensor is stored and widened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Half precision, and a `Cast` in front of all that reads it.
    Half,
    /// Half precision, and a `Cast` behind each `Gather` that looks it up.
    Table,
    /// Blocks of 8 bits, and a `DequantizeLinear` in front of all that reads it.
    Int8,
    /// Columns of 8 bits, and a product of 8 bits in the place of each `MatMul` that multiplies by it.
    Columns,
}

/// What is to become of a graph's large float32 tensors.
pub struct Selection {
    /// The form of each, by its name.
    pub forms: HashMap<String, Form>,
    /// How many stay as they are because of what reads them.
    pub unknown: usize,
}

impl Selection {
    /// Looks at what reads each tensor.
    pub fn of(source: &Source<'_>, weights: Weights) -> Self {
        let mut readers: HashMap<String, Vec<&Node>> = HashMap::new();
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

fn is_large(tensor: &Tensor) -> bool {
    let is_single = DType::from_onnx(tensor.data_type) == DType::F32;
    is_single && tensor.dims.len() >= 2 && count(tensor).is_some_and(|count| count >= FEWEST)
}

/// How many numbers a tensor has.
pub fn count(tensor: &Tensor) -> Option<usize> {
    tensor.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
}

fn form(tensor: &Tensor, nodes: &[&Node], readers: &HashMap<String, Vec<&Node>>, weights: Weights) -> Option<Form> {
    let name = tensor.name.as_str();
    let at_only = |node: &Node, at: usize| {
        node.input.get(at).is_some_and(|input| input == name) && node.input.iter().filter(|i| *i == name).count() == 1
    };
    if weights == Weights::DynamicInt8 {
        let is_factor = |node: &&Node| is(node, "MatMul") && at_only(node, 1) && output(node).is_some();
        return (tensor.dims.len() == 2 && nodes.iter().all(is_factor)).then_some(Form::Columns);
    }
    if nodes.iter().all(|node| is(node, "Gather") && at_only(node, 0) && output(node).is_some()) {
        return Some(Form::Table);
    }
    let multiplies = |node: &Node, name: &str| {
        let any = |operators: &[&str]| operators.iter().any(|operator| is(node, operator));
        let at = node.input.iter().position(|input| input == name);
        (any(&["MatMul", "Gemm"]) && matches!(at, Some(0 | 1))) || (any(&["Conv", "ConvTranspose"]) && at == Some(1))
    };
    // ONNX Runtime takes a transposition into the product behind it.
    let is_turned = |node: &Node| {
        let behind = output(node).and_then(|made| Some((made, readers.get(made)?)));
        is(node, "Transpose") && behind.is_some_and(|(made, nodes)| nodes.iter().all(|node| multiplies(node, made)))
    };
    if !nodes.iter().all(|node| multiplies(node, name) || is_turned(node)) {
        return None;
    }
    match weights {
        Weights::Int8 if count(tensor)?.is_multiple_of(BLOCK) => Some(Form::Int8),
        _ => Some(Form::Half),
    }
}
