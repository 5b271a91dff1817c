//! Integer inputs that can be changed to float32.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::tensors::tensor_info;
use super::{frame, proto};
use crate::tensor::{ByteEdit, DType, TensorInfo};

/// Returns the byte of the graph's file that has to change for a float32 input, for each integer input whose only use
/// is a conversion to float32. Inputs whose type other nodes depend on are skipped.
///
/// Exporters that trace an integer timestep write an integer input, but many schedules have fractional timesteps.
pub fn as_float(file: &[u8], graph: &proto::GraphProto) -> BTreeMap<String, ByteEdit> {
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

/// Returns the input and all tensors derived from it up to the casts to float32, if there are no other uses.
fn becomes_float(graph: &proto::GraphProto, input: &str) -> Option<BTreeSet<String>> {
    /// Operators that move values of any type: the output has the first input's type.
    const MOVES: [&str; 6] = ["Expand", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Flatten"];
    let mut names = BTreeSet::from([input.to_owned()]);
    let mut casts = 0;
    // Nodes are in execution order.
    for node in &graph.node {
        let reads: Vec<usize> =
            node.input.iter().enumerate().filter(|(_, name)| names.contains(*name)).map(|(at, _)| at).collect();
        if reads.is_empty() {
            continue;
        }
        let to_float = |a: &proto::AttributeProto| a.name == "to" && a.i == i64::from(DType::F32.to_onnx());
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

/// Returns the offset of an input's element type, unless the file also declares the type of a derived tensor.
fn element_type(file: &[u8], names: &BTreeSet<String>, input: &str) -> Option<usize> {
    /// Field numbers of `ModelProto`, `GraphProto`, `ValueInfoProto` and `TypeProto`.
    const GRAPH: u64 = 7;
    const INPUT: u64 = 11;
    const VALUE_INFO: u64 = 13;
    const NAME: u64 = 1;
    const TYPE: u64 = 2;
    const TENSOR_TYPE: u64 = 1;
    /// The key of `TypeProto.TensorProto.elem_type`, a varint.
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
