//! The nodes of a half-precision graph that compute in float32, and the graph that they are chosen from.

use std::collections::{BTreeMap, HashSet};

use crate::bundle::proto::NodeProto;
use crate::quantize::half_graph::operators::{MOVES, float32_reason};
use crate::quantize::half_graph::stored::StoredFloats;
use crate::quantize::half_graph::types::TensorTypes;
use crate::rewrite::indexed_graph::{IndexedGraph, input, is, output};

/// A graph, and what is known about it.
pub struct GraphView<'v> {
    /// The graph.
    pub source: &'v IndexedGraph<'v>,
    /// The types of its tensors.
    pub types: &'v TensorTypes,
    /// Its stored float32 values.
    pub stored: &'v BTreeMap<String, StoredFloats<'v>>,
}

/// The nodes that compute in float32.
pub struct Float32Selection {
    /// The reason of each node, in the graph's order; `None` for those that compute in half precision.
    reasons: Vec<Option<&'static str>>,
    /// Tensors of float32 nodes whose values beyond half precision's range stand for "as much as possible": they are
    /// limited before they are converted.
    limited: HashSet<String>,
}

impl Float32Selection {
    /// Chooses the nodes whose operators compute in float32.
    pub fn of_operators(nodes: &[NodeProto]) -> Self {
        Self { reasons: nodes.iter().map(float32_reason).collect(), limited: HashSet::new() }
    }

    /// Returns true if a node computes in float32.
    pub fn contains(&self, at: usize) -> bool {
        self.reasons.get(at).copied().flatten().is_some()
    }

    /// Returns true if a tensor is limited to half precision's range before it is converted.
    pub fn is_limited(&self, name: &str) -> bool {
        self.limited.contains(name)
    }

    /// Returns the reasons, one for each node that computes in float32.
    pub fn reasons(&self) -> impl Iterator<Item = &'static str> {
        self.reasons.iter().copied().flatten()
    }

    /// Adds a node. The first reason stays.
    pub fn add(&mut self, at: usize, reason: &'static str) {
        if let Some(own) = self.reasons.get_mut(at) {
            own.get_or_insert(reason);
        }
    }

    /// Limits a tensor to half precision's range before it is converted.
    pub fn limit(&mut self, name: &str) {
        self.limited.insert(name.to_owned());
    }
}

impl<'v> GraphView<'v> {
    /// Returns the nodes that read a tensor.
    pub fn readers(&self, name: &str) -> impl Iterator<Item = (usize, &'v NodeProto)> + use<'v> {
        let (source, mut readers) = (self.source, self.source.readers(name).to_vec());
        readers.dedup();
        readers.into_iter().filter_map(move |at| Some((at, source.nodes.get(at)?)))
    }

    /// Returns the node that computes a tensor, with its index.
    pub fn maker(&self, name: &str) -> Option<(usize, &'v NodeProto)> {
        let at = self.source.maker_index(name)?;
        Some((at, self.source.nodes.get(at)?))
    }

    /// Returns true for stored values, and for what is computed from them alone.
    pub fn is_constant(&self, name: &str) -> bool {
        self.stored.contains_key(name) || self.source.is_constant(name)
    }

    /// Returns true for the weights of a layer, as stored or after nodes that move or widen them.
    pub fn is_weight(&self, name: &str) -> bool {
        if self.stored.contains_key(name) || self.source.stored_tensor(name).is_some() {
            return true;
        }
        let Some((_, node)) = self.maker(name) else { return false };
        let moves = MOVES.contains(&node.op_type.as_str()) || is(node, "DequantizeLinear");
        moves && !is(node, "Gather") && input(node, 0).is_some_and(|name| self.is_weight(name))
    }

    /// Returns true for a product with a layer's weights.
    pub fn is_layer(&self, node: &NodeProto) -> bool {
        is(node, "MatMul") && (0..2).any(|at| input(node, at).is_some_and(|name| self.is_weight(name)))
    }

    /// Returns the inputs of a node that are not constant.
    pub fn variable_inputs<'n>(&self, node: &'n NodeProto) -> impl Iterator<Item = &'n str> {
        node.input.iter().map(String::as_str).filter(|name| !name.is_empty() && !self.is_constant(name))
    }

    /// Returns the node that computes a tensor, with its index, before the casts and identities that it goes through.
    pub fn origin(&self, name: &str) -> Option<(usize, &'v NodeProto)> {
        let (at, node) = self.maker(name)?;
        match is(node, "Cast") || is(node, "Identity") {
            true => self.origin(input(node, 0)?),
            false => Some((at, node)),
        }
    }

    /// Returns a node and those that it is computed from, as far as `goes_on` holds for them.
    pub fn with_origins(&self, from: usize, goes_on: impl Fn(&NodeProto) -> bool) -> HashSet<usize> {
        let mut open = vec![from];
        let mut seen = HashSet::from([from]);
        while let Some(at) = open.pop() {
            let inputs = self.source.nodes.get(at).into_iter().flat_map(|node| &node.input);
            for (at, node) in inputs.filter_map(|name| self.maker(name)) {
                if goes_on(node) && seen.insert(at) {
                    open.push(at);
                }
            }
        }
        seen
    }

    /// Returns the nodes that read a node's only output.
    pub fn following(&self, node: &NodeProto) -> impl Iterator<Item = (usize, &'v NodeProto)> + use<'v> {
        output(node).map(|name| self.readers(name)).into_iter().flatten()
    }
}
