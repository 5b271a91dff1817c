//! Inputs that could as well be of another type.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{frame, proto, tensor_info};
use crate::tensor::{ByteEdit, DType, TensorInfo};

/// For each whole-number input that does nothing but become float32 in the end, the one byte of its graph's file that
/// makes it a float32 input. Inputs on whose type other nodes depend are left out.
///
/// Exporters that were shown a whole timestep write an input of whole numbers, and many schedules step between them.
pub fn as_float(file: &[u8], graph: &proto::Graph) -> BTreeMap<String, ByteEdit> {
    let to = DType::F32.to_onnx();
    let edit = |info: &TensorInfo| {
        let names = becomes_float(graph, &info.name)?;
        let at = element_type(file, &names, &info.name)?;
        let from = info.dtype.to_onnx();
        (i32::from(*file.get(at)?) == from).then_some(ByteEdit { at: at as u64, from: from as u8, to: to as u8 })
    };
    let whole = graph.input.iter().map(tensor_info).filter(|info| info.dtype.is_integer());
    whole.filter_map(|info| Some((info.name.clone(), edit(&info)?))).collect()
}

/// The input and all that is made of it up to the casts to float32, if nothing else is.
fn becomes_float(graph: &proto::Graph, input: &str) -> Option<BTreeSet<String>> {
    /// Operators that move values about, whatever their type: the first input's is the output's.
    const MOVES: [&str; 6] = ["Expand", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Flatten"];
    let mut names = BTreeSet::from([input.to_owned()]);
    let mut casts = 0;
    // Nodes stand in the order in which they run.
    for node in &graph.node {
        let reads: Vec<usize> =
            node.input.iter().enumerate().filter(|(_, name)| names.contains(*name)).map(|(at, _)| at).collect();
        if reads.is_empty() {
            continue;
        }
        let to_float = |a: &proto::Attribute| a.name == "to" && a.i == i64::from(DType::F32.to_onnx());
        match node.op_type.as_str() {
            _ if reads != [0] || !node.domain.is_empty() => return None,
            "Cast" if node.attribute.iter().any(to_float) => casts += 1,
            "Shape" => {}
            name if MOVES.contains(&name) => names.extend(node.output.iter().cloned()),
            _ => return None,
        }
    }
    let is_given = |name: &String| graph.output.iter().any(|output| output.name == *name);
    (casts > 0 && !names.iter().any(is_given)).then_some(names)
}

/// Where the element type of an input stands, unless the file states the type of what is made of it too.
fn element_type(file: &[u8], names: &BTreeSet<String>, input: &str) -> Option<usize> {
    /// Field numbers of `ModelProto`, `GraphProto`, `ValueInfoProto` and `TypeProto`.
    const GRAPH: u64 = 7;
    const INPUT: u64 = 11;
    const VALUE_INFO: u64 = 13;
    const NAME: u64 = 1;
    const TYPE: u64 = 2;
    const TENSOR_TYPE: u64 = 1;
    /// The key of `TypeProto.Tensor.elem_type`, a varint.
    const ELEM_TYPE: u8 = 1 << 3;
    let within = |message: Range<usize>, wanted: u64| {
        let mut found = Vec::new();
        frame::fields(file, message, |field, range| found.extend((field == wanted).then_some(range)))?;
        Some(found)
    };
    let name = |value: &Range<usize>| {
        let name = within(value.clone(), NAME)?.into_iter().next()?;
        std::str::from_utf8(file.get(name)?).ok()
    };
    let [graph] = <[_; 1]>::try_from(within(0..file.len(), GRAPH)?).ok()?;
    if within(graph.clone(), VALUE_INFO)?.iter().any(|value| name(value).is_none_or(|name| names.contains(name))) {
        return None;
    }
    let value = within(graph, INPUT)?.into_iter().find(|value| name(value) == Some(input))?;
    let kind = within(value, TYPE)?.into_iter().next()?;
    let tensor = within(kind, TENSOR_TYPE)?.into_iter().next()?;
    (file.get(tensor.start) == Some(&ELEM_TYPE)).then_some(tensor.start + 1)
}
