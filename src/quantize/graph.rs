//! Writes one graph with quantized weights in an external file.

mod rebuilt_graph;
mod tensors;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use prost::Message;

use super::half_precision::ErrorStats;
use super::selection::{Selection, count};
use super::{QuantizeProgress, QuantizedGraph, WeightFormat};
use crate::bundle::proto::{
    AttributeProto, Dimension, EXTERNAL, NodeProto, ShapeProto, StringEntry, TensorProto, TensorType, TypeProto,
    ValueInfoProto,
};
use crate::bundle::{Component, GraphFile, frame};
use crate::error::{Error, Result};
use crate::rewrite::edits::{field, int, node};
use crate::rewrite::indexed_graph::IndexedGraph;
use crate::rewrite::numbers::TensorValues;
use crate::session::Cancel;
use crate::tensor::{DType, Field};

/// The alignment of tensors in the external file: a page, so that each can be mapped separately; a cache line for
/// smaller ones.
const PAGE: u64 = 4096;
const LINE: u64 = 64;

/// Field numbers of ONNX's messages.
mod number {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_NODE: u64 = 1;
    pub const GRAPH_INITIALIZER: u64 = 5;
    pub const GRAPH_INPUT: u64 = 11;
    pub const NODE_ATTRIBUTE: u64 = 5;
    pub const ATTRIBUTE_TENSORS: [u64; 2] = [5, 10];
    pub const ATTRIBUTE_GRAPHS: [u64; 2] = [6, 11];
    pub const TENSOR_EXTERNAL_DATA: u64 = 13;
}

/// Writes a component's graph into the model directory `room`, at its relative path in `model`.
pub fn write(
    model: &Path,
    room: &Path,
    component: &Component,
    weights: WeightFormat,
    cancel: &Cancel,
    observer: &mut dyn FnMut(QuantizeProgress),
) -> Result<QuantizedGraph> {
    let graph = &component.graph;
    check(graph)?;
    let place = graph.path.strip_prefix(model).map_err(|_| unusable(graph, "is outside of the model directory"))?;
    let to = room.join(place);
    let failed = |e| Error::io(&to, "writing", e);
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let source = IndexedGraph::open(graph)?;
    let selection = Selection::choose(&source, weights);
    let beside = to.with_extension("onnx_data");
    let location = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let data = ExternalData { file: BufWriter::new(File::create(&beside).map_err(failed)?), at: 0, location };
    let outcome = QuantizedGraph {
        component: component.kind.name(),
        graph: place.to_path_buf(),
        bytes_before: graph.file_bytes + graph.external.iter().map(|file| file.bytes).sum::<u64>(),
        bytes_after: 0,
        tensors: 0,
        unknown: selection.unknown,
        largest_error: 0.0,
        relative_error: 0.0,
        skipped: Vec::new(),
    };
    let mut writer = Writer {
        source: &source,
        selection,
        data,
        moved: HashMap::new(),
        widened: Dequantization::default(),
        errors: ErrorStats::default(),
        outcome,
        tell: &mut |done| observer(QuantizeProgress { component: component.kind, done, total: graph.weight_bytes }),
        done: 0,
        cancel,
    };
    let bytes = writer.model()?;
    let Writer { mut data, errors, mut outcome, .. } = writer;
    data.file.flush().and_then(|()| data.file.get_ref().sync_all()).map_err(|e| Error::io(&beside, "writing", e))?;
    if bytes.len() > i32::MAX as usize {
        return Err(unusable(graph, "would exceed 2 GiB without its large weights"));
    }
    if data.at == 0 {
        std::fs::remove_file(&beside).map_err(|e| Error::io(&beside, "removing", e))?;
    }
    std::fs::write(&to, &bytes).map_err(failed)?;
    (outcome.largest_error, outcome.relative_error) = (errors.largest, errors.relative());
    outcome.bytes_after = bytes.len() as u64 + data.at;
    Ok(outcome)
}

/// Checks that a graph can be quantized.
fn check(graph: &GraphFile) -> Result<()> {
    if graph.ir_version < 4 || graph.opsets.get("").is_none_or(|&version| version < 13) {
        return Err(unusable(graph, "has a format too old for weights that are dequantized at run time"));
    }
    if graph.multiplies_in_integers() {
        let problem = "already uses 8-bit products";
        return Err(Error::model(&graph.path, problem, "use the model's float32 export, or leave this graph as it is"));
    }
    Ok(())
}

fn unusable(graph: &GraphFile, problem: &str) -> Error {
    Error::model(&graph.path, problem, "export the model again with opset 13 or later")
}

/// The external file.
struct ExternalData {
    file: BufWriter<File>,
    /// Bytes written.
    at: u64,
    location: String,
}

impl ExternalData {
    /// Appends `length` bytes, which `write` writes, with the alignment for that size, and returns the tensor's
    /// external data entries.
    fn append(
        &mut self,
        length: u64,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<Vec<StringEntry>> {
        let offset = self.at.next_multiple_of(if length < PAGE { LINE } else { PAGE });
        let gap = vec![0; usize::try_from(offset - self.at).unwrap_or_default()];
        let written = self.file.write_all(&gap).and_then(|()| write(&mut self.file));
        written.map_err(|e| Error::io(&self.location, "writing", e))?;
        self.at = offset + length;
        let entry = |key: &str, value: String| StringEntry { key: key.to_owned(), value };
        Ok(vec![
            entry("location", self.location.clone()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ])
    }
}

/// The dequantization nodes to add to the graph.
#[derive(Default)]
struct Dequantization {
    nodes: Vec<NodeProto>,
    inputs: Vec<ValueInfoProto>,
    /// The name of the table in half precision, by the table's name.
    tables: HashMap<String, String>,
    /// The names of a matrix's 8-bit values and of its columns' scales, by the matrix's name.
    columns: HashMap<String, [String; 2]>,
    /// The names of a factor in 8 bits, of its scale and of its zero point, by the factor's name.
    factors: HashMap<String, [String; 3]>,
}

struct Writer<'w> {
    source: &'w IndexedGraph<'w>,
    selection: Selection,
    data: ExternalData,
    /// The new locations of tensors by the old ones: some share their bytes.
    moved: HashMap<(String, u64, u64), Vec<StringEntry>>,
    widened: Dequantization,
    errors: ErrorStats,
    outcome: QuantizedGraph,
    tell: &'w mut dyn FnMut(u64),
    done: u64,
    cancel: &'w Cancel,
}

impl Writer<'_> {
    /// Writes the whole file.
    fn model(&mut self) -> Result<Vec<u8>> {
        let bytes = self.source.bytes();
        let place = self.source.place;
        // Tensors come first, since nodes depend on how they are stored.
        let mut tensors: Vec<(&TensorProto, Field)> = self.source.stored().collect();
        tensors.sort_by_key(|(_, place)| place.start);
        let mut stored = HashMap::new();
        for (tensor, place) in tensors {
            self.cancel.check()?;
            let written = self.encode_tensor(tensor, place)?;
            stored.insert(place.start, written);
            self.done += count(tensor).unwrap_or(0) as u64 * 4;
            (self.tell)(self.done);
        }
        let mut is_first = true;
        let mut at = 0;
        let mut graph = self.rebuilt(place.body, place.end, |writer, number, part| match number {
            number::GRAPH_NODE => {
                let mut whole = Vec::new();
                if std::mem::take(&mut is_first) {
                    // Before all other nodes: see `rewrite::hoist_dequantization`.
                    let first = writer.widened.nodes.iter();
                    first.for_each(|node| field(&mut whole, number as u32, &node.encode_to_vec()));
                }
                writer.node(at, part, &mut whole)?;
                at += 1;
                Ok(Some(whole))
            }
            number::GRAPH_INITIALIZER => Ok(stored.remove(&part.start)),
            _ => Ok(None),
        })?;
        for info in &self.widened.inputs {
            field(&mut graph, number::GRAPH_INPUT as u32, &info.encode_to_vec());
        }
        let mut whole = bytes.get(..place.start).unwrap_or_default().to_vec();
        field(&mut whole, number::MODEL_GRAPH as u32, &graph);
        whole.extend_from_slice(bytes.get(place.end..).unwrap_or_default());
        Ok(whole)
    }

    /// Rewrites the parts of a message for which `part` returns a replacement; copies the others byte for byte.
    fn rebuilt(
        &mut self,
        start: usize,
        end: usize,
        mut part: impl FnMut(&mut Self, u64, Field) -> Result<Option<Vec<u8>>>,
    ) -> Result<Vec<u8>> {
        let bytes = self.source.bytes();
        let mut parts = Vec::new();
        frame::whole_fields(bytes, start..end, |number, place| parts.push((number, place)))
            .ok_or_else(|| Error::model(&self.source.graph().path, "is damaged", "export the model again"))?;
        let mut whole = Vec::with_capacity(end - start);
        let mut at = start;
        for (number, place) in parts {
            if let Some(new) = part(self, number, place)? {
                whole.extend_from_slice(bytes.get(at..place.start).unwrap_or_default());
                whole.extend_from_slice(&new);
                at = place.end;
            }
        }
        whole.extend_from_slice(bytes.get(at..end).unwrap_or_default());
        Ok(whole)
    }

    /// Appends a node of the graph, or its replacement.
    fn node(&mut self, at: usize, place: Field, whole: &mut Vec<u8>) -> Result<()> {
        let body = match self.replacement_of(at) {
            Some(nodes) => {
                nodes.iter().for_each(|node| field(whole, number::GRAPH_NODE as u32, &node.encode_to_vec()));
                return Ok(());
            }
            None => self.moved_node(place)?,
        };
        field(whole, number::GRAPH_NODE as u32, &body);
        Ok(())
    }

    /// Rewrites the body of a node whose tensors, and those of its subgraphs, may be external.
    fn moved_node(&mut self, place: Field) -> Result<Vec<u8>> {
        self.rebuilt(place.body, place.end, |writer, number, attribute| {
            if number != number::NODE_ATTRIBUTE {
                return Ok(None);
            }
            let body = writer.rebuilt(attribute.body, attribute.end, |writer, number, part| match number {
                _ if number::ATTRIBUTE_TENSORS.contains(&number) => writer.moved_tensor(number, part),
                _ if number::ATTRIBUTE_GRAPHS.contains(&number) => {
                    let body = writer.rebuilt(part.body, part.end, |writer, number, part| match number {
                        number::GRAPH_NODE => Ok(Some(framed(number, &writer.moved_node(part)?))),
                        number::GRAPH_INITIALIZER => writer.moved_tensor(number, part),
                        _ => Ok(None),
                    })?;
                    Ok(Some(framed(number, &body)))
                }
                _ => Ok(None),
            })?;
            Ok(Some(framed(number, &body)))
        })
    }

    /// Returns a tensor with its external values moved; `None` if it has none.
    fn moved_tensor(&mut self, number: u64, place: Field) -> Result<Option<Vec<u8>>> {
        let source = self.source;
        let damaged = |what: &str| Error::model(&source.graph().path, what, "export the model again");
        let message = source.bytes().get(place.body..place.end).unwrap_or_default();
        let tensor = TensorProto::decode(message).map_err(|e| damaged(&format!("is damaged: {e}")))?;
        if tensor.data_location != EXTERNAL && tensor.external_data.is_empty() {
            return Ok(None);
        }
        let values = source.external_tensor_bytes(&tensor).ok_or_else(|| damaged("has truncated external weights"))?;
        let from = crate::bundle::ExternalReference::read(&source.graph().path, &tensor)?;
        let from = (from.location, from.offset, from.end);
        let entries = match self.moved.get(&from) {
            Some(entries) => entries.clone(),
            None => {
                let entries = self.data.append(values.len() as u64, |file| file.write_all(values))?;
                self.moved.insert(from, entries.clone());
                entries
            }
        };
        let mut body = self.rebuilt(place.body, place.end, |_, number, _| {
            Ok((number == number::TENSOR_EXTERNAL_DATA).then(Vec::new))
        })?;
        let now = TensorValues { external_data: entries, data_location: EXTERNAL, ..TensorValues::default() };
        body.extend(now.encode_to_vec());
        Ok(Some(framed(number, &body)))
    }

    /// Returns an unused name derived from a tensor's name.
    fn free_name(&self, of: &str, what: &str) -> String {
        let mut name = format!("{of}/{what}");
        while self.source.has_tensor(&name) {
            name.push('_');
        }
        name
    }
}

/// Creates a node that converts half precision to float32.
fn cast(from: &str, to: &str) -> NodeProto {
    let attribute: AttributeProto = int("to", i64::from(DType::F32.to_onnx()));
    node("Cast", &[from], to, vec![attribute])
}

/// Encodes a stored tensor with external values, as a field of the graph.
fn external_tensor(name: String, dims: &[i64], dtype: DType, entries: Vec<StringEntry>) -> Vec<u8> {
    let tensor = TensorValues {
        dims: dims.to_vec(),
        data_type: dtype.to_onnx(),
        name,
        external_data: entries,
        data_location: EXTERNAL,
        ..TensorValues::default()
    };
    framed(number::GRAPH_INITIALIZER, &tensor.encode_to_vec())
}

fn value_info(name: &str, dtype: DType, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&dim_value| Dimension { dim_value, ..Dimension::default() }).collect();
    let tensor_type = TensorType { elem_type: dtype.to_onnx(), shape: Some(ShapeProto { dim }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn framed(number: u64, body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(body.len() + 8);
    field(&mut whole, number as u32, body);
    whole
}
