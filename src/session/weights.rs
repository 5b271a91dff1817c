//! Opening a graph on other weights than it stores.
//!
//! ONNX Runtime offers two ways to hand it values for an initializer. `AddInitializer` takes any, but only after the
//! graph was optimized: what folded or repacked the stored weight by then, as a convolution's is repacked on a
//! processor, goes on with the stored values and says nothing. `AddExternalInitializers` replaces them before
//! anything else is done, but only those that lie in a file beside the graph. So the values of weights within the
//! .onnx file are written over those in a private copy of its pages, and the runtime opens that.

use std::path::Path;

use memmap2::{Mmap, MmapOptions};
use ort::AsPointer;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Tensor};

use super::WeightFile;
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::{ByteEdit, Weight, WeightLocation, WeightValues};

/// Where the runtime looks for files of weights of a graph that it is handed as bytes.
const FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// What is opened: a graph's file, or its bytes with the weights written into them.
pub(super) enum Source<'p> {
    File(&'p Path),
    Bytes(memmap2::MmapMut),
    Given(Vec<u8>),
}

impl Source<'_> {
    /// The bytes, where they may be written over.
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::File(_) => &mut [],
            Self::Bytes(bytes) => bytes,
            Self::Given(bytes) => bytes,
        }
    }

    pub(super) fn commit(&self, builder: &mut SessionBuilder) -> ort::Result<ort::session::Session> {
        match self {
            Self::File(path) => builder.commit_from_file(path),
            Self::Bytes(bytes) => builder.commit_from_memory(bytes),
            Self::Given(bytes) => builder.commit_from_memory(bytes),
        }
    }
}

/// Puts `weights` in the place of those that the graph in the file `path` stores, or the graph `given` that stands for it
/// and has its `edits` in it.
///
/// Memory: a weight beside the graph lives as long as the session, held by its builder; of one inside, the pages that
/// hold it live until the graph is open.
pub(super) fn replace<'p>(
    mut builder: SessionBuilder,
    path: &'p Path,
    given: Option<Vec<u8>>,
    weights: Vec<Weight>,
    edits: &[ByteEdit],
    failed: impl Fn(ort::Error) -> Error,
) -> Result<(SessionBuilder, Source<'p>)> {
    let (grown, weights): (Vec<_>, Vec<_>) =
        weights.into_iter().partition(|weight| matches!(weight.location, WeightLocation::Resized { .. }));
    let (inside, beside): (Vec<_>, Vec<_>) =
        weights.into_iter().partition(|weight| matches!(weight.location, WeightLocation::InGraph(_)));
    for weight in beside {
        let name = weight.name.clone();
        let value = value(weight).map_err(&failed)?;
        builder = builder.with_external_initializer(name, value).map_err(|e| failed(e.into()))?;
    }
    let is_given = given.is_some();
    let mut source = match given {
        Some(bytes) => Source::Given(bytes),
        None if inside.is_empty() && grown.is_empty() && edits.is_empty() => Source::File(path),
        None => {
            let file = files::open(path).map_err(|e| Error::io(path, "opening", e))?;
            // SAFETY: what is written stays in this process. Should another process shorten the file meanwhile, reading it
            // ends this one, as it would for every program that maps its models.
            Source::Bytes(unsafe { MmapOptions::new().map_copy(&file) }.map_err(|e| Error::io(path, "mapping", e))?)
        }
    };
    if let Source::File(_) = source {
        return Ok((builder, source));
    }
    let bytes = source.bytes();
    for weight in inside {
        let WeightLocation::InGraph(start) = weight.location else { continue };
        let place = usize::try_from(start).ok().and_then(|start| bytes.get_mut(start..));
        let written = place.map(|place| (place.len(), weight.values.write_to(place)));
        if written.is_none_or(|(room, written)| written > room) {
            let problem = format!("weight {} is no longer where it was when the file was checked", weight.name);
            return Err(Error::model(path, problem, "the file was changed meanwhile; run again"));
        }
    }
    for edit in edits.iter().filter(|_| !is_given) {
        match usize::try_from(edit.at).ok().and_then(|at| bytes.get_mut(at)).filter(|byte| **byte == edit.from) {
            Some(byte) => *byte = edit.to,
            None => {
                let problem = format!("byte {} is no longer {}, as when the file was checked", edit.at, edit.from);
                return Err(Error::model(path, problem, "the file was changed meanwhile; run again"));
            }
        }
    }
    builder = found_beside(builder, path).map_err(&failed)?;
    match grown.as_slice() {
        [] => Ok((builder, source)),
        [weight] => match grow(bytes, weight) {
            Some(bytes) => Ok((builder, Source::Given(bytes))),
            None => {
                let problem = format!("weight {} is no longer where it was when the file was checked", weight.name);
                Err(Error::model(path, problem, "the file was changed meanwhile; run again"))
            }
        },
        several => Err(Error::Graph {
            component: "graph".to_owned(),
            path: path.to_path_buf(),
            action: "opening",
            problem: format!("{} weights are to grow at once, and one can", several.len()),
        }),
    }
}

/// Maps files of weights and hands them to the runtime under the names that the graph has for them, so that it looks for
/// none of them itself. The mappings have to outlive the session.
pub(super) fn hand_over(
    builder: &mut SessionBuilder,
    files: &[WeightFile],
    failed: impl Fn(ort::Error) -> Error,
) -> Result<Vec<Mmap>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let map = |WeightFile { path, .. }: &WeightFile| {
        let file = files::open(path).map_err(|e| Error::io(path, "opening", e))?;
        // SAFETY: the mapping is read-only. Should another process shorten the file meanwhile, reading it ends this one, as
        // it would for every program that maps its models.
        unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "mapping", e))
    };
    let maps = files.iter().map(map).collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = files.iter().map(|file| system_string(&file.location)).collect();
    let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let starts: Vec<_> = maps.iter().map(|map| map.as_ptr().cast_mut().cast()).collect();
    let lengths: Vec<_> = maps.iter().map(|map| map.len()).collect();
    // SAFETY: the arrays are all of the length given and live until the call returns, which copies the names; the bytes
    // live in the mappings, which the caller keeps as long as the session. ONNX Runtime only reads them.
    let status = unsafe {
        (ort::api().AddExternalInitializersFromMemory)(
            builder.ptr_mut(),
            names.as_ptr(),
            starts.as_ptr(),
            lengths.as_ptr(),
            files.len(),
        )
    };
    // SAFETY: what the call returned, and not released by anyone yet.
    unsafe { ort::Error::result_from_status(status) }.map_err(failed)?;
    Ok(maps)
}

/// A text as ONNX Runtime takes paths, with a NUL behind it. A name that holds one itself ends there, and is found by
/// nobody.
#[cfg(not(windows))]
fn system_string(text: &str) -> Vec<ort::sys::os_char> {
    text.bytes().chain([0]).map(|byte| byte as ort::sys::os_char).collect()
}

/// A text as ONNX Runtime takes paths, with a NUL behind it.
#[cfg(windows)]
fn system_string(text: &str) -> Vec<ort::sys::os_char> {
    text.encode_utf16().chain([0]).collect()
}

/// Has the runtime look for files of weights beside `path`: it knows no folder of a graph that it is handed as bytes.
fn found_beside(builder: SessionBuilder, path: &Path) -> ort::Result<SessionBuilder> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(builder.with_config_entry(FOLDER, folder.to_string_lossy())?)
}

/// A graph's bytes with one initializer written anew, its values within; `None` where it does not lie where it should.
fn grow(bytes: &[u8], weight: &Weight) -> Option<Vec<u8>> {
    /// The first bytes of the fields `ModelProto.graph` and `GraphProto.initializer`.
    const GRAPH: u8 = 7 << 3 | 2;
    const INITIALIZER: u8 = 5 << 3 | 2;
    let WeightLocation::Resized { graph, tensor } = weight.location else { return None };
    if bytes.get(graph.start) != Some(&GRAPH) || bytes.get(tensor.start) != Some(&INITIALIZER) {
        return None;
    }
    let (before, behind) = (bytes.get(graph.body..tensor.start)?, bytes.get(tensor.end..graph.end)?);
    let written = initializer(weight);
    let mut head = vec![INITIALIZER];
    varint(&mut head, written.len() as u64);
    let mut grown = Vec::with_capacity(bytes.len() + written.len() + 32);
    grown.extend_from_slice(bytes.get(..graph.start)?);
    grown.push(GRAPH);
    varint(&mut grown, (before.len() + head.len() + written.len() + behind.len()) as u64);
    for part in [before, &head, &written, behind, bytes.get(graph.end..)?] {
        grown.extend_from_slice(part);
    }
    Some(grown)
}

/// A weight as a `TensorProto`.
fn initializer(weight: &Weight) -> Vec<u8> {
    /// The first bytes of the fields `dims`, `data_type`, `name` and `raw_data`.
    const DIMS: u8 = 1 << 3;
    const DATA_TYPE: u8 = 2 << 3;
    const NAME: u8 = 8 << 3 | 2;
    const RAW_DATA: u8 = 9 << 3 | 2;
    let (data_type, size) = match &weight.values {
        WeightValues::F32(values) => (1, 4 * values.len()),
        WeightValues::F16(values) => (10, 2 * values.len()),
        WeightValues::Bf16(values) => (16, 2 * values.len()),
    };
    let mut out = Vec::with_capacity(size + weight.name.len() + 64);
    for &length in &weight.shape {
        out.push(DIMS);
        varint(&mut out, length as u64);
    }
    out.push(DATA_TYPE);
    varint(&mut out, data_type);
    out.push(NAME);
    varint(&mut out, weight.name.len() as u64);
    out.extend_from_slice(weight.name.as_bytes());
    out.push(RAW_DATA);
    varint(&mut out, size as u64);
    let start = out.len();
    out.resize(start + size, 0);
    if let Some(place) = out.get_mut(start..) {
        weight.values.write_to(place);
    }
    out
}

/// Writes a number as protobuf does: seven bits a byte, the lowest first.
pub(super) fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn value(weight: Weight) -> ort::Result<DynValue> {
    let shape = weight.shape;
    Ok(match weight.values {
        WeightValues::F32(values) => Tensor::from_array((shape, values))?.into_dyn(),
        WeightValues::F16(values) => Tensor::from_array((shape, values))?.into_dyn(),
        WeightValues::Bf16(values) => Tensor::from_array((shape, values))?.into_dyn(),
    })
}
