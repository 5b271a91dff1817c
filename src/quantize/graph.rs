//! One graph, written with its weights in fewer bits in a file beside it.

mod rebuilt_graph;
mod stored;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use prost::Message;

use super::half_precision::Errors;
use super::outcome::{Outcome, Progress, Weights, stop_if};
use super::select::{Selection, count};
use crate::bundle::proto::{
    Attribute, Dimension, EXTERNAL, Node, Shape, StringEntry, Tensor, TensorType, Type, ValueInfo,
};
use crate::bundle::{Component, frame};
use crate::error::{Error, Result};
use crate::rewrite::edits::{field, int, node};
use crate::rewrite::numbers::TensorValues;
use crate::rewrite::source::Source;
use crate::session::Cancel;
use crate::tensor::{DType, Field};

/// Where each tensor begins in the file beside the graph: at a page, so that it can be mapped by itself; smaller ones where
/// a line of the CPU's cache does.
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

/// Writes the graph of a component into the model directory `room`, at the place that it has in `model`.
pub fn write(
    model: &Path,
    room: &Path,
    component: &Component,
    weights: Weights,
    cancel: &Cancel,
    observer: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    let graph = &component.graph;
    let unusable = |problem: &str| Error::model(&graph.path, problem, "export the model again with opset 13 or later");
    if graph.ir_version < 4 || graph.opsets.get("").is_none_or(|&version| version < 13) {
        return Err(unusable("is of too old a format for weights that are widened as it runs"));
    }
    if graph.multiplies_in_integers() {
        let problem = "makes products of 8 bits already";
        return Err(Error::model(&graph.path, problem, "take the model's float32 export, or use this graph as it is"));
    }
    let place = graph.path.strip_prefix(model).map_err(|_| unusable("lies outside of the model directory"))?;
    let to = room.join(place);
    let failed = |e| Error::io(&to, "writing", e);
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let source = Source::open(graph)?;
    let selection = Selection::of(&source, weights);
    let beside = to.with_extension("onnx_data");
    let location = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let data = Data { file: BufWriter::new(File::create(&beside).map_err(failed)?), at: 0, location };
    let outcome = Outcome {
        component: component.kind.name(),
        graph: place.to_path_buf(),
        bytes_before: graph.file_bytes + graph.external.iter().map(|file| file.bytes).sum::<u64>(),
        bytes_after: 0,
        tensors: 0,
        unknown: selection.unknown,
        largest_error: 0.0,
        relative_error: 0.0,
        kept: Vec::new(),
    };
    let mut writer = Writer {
        source: &source,
        selection,
        data,
        moved: HashMap::new(),
        widened: Widened::default(),
        errors: Errors::default(),
        outcome,
        tell: &mut |done| observer(Progress { component: component.kind, done, of: graph.weight_bytes }),
        done: 0,
        cancel,
    };
    let bytes = writer.model()?;
    let Writer { mut data, errors, mut outcome, .. } = writer;
    data.file.flush().and_then(|()| data.file.get_ref().sync_all()).map_err(|e| Error::io(&beside, "writing", e))?;
    if bytes.len() > i32::MAX as usize {
        return Err(unusable("would have more than 2 GiB without its large weights"));
    }
    if data.at == 0 {
        std::fs::remove_file(&beside).map_err(|e| Error::io(&beside, "removing", e))?;
    }
    std::fs::write(&to, &bytes).map_err(failed)?;
    (outcome.largest_error, outcome.relative_error) = (errors.largest, errors.relative());
    outcome.bytes_after = bytes.len() as u64 + data.at;
    Ok(outcome)
}

/// The file beside the graph.
struct Data {
    file: BufWriter<File>,
    /// Bytes written.
    at: u64,
    location: String,
}

impl Data {
    /// Appends `length` bytes, which `write` writes, at the next place for so many, and gives what a tensor says of where they are.
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

/// What is added to the graph.
#[derive(Default)]
struct Widened {
    nodes: Vec<Node>,
    inputs: Vec<ValueInfo>,
    /// By the table's name, the name of the table in half precision.
    tables: HashMap<String, String>,
    /// By a matrix's name, the names of its 8-bit numbers and of its columns' scales.
    columns: HashMap<String, [String; 2]>,
    /// By the name of what such a matrix is multiplied by, the names of that in 8 bits, of its scale and of its zero.
    factors: HashMap<String, [String; 3]>,
}

struct Writer<'w> {
    source: &'w Source<'w>,
    selection: Selection,
    data: Data,
    /// Where tensors have gone, by where they were: some share their bytes.
    moved: HashMap<(String, u64, u64), Vec<StringEntry>>,
    widened: Widened,
    errors: Errors,
    outcome: Outcome,
    tell: &'w mut dyn FnMut(u64),
    done: u64,
    cancel: &'w Cancel,
}

impl Writer<'_> {
    /// The whole file.
    fn model(&mut self) -> Result<Vec<u8>> {
        let bytes = self.source.bytes();
        let place = self.source.place;
        // Tensors come first, since nodes depend on how they are stored.
        let mut tensors: Vec<(&Tensor, Field)> = self.source.stored().collect();
        tensors.sort_by_key(|(_, place)| place.start);
        let mut stored = HashMap::new();
        for (tensor, place) in tensors {
            stop_if(self.cancel)?;
            let written = self.stored(tensor, place)?;
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
                    // In front of all others: see `rewrite::late`.
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

    /// A message with those of its parts written anew for which `part` says how; all else byte for byte.
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

    /// Appends a node of the graph, or what stands in its place.
    fn node(&mut self, at: usize, place: Field, whole: &mut Vec<u8>) -> Result<()> {
        let body = match self.remade(at) {
            Some(nodes) => {
                nodes.iter().for_each(|node| field(whole, number::GRAPH_NODE as u32, &node.encode_to_vec()));
                return Ok(());
            }
            None => self.moved_node(place)?,
        };
        field(whole, number::GRAPH_NODE as u32, &body);
        Ok(())
    }

    /// The body of a node whose tensors, and those of graphs within, may lie beside the graph.
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

    /// A tensor as it is, its values moved where they lie beside the graph; `None` where they do not.
    fn moved_tensor(&mut self, number: u64, place: Field) -> Result<Option<Vec<u8>>> {
        let source = self.source;
        let damaged = |what: &str| Error::model(&source.graph().path, what, "export the model again");
        let message = source.bytes().get(place.body..place.end).unwrap_or_default();
        let tensor = Tensor::decode(message).map_err(|e| damaged(&format!("is damaged: {e}")))?;
        if tensor.data_location != EXTERNAL && tensor.external_data.is_empty() {
            return Ok(None);
        }
        let values = source.bytes_beside(&tensor).ok_or_else(|| damaged("keeps weights beside it that are cut off"))?;
        let from = crate::bundle::Reference::read(&source.graph().path, &tensor)?;
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

    /// A name for what is stored or made beside a tensor.
    fn free_name(&self, of: &str, what: &str) -> String {
        let mut name = format!("{of}/{what}");
        while self.source.knows(&name) {
            name.push('_');
        }
        name
    }
}

/// A node that widens half precision.
fn cast(from: &str, to: &str) -> Node {
    let attribute: Attribute = int("to", i64::from(DType::F32.to_onnx()));
    node("Cast", &[from], to, vec![attribute])
}

/// A stored tensor whose values lie beside the graph, as a field of it.
fn beside(name: String, dims: &[i64], dtype: DType, entries: Vec<StringEntry>) -> Vec<u8> {
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

fn value_info(name: &str, dtype: DType, dims: &[i64]) -> ValueInfo {
    let dim = dims.iter().map(|&dim_value| Dimension { dim_value, ..Dimension::default() }).collect();
    let tensor_type = TensorType { elem_type: dtype.to_onnx(), shape: Some(Shape { dim }) };
    ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
}

fn framed(number: u64, body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(body.len() + 8);
    field(&mut whole, number as u32, body);
    whole
}
