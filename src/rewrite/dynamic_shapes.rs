//! Replaces static shapes by dynamic ones, so that ONNX Runtime frees memory.
//!
//! When it opens a graph, ONNX Runtime plans which tensors share a buffer. A tensor's buffer is reserved for the next
//! tensor of the same shape, however much later that is computed, and stays allocated in between: in a UNet, where few
//! shapes recur in many layers, nearly everything is held from the first layer to the last. It plans so only if it
//! knows both shapes, which it infers from the input shapes and from stored values. The results at run time do not
//! depend on it.

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::edits::field;
use super::indexed_graph::{int, is, reads};
use super::numbers::TensorValues;
use crate::bundle::frame;
use crate::bundle::proto::{Dimension, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use crate::tensor::{DType, Field};

/// Numbers of `ModelProto.graph`, and of `GraphProto.node`, `initializer` and `input`.
const GRAPH: u64 = 7;
const NODE: u64 = 1;
const INITIALIZER: u64 = 5;
const INPUT: u64 = 11;

/// The replacements for parts of a graph.
#[derive(Default)]
struct Changes<'g> {
    /// Inputs whose first length becomes dynamic.
    inputs: HashSet<&'g str>,
    /// Stored shapes whose first length becomes -1, inferred from the number of elements.
    shapes: HashSet<&'g str>,
    /// Stored quantized tensors that get a different shape, with the number of axes of length 1 to add before and after
    /// the others.
    widened: HashMap<&'g str, [usize; 2]>,
}

/// Returns a graph's file with dynamic activation shapes; `None` if that changes nothing, or if the file is not a whole
/// graph.
///
/// For graphs that are opened without being optimized: fusions have to know the shapes.
pub fn make_shapes_dynamic(file: &[u8]) -> Option<Vec<u8>> {
    let graph = ModelProto::read(file).ok()?.graph?;
    let changes = Changes::find(&graph);
    let mut place = None;
    frame::whole_fields(file, 0..file.len(), |number, at| place = if number == GRAPH { Some(at) } else { place })?;
    let place = place?;
    let mut fields: Vec<(u64, Field)> = Vec::new();
    frame::whole_fields(file, place.body..place.end, |number, at| fields.push((number, at)))?;
    let mut body = Vec::with_capacity(place.end - place.body);
    let (mut at, mut is_changed) = (place.body, false);
    for (number, message) in fields {
        let Some(new) = changes.put(number, file.get(message.body..message.end)?) else { continue };
        body.extend_from_slice(file.get(at..message.start)?);
        field(&mut body, u32::try_from(number).ok()?, &new);
        (at, is_changed) = (message.end, true);
    }
    body.extend_from_slice(file.get(at..place.end)?);
    let mut changed = file.get(..place.start)?.to_vec();
    field(&mut changed, u32::try_from(GRAPH).ok()?, &body);
    changed.extend_from_slice(file.get(place.end..)?);
    is_changed.then_some(changed)
}

impl<'g> Changes<'g> {
    fn find(graph: &'g GraphProto) -> Self {
        let mut changes = Self::default();
        let mut stored: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let lists = graph.initializer.iter().filter(|tensor| DType::from_onnx(tensor.data_type) == DType::I64);
        changes.shapes = lists.map(|tensor| tensor.name.as_str()).collect();
        for input in &graph.input {
            if !stored.contains(input.name.as_str()) {
                changes.inputs.insert(&input.name);
            }
            changes.shapes.remove(input.name.as_str());
        }
        let mut readers: HashMap<String, Vec<&NodeProto>> = HashMap::new();
        for node in &graph.node {
            reads(node).into_iter().for_each(|name| readers.entry(name.into_owned()).or_default().push(node));
        }
        let lengths: HashMap<&str, &[i64]> =
            graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor.dims.as_slice())).collect();
        let mut alike: HashMap<&[i64], usize> = HashMap::new();
        for node in &graph.node {
            let is_of_stored = node.input.iter().all(|name| name.is_empty() || stored.contains(name.as_str()));
            if is_of_stored {
                stored.extend(node.output.iter().map(String::as_str));
            }
            let tells_shape = is(node, "Reshape") && int(node, "allowzero").unwrap_or(0) == 0 && !is_of_stored;
            for (at, name) in node.input.iter().enumerate() {
                if !(tells_shape && at == 1) {
                    changes.shapes.remove(name.as_str());
                }
            }
            if is_of_stored && let Some((weights, shape)) = dequantized(node, &readers, &lengths) {
                /// The number of axes to add in front before one more is added behind, so that no tensor has very many
                /// axes.
                const IN_FRONT: usize = 8;
                let before = alike.entry(shape).or_default();
                changes.widened.insert(weights, [*before % IN_FRONT, *before / IN_FRONT]);
                *before += 1;
            }
        }
        // Tensors that branches read from the outer graph do not change.
        let within = graph.node.iter().flat_map(|node| node.attribute.iter()).flat_map(|a| a.g.iter().chain(&a.graphs));
        for node in within.flat_map(|graph| &graph.node) {
            for name in reads(node) {
                changes.shapes.remove(name.as_ref());
                changes.widened.remove(name.as_ref());
            }
        }
        changes
    }

    /// Returns the replacement for a message of the graph; `None` keeps it.
    fn put(&self, number: u64, message: &[u8]) -> Option<Vec<u8>> {
        match number {
            INPUT => self.input(message),
            INITIALIZER => self.stored(message),
            NODE => self.node(message),
            _ => None,
        }
    }

    fn input(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut info = ValueInfoProto::decode(message).ok().filter(|info| self.inputs.contains(info.name.as_str()))?;
        let shape = info.r#type.as_mut()?.tensor_type.as_mut()?.shape.as_mut()?;
        *shape.dim.first_mut().filter(|first| **first != Dimension::default())? = Dimension::default();
        Some(info.encode_to_vec())
    }

    fn stored(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut tensor = TensorValues::decode(message).ok()?;
        if self.shapes.contains(tensor.name.as_str()) {
            return open_first(&mut tensor).then(|| tensor.encode_to_vec());
        }
        let [front, behind] = *self.widened.get(tensor.name.as_str()).filter(|axes| **axes != [0, 0])?;
        tensor.dims.splice(0..0, std::iter::repeat_n(1, front));
        tensor.dims.extend(std::iter::repeat_n(1, behind));
        Some(tensor.encode_to_vec())
    }

    fn node(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut node = NodeProto::decode(message).ok().filter(|node| is(node, "DequantizeLinear"))?;
        let [front, _] = *self.widened.get(node.input.first()?.as_str())?;
        let axis = node.attribute.iter_mut().find(|attribute| attribute.name == "axis").filter(|axis| axis.i >= 0)?;
        axis.i += i64::try_from(front).ok()?;
        Some(node.encode_to_vec())
    }
}

/// Returns the quantized weights that a node dequantizes for a `Reshape`, with their shape.
fn dequantized<'g>(
    node: &'g NodeProto,
    readers: &HashMap<String, Vec<&NodeProto>>,
    lengths: &HashMap<&'g str, &'g [i64]>,
) -> Option<(&'g str, &'g [i64])> {
    let only_reader = |name: &str| match readers.get(name).map(Vec::as_slice) {
        Some([only]) => Some(*only),
        _ => None,
    };
    let ([weights, scale, ..], [made]) = (node.input.as_slice(), node.output.as_slice()) else { return None };
    if !is(node, "DequantizeLinear") {
        return None;
    }
    only_reader(weights)?;
    only_reader(made).filter(|reader| is(reader, "Reshape"))?;
    // One scale per index along one axis, which stays that axis.
    lengths.get(scale.as_str()).filter(|shape| shape.len() == 1)?;
    int(node, "axis").filter(|&axis| axis >= 0)?;
    Some((weights.as_str(), *lengths.get(weights.as_str())?))
}

/// Sets the first length of a stored shape to -1, if the others are known.
fn open_first(tensor: &mut TensorValues) -> bool {
    let lengths: Vec<i64> = match tensor.raw_data.is_empty() {
        true => tensor.int64_data.clone(),
        false => tensor.raw_data.chunks_exact(8).filter_map(|b| b.try_into().ok()).map(i64::from_le_bytes).collect(),
    };
    if lengths.first().is_none_or(|&first| first <= 0) || lengths.contains(&-1) {
        return false;
    }
    match tensor.raw_data.get_mut(..8) {
        Some(first) => first.copy_from_slice(&(-1i64).to_le_bytes()),
        None => {
            if let Some(first) = tensor.int64_data.first_mut() {
                *first = -1;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::proto::{AttributeProto, ShapeProto, TensorType, TypeProto};
    use crate::rewrite::edits::{self, int as attribute};

    fn stored(name: &str, dims: &[i64], list: &[i64]) -> TensorValues {
        let raw_data: Vec<u8> = list.iter().flat_map(|n| n.to_le_bytes()).collect();
        let data_type = if list.is_empty() { DType::Other(3) } else { DType::I64 }.to_onnx();
        TensorValues { dims: dims.to_vec(), data_type, name: name.to_owned(), raw_data, ..TensorValues::default() }
    }

    fn file(nodes: &[NodeProto], tensors: &[TensorValues], input: &[i64]) -> Vec<u8> {
        let dim = input.iter().map(|&dim_value| Dimension { dim_value, ..Dimension::default() }).collect();
        let tensor_type = Some(TensorType { elem_type: 1, shape: Some(ShapeProto { dim }) });
        let x = ValueInfoProto { name: "x".to_owned(), r#type: Some(TypeProto { tensor_type }) };
        let mut body = Vec::new();
        nodes.iter().for_each(|node| field(&mut body, NODE as u32, &node.encode_to_vec()));
        tensors.iter().for_each(|tensor| field(&mut body, INITIALIZER as u32, &tensor.encode_to_vec()));
        field(&mut body, INPUT as u32, &x.encode_to_vec());
        let mut file = Vec::new();
        field(&mut file, GRAPH as u32, &body);
        file
    }

    fn node(operator: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
        edits::node(operator, inputs, output, attributes)
    }

    #[test]
    fn inputs_and_what_reshapes_them_are_left_open() {
        let nodes = [
            node("Reshape", &["x", "shape"], "a", vec![]),
            node("Reshape", &["a", "told"], "b", vec![]),
            node("Reshape", &["b", "read"], "c", vec![]),
            node("Add", &["c", "read"], "d", vec![]),
        ];
        let lists = [stored("shape", &[2], &[1, 32]), stored("told", &[3], &[0, 4, -1]), stored("read", &[2], &[4, 8])];
        let changed = make_shapes_dynamic(&file(&nodes, &lists, &[1, 4, 8])).expect("the input and a shape change");
        let graph = ModelProto::read(&changed[..]).expect("a model").graph.expect("a graph");
        assert_eq!(graph.node, nodes);
        let shape = graph.input[0].r#type.as_ref().and_then(|t| t.tensor_type.as_ref()?.shape.as_ref());
        let lengths: Vec<i64> = shape.expect("a shape").dim.iter().map(|dim| dim.dim_value).collect();
        assert_eq!(lengths, [0, 4, 8]);
        let places = crate::rewrite::indexed_graph::places(&changed).expect("a graph").tensors;
        let lists = places.iter().map(|at| TensorValues::decode(&changed[at.body..at.end]).expect("a tensor").raw_data);
        let first: Vec<i64> = lists.map(|raw| i64::from_le_bytes(raw[..8].try_into().expect("8 bytes"))).collect();
        assert_eq!(first, [-1, 0, 4]);
    }

    #[test]
    fn weights_of_one_shape_are_told_apart() {
        let mut nodes = Vec::new();
        let mut tensors = vec![stored("shape", &[2], &[16, 32])];
        for at in ["0", "1", "2"] {
            let names = [format!("w{at}"), format!("s{at}"), format!("wide{at}")];
            let [weights, scales, wide] = names.each_ref().map(String::as_str);
            nodes.push(node("DequantizeLinear", &[weights, scales], wide, vec![attribute("axis", 0)]));
            nodes.push(node("Reshape", &[wide, "shape"], at, vec![]));
            tensors.extend([stored(weights, &[8, 64], &[]), stored(scales, &[8], &[])]);
        }
        let changed = make_shapes_dynamic(&file(&nodes, &tensors, &[])).expect("two of three change");
        let graph = ModelProto::read(&changed[..]).expect("a model").graph.expect("a graph");
        let axes: Vec<i64> = graph.node.iter().filter_map(|node| int(node, "axis")).collect();
        assert_eq!(axes, [0, 1, 2]);
        let of = |name: &str| graph.initializer.iter().find(|tensor| tensor.name == name).map(|t| t.dims.clone());
        assert_eq!([of("w0"), of("w1"), of("w2")], [vec![8, 64], vec![1, 8, 64], vec![1, 1, 8, 64]].map(Some));
        // A tensor computed from stored tensors alone keeps its shape.
        assert_eq!(of("shape"), Some(vec![2]));
    }

    #[test]
    fn what_is_no_graph_is_left_alone() {
        assert_eq!(make_shapes_dynamic(b"not a graph"), None);
        assert_eq!(make_shapes_dynamic(&file(&[node("Relu", &["x"], "y", vec![])], &[], &[])), None);
    }
}
