//! A parsed graph file: its nodes, their locations in the file, and its stored values.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use memmap2::Mmap;
use prost::Message;

use super::numbers::{Numbers, TensorValues};
use crate::bundle::proto::{AttributeProto, EXTERNAL, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::bundle::{ExternalReference, GraphFile, frame, map};
use crate::error::{Error, Result};
use crate::tensor::{DType, Field};

/// The bytes of a graph file.
enum FileBytes {
    Mapped(Mmap),
    Rewritten(Vec<u8>),
}

impl std::ops::Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file,
            Self::Rewritten(bytes) => bytes,
        }
    }
}

/// A graph's file, mapped and indexed. Weights are not copied.
pub struct IndexedGraph<'g> {
    graph: &'g GraphFile,
    file: FileBytes,
    beside: BTreeMap<&'g str, Mmap>,
    /// The location of the graph's message in the file.
    pub place: Field,
    /// Its nodes, in execution order.
    pub nodes: Vec<NodeProto>,
    /// The location of each node in the file.
    pub node_places: Vec<Field>,
    /// The stored tensors by name, each with its location in the file.
    stored: HashMap<String, (TensorProto, Field)>,
    /// Its inputs.
    pub inputs: Vec<ValueInfoProto>,
    /// The location of each input's declaration in the file.
    pub input_places: Vec<Field>,
    /// The locations of the declarations of its outputs and of inner tensors.
    pub declaration_places: Vec<Field>,
    /// Its outputs.
    pub outputs: Vec<ValueInfoProto>,
    /// The exporter's declarations of inner tensors.
    pub value_info: Vec<ValueInfoProto>,
    makers: HashMap<String, usize>,
    readers: HashMap<String, Vec<usize>>,
    given: HashSet<String>,
    /// True if every node comes after those whose outputs it reads, as the format requires.
    pub is_sorted: bool,
}

impl<'g> IndexedGraph<'g> {
    /// Parses the file.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Model`] if it changed since `graph` was opened.
    pub fn open(graph: &'g GraphFile) -> Result<Self> {
        Self::read(graph, FileBytes::Mapped(map(&graph.path)?))
    }

    /// Parses a file that was made of this one, with the same external tensors.
    ///
    /// # Errors
    /// As [`IndexedGraph::open`].
    pub fn of_rewritten(graph: &'g GraphFile, bytes: Vec<u8>) -> Result<Self> {
        Self::read(graph, FileBytes::Rewritten(bytes))
    }

    fn read(graph: &'g GraphFile, file: FileBytes) -> Result<Self> {
        let beside = graph.external.iter().map(|e| Ok((e.location.as_str(), map(&e.path)?)));
        let beside = beside.collect::<Result<BTreeMap<_, _>>>()?;
        let damaged = |problem: String| Error::model(&graph.path, problem, "download or copy the file again");
        let model = ModelProto::read(&file[..]).map_err(|e| damaged(format!("is damaged: {e}")))?;
        let GraphProto { node, initializer, input, output, value_info } = model.graph.unwrap_or_default();
        let found = (node.len(), initializer.len(), input.len());
        let apart = places(&file).filter(|p| (p.nodes.len(), p.tensors.len(), p.inputs.len()) == found);
        let GraphLocations {
            graph: place,
            nodes: node_places,
            tensors: tensor_places,
            inputs: input_places,
            declarations: declaration_places,
        } = apart.ok_or_else(|| damaged("is damaged: its nodes cannot be parsed".into()))?;
        let mut source = Self {
            graph,
            file,
            beside,
            place,
            nodes: node,
            node_places,
            stored: initializer.into_iter().zip(tensor_places).map(|(t, at)| (t.name.clone(), (t, at))).collect(),
            inputs: input,
            input_places,
            declaration_places,
            given: output.iter().map(|o| o.name.clone()).collect(),
            outputs: output,
            value_info,
            makers: HashMap::new(),
            readers: HashMap::new(),
            is_sorted: true,
        };
        for (at, node) in source.nodes.iter().enumerate() {
            source.makers.extend(node.output.iter().filter(|n| !n.is_empty()).map(|name| (name.clone(), at)));
            for name in reads(node) {
                source.readers.entry(name.into_owned()).or_default().push(at);
            }
        }
        let comes_before = |name: &String, at: &usize| source.makers.get(name).is_none_or(|maker| maker < at);
        source.is_sorted = source.readers.iter().all(|(name, readers)| readers.iter().all(|at| comes_before(name, at)));
        Ok(source)
    }

    /// Returns the graph's file as it was checked.
    pub fn graph(&self) -> &GraphFile {
        self.graph
    }

    /// Returns the file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.file
    }

    /// Returns the stored tensors, each with its location in the file.
    pub fn stored(&self) -> impl Iterator<Item = (&TensorProto, Field)> {
        self.stored.values().map(|(tensor, place)| (tensor, *place))
    }

    /// Returns the index of the node that computes a tensor.
    pub fn maker_index(&self, name: &str) -> Option<usize> {
        self.makers.get(name).copied()
    }

    /// Returns the node that computes a tensor.
    pub fn maker(&self, name: &str) -> Option<&NodeProto> {
        self.nodes.get(self.maker_index(name)?)
    }

    /// Returns the only node that reads a tensor's values, with its index, unless the tensor is an output of the graph.
    /// Nodes that only read its shape do not count.
    pub fn only_reader(&self, name: &str) -> Option<(usize, &NodeProto)> {
        let readers = self.readers.get(name)?.iter().filter_map(|&at| Some((at, self.nodes.get(at)?)));
        let mut readers = readers.filter(|(_, node)| !is(node, "Shape"));
        let only = readers.next()?;
        (readers.next().is_none() && !self.given.contains(name)).then_some(only)
    }

    /// Returns the indices of the nodes that read a tensor, once for each time.
    pub fn readers(&self, name: &str) -> &[usize] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns true if a tensor is not an output of the graph.
    pub fn is_inner(&self, name: &str) -> bool {
        !self.given.contains(name)
    }

    /// Returns a stored tensor that no caller replaces, and its location in the file.
    pub fn stored_tensor(&self, name: &str) -> Option<(&TensorProto, Field)> {
        let (tensor, place) = self.stored.get(name)?;
        self.inputs.iter().all(|input| input.name != name).then_some((tensor, *place))
    }

    /// Returns the values of a stored float32 tensor.
    pub fn stored_floats(&self, name: &str) -> Option<Vec<f32>> {
        let (tensor, place) = self.stored_tensor(name)?;
        let bytes = self.float_bytes(tensor, place)?;
        Some(bytes.chunks_exact(4).filter_map(|b| <[u8; 4]>::try_from(b).ok()).map(f32::from_le_bytes).collect())
    }

    /// Returns true if the name is in use.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.makers.contains_key(name) || self.readers.contains_key(name) || self.stored.contains_key(name)
    }

    /// Returns true if ONNX Runtime computes a tensor once, when it opens the graph: only from stored tensors that no
    /// caller may replace, and without dequantization.
    pub fn is_constant(&self, name: &str) -> bool {
        /// Weights are a few nodes away from stored tensors.
        const MOST: usize = 32;
        let mut open = vec![name];
        for _ in 0..MOST {
            let Some(name) = open.pop() else { return true };
            if self.stored.contains_key(name) {
                if self.inputs.iter().any(|input| input.name == name) {
                    return false;
                }
                continue;
            }
            match self.maker(name) {
                Some(node) if is(node, "Constant") => {}
                Some(node) if is(node, "DequantizeLinear") || node.input.is_empty() => return false,
                Some(node) => open.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty())),
                None => return false,
            }
        }
        open.is_empty()
    }

    /// Returns the values stored under a name or in a `Constant`, if they are at most `limit` and of a supported type.
    /// Returns `None` for inputs that a caller may replace.
    pub fn numbers(&self, name: &str, limit: usize) -> Option<Numbers> {
        if let Some((tensor, place)) = self.stored.get(name) {
            let is_input = || self.inputs.iter().any(|input| input.name == name);
            let count = tensor.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))?;
            if count > limit || is_input() {
                return None;
            }
            let values = TensorValues::decode(self.file.get(place.body..place.end)?).ok()?;
            return Numbers::read(&values, |tensor| self.external_bytes(tensor));
        }
        let maker = self.maker(name).filter(|node| is(node, "Constant"))?;
        self.constant(output(maker)?).filter(|numbers| numbers.len() <= limit)
    }

    /// Returns the values in an attribute of the node that computes a tensor: those of a `Constant`, or the fill value
    /// of a `ConstantOfShape`.
    pub fn constant(&self, name: &str) -> Option<Numbers> {
        let place = self.node_places.get(self.maker_index(name)?)?;
        Numbers::read_constant(self.file.get(place.body..place.end)?, |tensor| self.external_bytes(tensor))
    }

    /// Returns the bytes of an external tensor.
    fn external_bytes(&self, tensor: &TensorValues) -> Option<&[u8]> {
        let header = TensorProto {
            dims: tensor.dims.clone(),
            data_type: tensor.data_type,
            external_data: tensor.external_data.clone(),
            ..TensorProto::default()
        };
        self.external_tensor_bytes(&header)
    }

    /// Returns the bytes of an external tensor.
    pub fn external_tensor_bytes(&self, tensor: &TensorProto) -> Option<&[u8]> {
        let reference = ExternalReference::read(&self.graph.path, tensor).ok()?;
        let file = self.beside.get(reference.location.as_str())?;
        file.get(usize::try_from(reference.offset).ok()?..usize::try_from(reference.end).ok()?)
    }

    /// Returns the bytes of a stored float32 tensor at `place`; `None` if they are not contiguous.
    pub fn float_bytes(&self, tensor: &TensorProto, place: Field) -> Option<&[u8]> {
        /// Field numbers of `TensorProto.float_data`, which is packed, and `TensorProto.raw_data`.
        const FLOAT_DATA: u64 = 4;
        const RAW_DATA: u64 = 9;
        let bytes = if tensor.data_location == EXTERNAL || !tensor.external_data.is_empty() {
            self.external_tensor_bytes(tensor)?
        } else {
            let mut values = Vec::new();
            frame::fields(&self.file, place.body..place.end, |number, range| {
                values.extend(matches!(number, FLOAT_DATA | RAW_DATA).then_some(range));
            })?;
            let [range] = <[_; 1]>::try_from(values).ok()?;
            self.file.get(range)?
        };
        let count = tensor.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))?;
        bytes.get(..count.checked_mul(4)?).filter(|_| DType::from_onnx(tensor.data_type) == DType::F32)
    }
}

/// Returns the names that a node reads, including those that its branches read from the outer graph.
pub fn reads(node: &NodeProto) -> Vec<Cow<'_, str>> {
    fn collect<'n>(node: &'n NodeProto, names: &mut Vec<Cow<'n, str>>) {
        names.extend(node.input.iter().filter(|n| !n.is_empty()).map(|n| Cow::Borrowed(n.as_str())));
        for graph in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
            names.extend(graph.output.iter().map(|o| Cow::Borrowed(o.name.as_str())));
            graph.node.iter().for_each(|node| collect(node, names));
        }
    }
    let mut names = Vec::new();
    collect(node, &mut names);
    names
}

/// Returns the attribute with this name.
pub fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// Returns an attribute's integer.
pub fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|a| a.i)
}

/// Returns an attribute's text.
pub fn text<'n>(node: &'n NodeProto, name: &str) -> Option<&'n str> {
    std::str::from_utf8(&attribute(node, name)?.s).ok()
}

/// Returns an attribute's list of integers.
pub fn ints<'n>(node: &'n NodeProto, name: &str) -> Option<&'n [i64]> {
    attribute(node, name).map(|a| a.ints.as_slice())
}

/// Returns the name of a node's input, if present.
pub fn input(node: &NodeProto, at: usize) -> Option<&str> {
    node.input.get(at).map(String::as_str).filter(|name| !name.is_empty())
}

/// Returns the name of a node's only output.
pub fn output(node: &NodeProto) -> Option<&str> {
    match node.output.as_slice() {
        [name] if !name.is_empty() => Some(name),
        _ => None,
    }
}

/// Returns true if a node is the standard ONNX operator with this name.
pub fn is(node: &NodeProto, operator: &str) -> bool {
    node.op_type == operator && is_own(node)
}

/// Returns true for a standard ONNX operator.
pub fn is_own(node: &NodeProto) -> bool {
    node.domain.is_empty() || node.domain == "ai.onnx"
}

/// The locations of a graph's parts in its file.
pub struct GraphLocations {
    /// The graph's own message.
    pub graph: Field,
    /// Its nodes.
    pub nodes: Vec<Field>,
    /// The tensors that it stores.
    pub tensors: Vec<Field>,
    /// Its inputs.
    pub inputs: Vec<Field>,
    /// The declarations of its outputs and of inner tensors.
    pub declarations: Vec<Field>,
}

/// Returns the locations of a graph's parts in a file; `None` if it is not a whole graph.
pub fn places(file: &[u8]) -> Option<GraphLocations> {
    /// Field numbers of `ModelProto` and `GraphProto`.
    const GRAPH: u64 = 7;
    const NODE: u64 = 1;
    const INITIALIZER: u64 = 5;
    const INPUT: u64 = 11;
    const OUTPUT: u64 = 12;
    const VALUE_INFO: u64 = 13;
    let mut graphs = Vec::new();
    frame::whole_fields(file, 0..file.len(), |number, place| graphs.extend((number == GRAPH).then_some(place)))?;
    let [graph] = graphs.try_into().ok()?;
    let mut places =
        GraphLocations { graph, nodes: Vec::new(), tensors: Vec::new(), inputs: Vec::new(), declarations: Vec::new() };
    frame::whole_fields(file, graph.body..graph.end, |number, place| match number {
        NODE => places.nodes.push(place),
        INITIALIZER => places.tensors.push(place),
        INPUT => places.inputs.push(place),
        OUTPUT | VALUE_INFO => places.declarations.push(place),
        _ => {}
    })?;
    Some(places)
}
