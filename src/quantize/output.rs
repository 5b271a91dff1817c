//! The output of a graph: its file, and the external file of its weights.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use prost::Message;

use super::half_precision::ErrorStats;
use super::outcome::{QuantizeProgress, QuantizedGraph};
use crate::bundle::proto::{EXTERNAL, StringEntry, TensorProto};
use crate::bundle::{Component, GraphFile, frame};
use crate::error::{Error, Result};
use crate::rewrite::edits::field;
use crate::rewrite::indexed_graph::IndexedGraph;
use crate::rewrite::numbers::TensorValues;
use crate::session::Cancel;
use crate::tensor::{DType, Field};

/// The alignment of tensors in the external file: a page, so that each can be mapped separately; a cache line for
/// smaller ones.
const PAGE: u64 = 4096;
const LINE: u64 = 64;

/// Field numbers of ONNX's messages.
pub mod number {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_NODE: u64 = 1;
    pub const GRAPH_INITIALIZER: u64 = 5;
    pub const GRAPH_INPUT: u64 = 11;
    pub const GRAPH_VALUE_INFO: u64 = 13;
    pub const NODE_INPUT: u64 = 1;
    pub const NODE_OUTPUT: u64 = 2;
    pub const NODE_ATTRIBUTE: u64 = 5;
    pub const ATTRIBUTE_TENSORS: [u64; 2] = [5, 10];
    pub const ATTRIBUTE_GRAPHS: [u64; 2] = [6, 11];
    pub const TENSOR_EXTERNAL_DATA: u64 = 13;
}

/// The destination of a component's graph.
pub struct Destination<'d> {
    /// The model directory that is read.
    pub model: &'d Path,
    /// The model directory that is written.
    pub room: &'d Path,
    /// Stops the work.
    pub cancel: &'d Cancel,
}

/// The external file.
struct ExternalData {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes written.
    at: u64,
    location: String,
}

/// A graph's new files.
pub struct GraphOutput<'w> {
    /// The graph that is read.
    pub source: &'w IndexedGraph<'w>,
    /// The errors of the weights.
    pub errors: ErrorStats,
    /// The result.
    pub outcome: QuantizedGraph,
    data: ExternalData,
    path: PathBuf,
    /// The new locations of tensors by the old ones: some share their bytes.
    moved: HashMap<(String, u64, u64), Vec<StringEntry>>,
    tell: &'w mut dyn FnMut(u64),
    done: u64,
    cancel: &'w Cancel,
}

impl<'w> GraphOutput<'w> {
    /// Creates the files of `component`, whose parsed graph is `source`, at its relative path. `tell` receives the bytes of
    /// the weights that have been read.
    pub fn create(
        to: &'w Destination<'_>,
        component: &Component,
        source: &'w IndexedGraph<'w>,
        tell: &'w mut dyn FnMut(u64),
    ) -> Result<Self> {
        let graph = &component.graph;
        let place = graph.path.strip_prefix(to.model);
        let place = place.map_err(|_| unusable(graph, "is outside of the model directory"))?;
        let path = to.room.join(place);
        let failed = |e| Error::io(&path, "writing", e);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let beside = path.with_extension("onnx_data");
        let location = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = BufWriter::new(File::create(&beside).map_err(failed)?);
        let outcome = QuantizedGraph {
            component: component.kind.name(),
            graph: place.to_path_buf(),
            bytes_before: graph.file_bytes + graph.external.iter().map(|file| file.bytes).sum::<u64>(),
            ..QuantizedGraph::default()
        };
        Ok(Self {
            source,
            errors: ErrorStats::default(),
            outcome,
            data: ExternalData { path: beside, file, at: 0, location },
            path,
            moved: HashMap::new(),
            tell,
            done: 0,
            cancel: to.cancel,
        })
    }

    /// Writes the graph's file, whose bytes are `bytes`, after its weights.
    pub fn finish(mut self, bytes: &[u8]) -> Result<QuantizedGraph> {
        let Self { source, errors, outcome, data, path, .. } = &mut self;
        data.file
            .flush()
            .and_then(|()| data.file.get_ref().sync_all())
            .map_err(|e| Error::io(&data.path, "writing", e))?;
        if bytes.len() > i32::MAX as usize {
            return Err(unusable(source.graph(), "would exceed 2 GiB without its large weights"));
        }
        if data.at == 0 {
            std::fs::remove_file(&data.path).map_err(|e| Error::io(&data.path, "removing", e))?;
        }
        std::fs::write(&*path, bytes).map_err(|e| Error::io(path.as_path(), "writing", e))?;
        (outcome.largest_error, outcome.relative_error) = (errors.largest, errors.relative());
        outcome.bytes_after = bytes.len() as u64 + data.at;
        Ok(self.outcome)
    }

    /// Reports that `values` more values have been read.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the work is stopped.
    pub fn advance(&mut self, values: usize) -> Result<()> {
        self.cancel.check()?;
        self.done += values as u64 * 4;
        (self.tell)(self.done);
        Ok(())
    }

    /// Appends `length` bytes, which `write` writes, to the external file with the alignment for that size, and returns the
    /// tensor's external data entries.
    pub fn append(
        &mut self,
        length: u64,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<Vec<StringEntry>> {
        let data = &mut self.data;
        let offset = data.at.next_multiple_of(if length < PAGE { LINE } else { PAGE });
        let gap = vec![0; usize::try_from(offset - data.at).unwrap_or_default()];
        let written = data.file.write_all(&gap).and_then(|()| write(&mut data.file));
        written.map_err(|e| Error::io(&data.path, "writing", e))?;
        data.at = offset + length;
        let entry = |key: &str, value: String| StringEntry { key: key.to_owned(), value };
        Ok(vec![
            entry("location", data.location.clone()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ])
    }

    /// Returns an error about the graph.
    pub fn damaged(&self, problem: &str) -> Error {
        Error::model(&self.source.graph().path, problem, "export the model again")
    }

    /// Returns the whole file with another graph.
    pub fn model(&self, graph: &[u8]) -> Vec<u8> {
        let (bytes, place) = (self.source.bytes(), self.source.place);
        let mut whole = bytes.get(..place.start).unwrap_or_default().to_vec();
        field(&mut whole, number::MODEL_GRAPH as u32, graph);
        whole.extend_from_slice(bytes.get(place.end..).unwrap_or_default());
        whole
    }

    /// Rewrites the body of a node whose tensors, and those of its subgraphs, may be external.
    pub fn moved_node(&mut self, place: Field) -> Result<Vec<u8>> {
        rebuilt(self.source, place.body..place.end, |number, attribute| {
            if number == number::NODE_ATTRIBUTE { self.moved_attribute(attribute).map(Some) } else { Ok(None) }
        })
    }

    /// Rewrites an attribute of such a node.
    pub fn moved_attribute(&mut self, place: Field) -> Result<Vec<u8>> {
        let source = self.source;
        let body = rebuilt(source, place.body..place.end, |number, part| match number {
            _ if number::ATTRIBUTE_TENSORS.contains(&number) => self.moved_tensor(number, part),
            _ if number::ATTRIBUTE_GRAPHS.contains(&number) => {
                let body = rebuilt(source, part.body..part.end, |number, part| match number {
                    number::GRAPH_NODE => Ok(Some(framed(number, &self.moved_node(part)?))),
                    number::GRAPH_INITIALIZER => self.moved_tensor(number, part),
                    _ => Ok(None),
                })?;
                Ok(Some(framed(number, &body)))
            }
            _ => Ok(None),
        })?;
        Ok(framed(number::NODE_ATTRIBUTE, &body))
    }

    /// Returns a tensor with its external values moved; `None` if it has none.
    pub fn moved_tensor(&mut self, number: u64, place: Field) -> Result<Option<Vec<u8>>> {
        let source = self.source;
        let message = source.bytes().get(place.body..place.end).unwrap_or_default();
        let tensor = TensorProto::decode(message).map_err(|e| self.damaged(&format!("is damaged: {e}")))?;
        if tensor.data_location != EXTERNAL && tensor.external_data.is_empty() {
            return Ok(None);
        }
        let truncated = || self.damaged("has truncated external weights");
        let values = source.external_tensor_bytes(&tensor).ok_or_else(truncated)?;
        let from = crate::bundle::ExternalReference::read(&source.graph().path, &tensor)?;
        let from = (from.location, from.offset, from.end);
        let entries = match self.moved.get(&from) {
            Some(entries) => entries.clone(),
            None => {
                let entries = self.append(values.len() as u64, |file| file.write_all(values))?;
                self.moved.insert(from, entries.clone());
                entries
            }
        };
        let mut body = rebuilt(source, place.body..place.end, |number, _| {
            Ok((number == number::TENSOR_EXTERNAL_DATA).then(Vec::new))
        })?;
        let now = TensorValues { external_data: entries, data_location: EXTERNAL, ..TensorValues::default() };
        body.extend(now.encode_to_vec());
        Ok(Some(framed(number, &body)))
    }

    /// Returns a stored tensor, with its external values moved.
    pub fn unchanged_tensor(&mut self, place: Field) -> Result<Vec<u8>> {
        let moved = self.moved_tensor(number::GRAPH_INITIALIZER, place)?;
        let as_it_stands = || self.source.bytes().get(place.start..place.end).unwrap_or_default().to_vec();
        Ok(moved.unwrap_or_else(as_it_stands))
    }
}

/// Rewrites the parts of a message of the graph for which `part` returns a replacement; copies the others byte for byte.
pub fn rebuilt(
    source: &IndexedGraph<'_>,
    message: Range<usize>,
    mut part: impl FnMut(u64, Field) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<u8>> {
    let bytes = source.bytes();
    let mut parts = Vec::new();
    frame::whole_fields(bytes, message.clone(), |number, place| parts.push((number, place)))
        .ok_or_else(|| Error::model(&source.graph().path, "is damaged", "export the model again"))?;
    let mut whole = Vec::with_capacity(message.len());
    let mut at = message.start;
    for (number, place) in parts {
        if let Some(new) = part(number, place)? {
            whole.extend_from_slice(bytes.get(at..place.start).unwrap_or_default());
            whole.extend_from_slice(&new);
            at = place.end;
        }
    }
    whole.extend_from_slice(bytes.get(at..message.end).unwrap_or_default());
    Ok(whole)
}

/// Checks that a graph can be quantized.
pub fn check(graph: &GraphFile) -> Result<()> {
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

/// Returns a callback for [`GraphOutput::create`] that reports to `observer`.
pub fn observed<'o>(
    component: &'o Component,
    observer: &'o mut dyn FnMut(QuantizeProgress),
) -> impl FnMut(u64) + use<'o> {
    move |done| observer(QuantizeProgress { component: component.kind, done, total: component.graph.weight_bytes })
}

/// Encodes a stored tensor with external values, as a field of the graph.
pub fn external_tensor(name: String, dims: &[i64], dtype: DType, entries: Vec<StringEntry>) -> Vec<u8> {
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

/// Returns a message as a field.
pub fn framed(number: u64, body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(body.len() + 8);
    field(&mut whole, number as u32, body);
    whole
}
