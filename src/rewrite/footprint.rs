//! A graph's memory use while it runs.

use std::collections::{HashMap, HashSet};

use super::convolution::Convolution;
use super::edits::Edits;
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, int, is, is_own, output, reads};
use super::length::Length;
use super::operators::FEWEST_ROWS;
use super::versions::is_known;
use super::{OperatorChoice, Pass, attention, cut, subpixel, winograd};
use crate::bundle::GraphFile;
use crate::bundle::proto::NodeProto;
use crate::error::Result;
use crate::kernels::{FilteredConvolution, PanelShape};

/// A graph's memory use while it runs, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The stored values that it reads, and values computed from them alone.
    pub weights: u64,
    /// The peak of everything else: each tensor lives from the node that computes it to the last that reads it. Tensors
    /// of unknown size are excluded.
    pub activations: u64,
    /// The same peak if each elementwise operator overwrites its input, as ONNX Runtime does where it can.
    pub in_place: u64,
    /// The number of tensors whose size is unknown without running the graph.
    pub unknown: usize,
}

/// Operators whose output is the input with another shape.
const VIEWS: [&str; 6] = ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"];

/// Elementwise operators, whose output may overwrite an input.
const BY_VALUE: [&str; 26] = [
    "Abs",
    "Add",
    "Cast",
    "Ceil",
    "Clip",
    "Cos",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "LeakyRelu",
    "Log",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Sin",
    "Softmax",
    "Sqrt",
    "Sub",
    "Tanh",
    "Where",
];

/// A product with stored weights.
struct StoredProduct {
    weights: PanelShape,
    is_linear: bool,
    /// The rows of a linear layer.
    rows: usize,
}

/// Returns the memory use of the graph rewritten with `passes` and its dynamic axes fixed at `axes`; `None` for a graph
/// whose nodes are not sorted.
///
/// # Errors
/// As [`rewrite`](super::rewrite).
pub fn footprint(graph: &GraphFile, passes: &[Pass], axes: &[(String, usize)]) -> Result<Option<Footprint>> {
    let (source, _) = super::float32::open(graph, passes)?;
    if !source.is_sorted {
        return Ok(None);
    }
    let facts = TensorFacts::infer_with_axes(&source, axes);
    let mut edits = Edits::default();
    let passes = if is_known(graph) { passes } else { &[] };
    if passes.contains(&Pass::Attention) {
        let with_masks = passes.iter().any(|pass| pass.operators().is_some());
        attention::rewrite(&source, &facts, with_masks, &mut edits);
    }
    for &pass in passes {
        cut::rewrite(&source, pass, axes, &mut edits)?;
    }
    let nodes = edits.nodes(&source);
    Ok(Some(Memory::analyze(&source, &facts, passes, &edits, &nodes).run()))
}

/// The graph's tensors, and the nodes that need them.
struct Memory<'a> {
    source: &'a IndexedGraph<'a>,
    passes: &'a [Pass],
    facts: &'a TensorFacts,
    nodes: &'a [&'a NodeProto],
    /// Tensors that are stored, or computed from stored ones alone when the graph is opened.
    constant: HashSet<&'a str>,
    /// Stored tensors that a caller may replace, so that nothing is precomputed from them.
    replaceable: HashSet<&'a str>,
    /// Tensors computed when the graph is opened.
    ahead: Vec<&'a str>,
    /// Quantized weights after dequantization, shortly before a node that reads them.
    widened: HashSet<&'a str>,
    /// Integer products before their scaling; ONNX Runtime fuses both into one operator.
    unscaled: HashSet<&'a str>,
    /// The tensor whose bytes another one shares, with another shape or scale.
    shown: HashMap<&'a str, &'a str>,
    /// The last node that reads a tensor's bytes.
    last: HashMap<&'a str, usize>,
    /// Outputs of the graph.
    given: HashSet<&'a str>,
    /// Inputs of the graph that a caller fills.
    inputs: Vec<&'a str>,
}

impl<'a> Memory<'a> {
    fn analyze(
        source: &'a IndexedGraph<'a>,
        facts: &'a TensorFacts,
        passes: &'a [Pass],
        edits: &'a Edits,
        nodes: &'a [&'a NodeProto],
    ) -> Self {
        let [added_inputs, added_outputs] = edits.added_ports();
        let mut memory = Self {
            source,
            passes,
            facts,
            nodes,
            constant: source.stored().map(|(tensor, _)| tensor.name.as_str()).collect(),
            replaceable: HashSet::new(),
            ahead: Vec::new(),
            widened: HashSet::new(),
            unscaled: HashSet::new(),
            shown: HashMap::new(),
            last: HashMap::new(),
            given: HashSet::new(),
            inputs: source.inputs.iter().map(|input| input.name.as_str()).chain(added_inputs).collect(),
        };
        for info in &source.inputs {
            if memory.constant.remove(info.name.as_str()) {
                memory.replaceable.insert(&info.name);
            }
        }
        for (at, node) in nodes.iter().enumerate() {
            memory.visit(at, node);
        }
        let outputs = source.outputs.iter().map(|output| output.name.as_str()).chain(added_outputs);
        memory.given = outputs.map(|name| memory.root(name)).collect();
        memory
    }

    /// Notes what becomes of a node's tensors; `at` is its index.
    fn visit(&mut self, at: usize, node: &'a NodeProto) {
        // The results of shape arithmetic are known, and nothing reads the tensors that they come from.
        let is_told = |name: &String| self.facts.get(name).is_some_and(|fact| fact.value.is_some());
        let read = reads(node);
        // ONNX Runtime never folds this operator.
        let is_ahead =
            node.op_type != "DequantizeLinear" && read.iter().all(|name| self.constant.contains(name.as_ref()));
        let made = node.output.iter().map(String::as_str);
        if is_ahead {
            self.ahead.extend(made.clone());
        }
        if is_ahead || node.output.iter().all(is_told) {
            self.constant.extend(made);
            return;
        }
        if read.iter().all(|name| self.is_stored(name) || self.widened.contains(name.as_ref())) {
            self.widened.extend(made);
            return;
        }
        for name in &node.input {
            let root = self.root(name);
            self.last.insert(root, at);
        }
        let ([of, ..], [shown, ..]) = (&*node.input, &*node.output) else { return };
        let scales = self.unscaled.contains(of.as_str()) && (is(node, "Cast") || is(node, "Mul"));
        if is(node, "MatMulInteger") || (scales && is(node, "Cast")) {
            self.unscaled.insert(shown);
        }
        if scales || (VIEWS.contains(&node.op_type.as_str()) && is_own(node)) {
            let root = self.root(of);
            self.shown.insert(shown, root);
        }
    }

    fn root(&self, name: &'a str) -> &'a str {
        self.shown.get(name).copied().unwrap_or(name)
    }

    fn is_stored(&self, name: &str) -> bool {
        self.constant.contains(name) || self.replaceable.contains(name)
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        self.facts.bytes(name)
    }

    fn run(&self) -> Footprint {
        let mut read: HashSet<&str> = HashSet::new();
        let mut footprint = Footprint::default();
        let inputs = self.inputs.iter().filter(|name| !self.is_stored(name));
        let mut held = inputs.filter_map(|name| self.bytes(name)).fold(0, u64::saturating_add);
        for (at, node) in self.nodes.iter().enumerate() {
            if node.output.iter().all(|name| self.constant.contains(name.as_str())) {
                continue;
            }
            let (mut done, mut widened) = (Vec::new(), 0);
            for name in node.input.iter().filter(|name| !name.is_empty()) {
                if self.is_stored(name) {
                    if read.insert(name) {
                        let bytes = self.packed_bytes(node, name).or_else(|| self.bytes(name));
                        footprint.weights = footprint.weights.saturating_add(bytes.unwrap_or(0));
                    }
                    continue;
                }
                if self.widened.contains(name.as_str()) {
                    widened = u64::saturating_add(widened, self.bytes(name).unwrap_or(0));
                    continue;
                }
                let root = self.root(name);
                if self.last.get(root) == Some(&at) && !self.given.contains(root) && !done.contains(&root) {
                    done.push(root);
                }
            }
            if node.output.iter().all(|name| self.widened.contains(name.as_str())) {
                continue;
            }
            let mut made = 0u64;
            for name in node.output.iter().filter(|name| !name.is_empty() && !self.shown.contains_key(name.as_str())) {
                footprint.unknown += usize::from(self.bytes(name).is_none());
                made = made.saturating_add(self.bytes(name).unwrap_or(0));
            }
            let freed = done.iter().filter_map(|name| self.bytes(name)).fold(0, u64::saturating_add);
            let (weights, within) = self.extra_bytes(node);
            footprint.weights = footprint.weights.saturating_add(weights);
            let now = [widened, within, made].into_iter().fold(held, u64::saturating_add);
            footprint.activations = footprint.activations.max(now);
            let is_by_value = BY_VALUE.iter().any(|operator| is(node, operator));
            let is_reused = is_by_value && done.iter().any(|name| self.bytes(name) == Some(made));
            footprint.in_place = footprint.in_place.max(if is_reused { now.saturating_sub(made) } else { now });
            held = held.saturating_add(made).saturating_sub(freed);
        }
        // Tensors that are only used while the graph is opened are freed before the first node runs.
        let gone = self.ahead.iter().filter(|name| !read.contains(*name)).filter_map(|name| self.bytes(name)).max();
        footprint.activations = footprint.activations.max(gone.unwrap_or(0));
        footprint.in_place = footprint.in_place.max(gone.unwrap_or(0));
        footprint
    }

    /// Returns the bytes of weights and of temporary values of a node once it is rewritten.
    fn extra_bytes(&self, node: &NodeProto) -> (u64, u64) {
        if let Some(choice) = self.passes.iter().find_map(|pass| pass.operators()) {
            let converted = node.input.get(1).and_then(|weights| self.product(node, weights));
            let converted = converted.filter(|product| product.is_linear);
            let converted = converted.map_or(0, |product| choice.converted_bytes(product.rows, product.weights));
            return (0, converted + self.filtered_bytes(choice, node).unwrap_or(0));
        }
        let is_cut = self.passes.contains(&Pass::Subpixel) && subpixel::is_site(self.source, self.facts, node);
        if is_cut || !self.passes.contains(&Pass::Winograd) {
            return (0, 0);
        }
        let pixels = || {
            let shape = self.facts.shape(output(node)?)?;
            let sides = Length::product([shape.first()?, shape.get(2)?, shape.get(3)?])?;
            u64::try_from(sides.number()?).ok()
        };
        match winograd::extra_bytes(self.facts, node).zip(pixels()) {
            Some(((weights, of_pixel), pixels)) => (weights, of_pixel.saturating_mul(pixels)),
            None => (0, 0),
        }
    }

    /// Returns the bytes of a node's weights in the type in which an operator of our own multiplies, before any
    /// transformation.
    fn packed_bytes(&self, node: &NodeProto, name: &str) -> Option<u64> {
        let choice = self.passes.iter().find_map(|pass| pass.operators())?;
        let product = self.product(node, name)?;
        Some(choice.packed_bytes(product.weights, product.is_linear))
    }

    /// Returns the product that an operator of our own computes with the weights `name`.
    fn product(&self, node: &NodeProto, name: &str) -> Option<StoredProduct> {
        /// More than any file of weights has: packed sizes are computed without overflow.
        const MOST: u64 = 1 << 44;
        let is_linear = is(node, "MatMul") || is(node, "Gemm");
        let is_weights = node.input.get(1).is_some_and(|weights| weights == name);
        if !is_weights || !(is_linear || is(node, "Conv")) || !self.is_stored(name) || self.bytes(name)? > MOST {
            return None;
        }
        let numbers = |name: &str| -> Option<Vec<usize>> {
            self.facts.shape(name)?.iter().map(|length| usize::try_from(length.number()?).ok()).collect()
        };
        let shape = numbers(name).filter(|shape| !shape.contains(&0))?;
        let [first, second, sides @ ..] = &shape[..] else { return None };
        let is_by_depth = is(node, "MatMul") || (is(node, "Gemm") && int(node, "transB").unwrap_or(0) == 0);
        let (&columns, &depth) = if is_by_depth { (second, first) } else { (first, second) };
        let weights = PanelShape { columns, taps: sides.iter().product(), depth };
        if !is_linear {
            return Some(StoredProduct { weights, is_linear, rows: 0 });
        }
        let made = numbers(output(node)?)?;
        let rows = made.iter().rev().skip(1).fold(1, |rows: usize, n| rows.saturating_mul(*n));
        (rows >= FEWEST_ROWS).then_some(StoredProduct { weights, is_linear, rows })
    }

    /// Returns the bytes of a convolution's weights that an operator of our own transforms before it multiplies, if it keeps
    /// them all meanwhile.
    fn filtered_bytes(&self, choice: OperatorChoice, node: &NodeProto) -> Option<u64> {
        let convolution = Convolution::from_node(self.facts, node)?;
        let number = |length: i64| usize::try_from(length).ok();
        let (columns, depth) = (number(convolution.channels_out)?, number(convolution.channels_in)?);
        let shape = self.facts.shape(output(node)?)?;
        let pixels = number(Length::product([shape.first()?, shape.get(2)?, shape.get(3)?])?.number()?)?;
        let upsamples = subpixel::is_site(self.source, self.facts, node);
        self.packed_bytes(node, node.input.get(1)?)?;
        let taps = choice.filtering_of(columns, depth, pixels, upsamples)?.products();
        let bytes = choice.packed_bytes(PanelShape { columns, taps, depth }, false);
        (bytes <= FilteredConvolution::<f32>::KEPT_WEIGHTS_BYTES as u64).then_some(bytes)
    }
}
