//! The changes to a graph, and writing the changed file.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::indexed_graph::{IndexedGraph, reads};
use super::numbers::TensorValues;
use crate::bundle::proto::{AttributeProto, NodeProto, OperatorSetProto, ValueInfoProto};
use crate::error::{Error, Result};
use crate::kernels::DOMAIN;
use crate::tensor::{DType, Field};

/// The domain of ONNX Runtime's own operators.
pub const MICROSOFT: &str = "com.microsoft";

/// Numbers of `AttributeProto.AttributeType`.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const INTS: i32 = 7;

/// Nodes that replace others, and new stored tensors.
#[derive(Default)]
pub struct Edits {
    /// Replacements, by the index of the replaced node.
    replaced: BTreeMap<usize, Vec<NodeProto>>,
    /// Nodes added after a node, or before all.
    following: BTreeMap<Option<usize>, Vec<NodeProto>>,
    stored: Vec<TensorValues>,
    /// The new forms of tensors that the file stores, by their names in it.
    moved: BTreeMap<String, TensorValues>,
    /// Stored integer lists, by their values.
    lists: HashMap<Vec<i64>, String>,
    names: usize,
    /// Tensors that become inputs of the graph and are no longer computed.
    added_inputs: Vec<ValueInfoProto>,
    /// Tensors that become additional outputs of the graph.
    added_outputs: Vec<ValueInfoProto>,
    /// The file's inputs and outputs, if they are declared in another way.
    declarations: Option<Declarations>,
}

/// Declarations that replace those of the file's inputs and outputs, in their order. Those of inner tensors are removed.
#[derive(Clone)]
pub struct Declarations {
    /// The inputs.
    pub inputs: Vec<ValueInfoProto>,
    /// The outputs.
    pub outputs: Vec<ValueInfoProto>,
}

impl Edits {
    /// Returns true if nothing changes.
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty()
            && self.following.is_empty()
            && self.added_inputs.is_empty()
            && self.added_outputs.is_empty()
            && self.declarations.is_none()
    }

    /// Returns the declarations of inputs and outputs as they are now.
    pub fn declarations(&self, source: &IndexedGraph<'_>) -> Declarations {
        let own = || Declarations { inputs: source.inputs.clone(), outputs: source.outputs.clone() };
        self.declarations.clone().unwrap_or_else(own)
    }

    /// Declares the file's inputs and outputs in another way.
    pub fn declare(&mut self, declarations: Declarations) {
        self.declarations = Some(declarations);
    }

    /// Turns a computed tensor into an input. Nodes and inputs needed only to compute it are removed.
    pub fn add_input(&mut self, tensor: ValueInfoProto) {
        self.added_inputs.push(tensor);
    }

    /// Turns a tensor into an output of the graph.
    pub fn add_output(&mut self, tensor: ValueInfoProto) {
        self.added_outputs.push(tensor);
    }

    /// Returns the names of the added inputs and of the added outputs.
    pub fn added_ports(&self) -> [impl Iterator<Item = &str>; 2] {
        [&self.added_inputs, &self.added_outputs].map(|tensors| tensors.iter().map(|tensor| tensor.name.as_str()))
    }

    /// Returns true if a node was replaced.
    pub fn is_replaced(&self, at: usize) -> bool {
        self.replaced.contains_key(&at)
    }

    /// Replaces the node with index `at` by `nodes`. The last of them computes that node's output.
    pub fn replace(&mut self, at: usize, nodes: Vec<NodeProto>) {
        self.replaced.insert(at, nodes);
    }

    /// Adds a node after the one with index `at`, or before all.
    pub fn follow(&mut self, at: Option<usize>, node: NodeProto) {
        self.following.entry(at).or_default().push(node);
    }

    /// Declares a tensor that is stored.
    pub fn store_tensor(&mut self, tensor: TensorValues) {
        self.stored.push(tensor);
    }

    /// Declares where the values of a tensor that the file stores are now.
    pub fn move_stored(&mut self, tensor: TensorValues) {
        self.moved.insert(tensor.name.clone(), tensor);
    }

    /// Reverts replacements that do not remove the tensor they were meant to make unused, and returns the number of the
    /// others. A site is the index of the replaced node and that tensor.
    pub fn retain_useful(&mut self, source: &IndexedGraph<'_>, mut sites: Vec<(usize, &str)>) -> usize {
        let needed = self.needed(source);
        sites.retain(|(at, needless)| {
            let is_gone = !needed.contains(*needless);
            if !is_gone {
                self.replaced.remove(at);
            }
            is_gone
        });
        sites.len()
    }

    /// Returns the names of the tensors that are still read once all nodes are replaced.
    pub fn needed(&self, source: &IndexedGraph<'_>) -> HashSet<String> {
        self.living(source).1
    }

    /// Returns an unused tensor name.
    pub fn name(&mut self, source: &IndexedGraph<'_>, what: &str) -> String {
        loop {
            self.names += 1;
            let name = format!("rewritten/{what}_{}", self.names);
            if !source.has_tensor(&name) {
                return name;
            }
        }
    }

    /// Stores a list of integers, and returns its name.
    pub fn list(&mut self, source: &IndexedGraph<'_>, list: &[i64]) -> String {
        if let Some(name) = self.lists.get(list) {
            return name.clone();
        }
        let name = self.name(source, "list");
        let raw_data = list.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.store(name.clone(), &[list.len()], DType::I64, raw_data);
        self.lists.insert(list.to_vec(), name.clone());
        name
    }

    /// Stores floating-point numbers, and returns their name.
    pub fn floats(&mut self, source: &IndexedGraph<'_>, what: &str, shape: &[usize], values: &[f32]) -> String {
        let name = self.name(source, what);
        self.store(name.clone(), shape, DType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        name
    }

    fn store(&mut self, name: String, shape: &[usize], dtype: DType, raw_data: Vec<u8>) {
        let dims = shape.iter().map(|&n| n as i64).collect();
        self.stored.push(TensorValues { dims, data_type: dtype.to_onnx(), name, raw_data, ..TensorValues::default() });
    }

    /// Returns the nodes of the changed graph, in execution order.
    pub fn nodes<'s>(&'s self, source: &'s IndexedGraph<'_>) -> Vec<&'s NodeProto> {
        self.living(source).0.into_iter().map(|(node, _)| node).collect()
    }

    /// Returns the bytes of the changed file, without nodes and stored tensors that nothing reads any more.
    ///
    /// Everything else stays byte for byte: external tensors are still found by the names in the file, relative to its
    /// directory.
    ///
    /// # Errors
    /// [`Error::Model`] if the file would exceed the limit of 2 GiB.
    pub fn write(&self, source: &IndexedGraph<'_>) -> Result<Vec<u8>> {
        /// Numbers of the fields of `GraphProto`.
        const NODE: u32 = 1;
        const INITIALIZER: u32 = 5;
        const INPUT: u32 = 11;
        const OUTPUT: u32 = 12;
        let (kept, needed) = self.living(source);
        let bytes = source.bytes();
        let mut left_out: Vec<Field> = source.node_places.clone();
        let is_fed = |name: &str| source.inputs.iter().any(|input| input.name == name);
        let stays = |name: &String| !self.moved.contains_key(name) && (needed.contains(name) || is_fed(name));
        left_out.extend(source.stored().filter(|(t, _)| !stays(&t.name)).map(|(_, place)| place));
        let is_left = |input: &ValueInfoProto| self.added_inputs.is_empty() || needed.contains(&input.name);
        let inputs = source.inputs.iter().zip(&source.input_places);
        let is_declared = self.declarations.is_some();
        left_out.extend(inputs.filter(|(input, _)| is_declared || !is_left(input)).map(|(_, place)| *place));
        left_out.extend(source.declaration_places.iter().filter(|_| is_declared));
        left_out.sort_by_key(|place| place.start);

        let mut body = Vec::with_capacity(source.place.end - source.place.body);
        let mut at = source.place.body;
        for place in left_out {
            body.extend_from_slice(bytes.get(at..place.start).unwrap_or_default());
            at = place.end;
        }
        body.extend_from_slice(bytes.get(at..source.place.end).unwrap_or_default());
        if let Some(Declarations { inputs, outputs }) = &self.declarations {
            let inputs = inputs.iter().filter(|input| is_left(input));
            inputs.for_each(|tensor| field(&mut body, INPUT, &tensor.encode_to_vec()));
            outputs.iter().for_each(|tensor| field(&mut body, OUTPUT, &tensor.encode_to_vec()));
        }
        self.added_inputs.iter().for_each(|tensor| field(&mut body, INPUT, &tensor.encode_to_vec()));
        self.added_outputs.iter().for_each(|tensor| field(&mut body, OUTPUT, &tensor.encode_to_vec()));
        for (_, how) in kept {
            match how {
                ChangedNode::Original(place) => {
                    body.extend_from_slice(bytes.get(place.start..place.end).unwrap_or_default())
                }
                ChangedNode::New(node) => field(&mut body, NODE, &node.encode_to_vec()),
            }
        }
        for tensor in self.stored.iter().chain(self.moved.values()).filter(|tensor| needed.contains(&tensor.name)) {
            field(&mut body, INITIALIZER, &tensor.encode_to_vec());
        }
        self.file_of(source, &body)
    }

    /// Returns the bytes of the file with another graph, and with the operator sets that new nodes need.
    fn file_of(&self, source: &IndexedGraph<'_>, body: &[u8]) -> Result<Vec<u8>> {
        /// Numbers of the fields of `ModelProto`.
        const GRAPH: u32 = 7;
        const OPSET_IMPORT: u32 = 8;
        let bytes = source.bytes();
        let mut file = Vec::with_capacity(bytes.len() - (source.place.end - source.place.body) + body.len() + 64);
        file.extend_from_slice(bytes.get(..source.place.start).unwrap_or_default());
        field(&mut file, GRAPH, body);
        file.extend_from_slice(bytes.get(source.place.end..).unwrap_or_default());
        for domain in [MICROSOFT, DOMAIN] {
            let mut new = self.replaced.values().chain(self.following.values()).flatten();
            if new.any(|node| node.domain == domain) && !source.graph().opsets.contains_key(domain) {
                let set = OperatorSetProto { domain: domain.to_owned(), version: 1 };
                field(&mut file, OPSET_IMPORT, &set.encode_to_vec());
            }
        }
        if file.len() > i32::MAX as usize {
            let problem = format!("rewritten, it would have {} bytes, and the limit is 2 GiB", file.len());
            return Err(Error::model(&source.graph().path, problem, "export it with external weights"));
        }
        Ok(file)
    }

    /// Returns the nodes that something reads, in execution order, and the names that they read.
    fn living<'s>(&'s self, source: &'s IndexedGraph<'_>) -> (Vec<(&'s NodeProto, ChangedNode<'s>)>, HashSet<String>) {
        let mut nodes: Vec<(&'s NodeProto, ChangedNode<'s>)> = Vec::new();
        let following = |at: Option<usize>| {
            self.following.get(&at).into_iter().flatten().map(|node| (node, ChangedNode::New(node)))
        };
        nodes.extend(following(None));
        for (at, (node, place)) in source.nodes.iter().zip(&source.node_places).enumerate() {
            match self.replaced.get(&at) {
                Some(new) => nodes.extend(new.iter().map(|node| (node, ChangedNode::New(node)))),
                None => nodes.push((node, ChangedNode::Original(*place))),
            }
            nodes.extend(following(Some(at)));
        }
        let given = source.outputs.iter().chain(&self.added_outputs);
        let mut needed: HashSet<String> = given.map(|output| output.name.clone()).collect();
        let is_fed = |name: &String| self.added_inputs.iter().any(|tensor| tensor.name == *name);
        let mut kept = Vec::with_capacity(nodes.len());
        for (node, how) in nodes.into_iter().rev() {
            if node.output.iter().any(|name| needed.contains(name) && !is_fed(name)) {
                needed.extend(reads(node).into_iter().map(std::borrow::Cow::into_owned));
                kept.push((node, how));
            }
        }
        kept.reverse();
        (kept, needed)
    }
}

/// A node of the changed graph.
enum ChangedNode<'s> {
    /// One of the file's, at this location.
    Original(Field),
    New(&'s NodeProto),
}

/// Appends a message as a field.
pub fn field(to: &mut Vec<u8>, number: u32, message: &[u8]) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(message.len() as u64, to);
    to.extend_from_slice(message);
}

/// Creates a node of a standard ONNX operator.
pub fn node(operator: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: format!("{output}/{operator}"),
        op_type: operator.to_owned(),
        attribute: attributes,
        ..NodeProto::default()
    }
}

/// Creates an integer attribute.
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i, r#type: INT, ..AttributeProto::default() }
}

/// Creates a floating-point attribute.
pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), f, r#type: FLOAT, ..AttributeProto::default() }
}

/// Creates an attribute that is a text.
pub fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.to_owned(), s: s.as_bytes().to_vec(), r#type: STRING, ..AttributeProto::default() }
}

/// Creates an attribute that is a list of integers.
pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), ints: ints.to_vec(), r#type: INTS, ..AttributeProto::default() }
}
