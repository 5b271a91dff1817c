//! The float32 and the half-precision form of each tensor, and their names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::float32_nodes::Float32Selection;
use super::operators::is_float32_input;
use super::stored::StoredFloats;
use super::types::TensorTypes;
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{IndexedGraph, input, is, output, reads};
use crate::tensor::DType;

/// A form of a float32 tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorPrecision {
    /// As in the float32 graph.
    Single,
    /// In half precision.
    Half,
}

/// The origin of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// An input of the graph, or the result of a node that computes in float32.
    Single,
    /// The result of a node that computes in half precision.
    Half,
    /// A stored tensor.
    Stored,
}

/// The forms in which the tensors of a graph are needed.
pub struct PrecisionForms<'f> {
    source: &'f IndexedGraph<'f>,
    types: &'f TensorTypes,
    origins: HashMap<&'f str, Origin>,
    /// The graph's outputs, and what branches read: these names stay those of the float32 form.
    fixed_names: HashSet<String>,
    needed: HashSet<(String, TensorPrecision)>,
    /// The half-precision tensors that the float32 graph widens, by the results.
    widened: HashMap<&'f str, &'f str>,
}

impl<'f> PrecisionForms<'f> {
    /// Finds the forms that the nodes read.
    pub fn new(
        source: &'f IndexedGraph<'f>,
        types: &'f TensorTypes,
        stored: &'f BTreeMap<String, StoredFloats<'f>>,
        selection: &Float32Selection,
    ) -> Self {
        let mut origins: HashMap<&str, Origin> = HashMap::new();
        origins.extend(source.inputs.iter().map(|input| (input.name.as_str(), Origin::Single)));
        for (at, node) in source.nodes.iter().enumerate() {
            let origin = if selection.contains(at) { Origin::Single } else { Origin::Half };
            origins.extend(node.output.iter().map(|name| (name.as_str(), origin)));
        }
        // After the others: older exports declare stored tensors as inputs.
        origins.extend(stored.keys().map(|name| (name.as_str(), Origin::Stored)));
        let widens = |(at, node): &(usize, &'f NodeProto)| {
            let is_half = input(node, 0).is_some_and(|name| types.get(name) == Some(DType::F16));
            is(node, "Cast") && is_half && !selection.contains(*at)
        };
        let widening = source.nodes.iter().enumerate().filter(widens);
        let widened = widening.filter_map(|(_, node)| Some((output(node)?, input(node, 0)?)));
        let widened = widened.filter(|(name, _)| types.is_single(name)).collect();
        let has_branches = |node: &&NodeProto| node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
        let captured = source.nodes.iter().filter(has_branches).flat_map(reads).map(Cow::into_owned);
        let fixed_names =
            source.outputs.iter().map(|output| output.name.clone()).chain(captured).collect::<HashSet<_>>();
        let mut forms = Self { source, types, origins, fixed_names: HashSet::new(), needed: HashSet::new(), widened };
        fixed_names.iter().for_each(|name| forms.need(name, TensorPrecision::Single));
        forms.fixed_names = fixed_names;
        for (at, node) in source.nodes.iter().enumerate() {
            for (i, name) in node.input.iter().enumerate() {
                forms.need(name, form_of_input(node, i, selection.contains(at)));
            }
        }
        forms
    }

    fn need(&mut self, name: &str, form: TensorPrecision) {
        if self.types.is_single(name) {
            self.needed.insert((name.to_owned(), form));
        }
    }

    /// Returns true if something reads this form of a tensor.
    pub fn is_needed(&self, name: &str, form: TensorPrecision) -> bool {
        self.needed.contains(&(name.to_owned(), form))
    }

    /// Returns the name of a form of a tensor.
    pub fn name(&self, name: &str, form: TensorPrecision) -> String {
        if !self.types.is_single(name) {
            return name.to_owned();
        }
        if let Some(half) = self.widened.get(name) {
            return if form == TensorPrecision::Half { (*half).to_owned() } else { name.to_owned() };
        }
        let is_named_single = match self.origins.get(name) {
            Some(Origin::Single) => true,
            Some(Origin::Half) if !self.fixed_names.contains(name) => false,
            _ => self.is_needed(name, TensorPrecision::Single),
        };
        match (form, is_named_single) {
            (TensorPrecision::Single, true) | (TensorPrecision::Half, false) => name.to_owned(),
            (TensorPrecision::Single, false) => self.free_name(name, "float32"),
            (TensorPrecision::Half, true) => self.free_name(name, "half"),
        }
    }

    /// Returns true for a node that only widens half precision, which the half-precision graph does without.
    pub fn is_left_out(&self, node: &NodeProto) -> bool {
        output(node).is_some_and(|name| self.widened.contains_key(name))
    }

    /// Returns the names that a node reads.
    pub fn inputs(&self, node: &NodeProto, is_single: bool) -> Vec<String> {
        let name = |(at, name): (usize, &String)| self.name(name, form_of_input(node, at, is_single));
        node.input.iter().enumerate().map(name).collect()
    }

    /// Returns the names of what a node computes.
    pub fn outputs(&self, node: &NodeProto, is_single: bool) -> Vec<String> {
        let form = if is_single { TensorPrecision::Single } else { TensorPrecision::Half };
        node.output.iter().map(|name| self.name(name, form)).collect()
    }

    /// Returns true if a tensor's inner declaration is that of its half-precision form.
    pub fn is_declared_half(&self, name: &str) -> bool {
        self.types.is_single(name) && self.name(name, TensorPrecision::Half) == name
    }

    fn free_name(&self, name: &str, what: &str) -> String {
        let mut free = format!("{name}/{what}");
        while self.source.has_tensor(&free) {
            free.push('_');
        }
        free
    }
}

/// Returns the form in which a node reads an input.
fn form_of_input(node: &NodeProto, at: usize, is_single: bool) -> TensorPrecision {
    if is_single || is_float32_input(node, at) { TensorPrecision::Single } else { TensorPrecision::Half }
}
