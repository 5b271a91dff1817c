//! Opens a graph with weights other than the stored ones.
//!
//! ONNX Runtime offers two ways to pass it values for an initializer. `AddInitializer` accepts any, but only after the
//! graph was optimized: nodes that were folded or repacked by then, such as a convolution on the CPU, silently keep the
//! stored values. `AddExternalInitializers` replaces them before anything else, but only those in an external file. So
//! weights inside the .onnx file are overwritten in a private copy of its pages, and the runtime opens that.

use std::path::Path;

use memmap2::{Mmap, MmapOptions};
use ort::AsPointer;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Tensor};

use super::WeightFile;
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::{ByteEdit, Weight, WeightLocation, WeightValues};

/// The option for the directory in which the runtime looks for weight files of a graph passed as bytes.
const FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// The graph to open: its file, or its bytes with the weights written into them.
pub(super) enum GraphSource<'p> {
    File(&'p Path),
    Bytes(memmap2::MmapMut),
    Given(Vec<u8>),
}

impl GraphSource<'_> {
    /// Returns the bytes, writable.
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

/// Replaces weights that the graph in the file `path` stores with `weights`. `given`, if any, is used instead of the
/// file and already has its `edits`.
///
/// Memory: the session's builder holds replaced external weights as long as the session lives; pages with replaced
/// internal weights live until the graph is open.
pub(super) fn replace<'p>(
    mut builder: SessionBuilder,
    path: &'p Path,
    given: Option<Vec<u8>>,
    weights: Vec<Weight>,
    edits: &[ByteEdit],
    failed: impl Fn(ort::Error) -> Error,
) -> Result<(SessionBuilder, GraphSource<'p>)> {
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
        Some(bytes) => GraphSource::Given(bytes),
        None if inside.is_empty() && grown.is_empty() && edits.is_empty() => GraphSource::File(path),
        None => {
            let file = files::open(path).map_err(|e| Error::io(path, "opening", e))?;
            // SAFETY: writes stay in this process. If another process shortens the file meanwhile, reading it ends this
            // process, as for every program that maps its models.
            GraphSource::Bytes(
                unsafe { MmapOptions::new().map_copy(&file) }.map_err(|e| Error::io(path, "mapping", e))?,
            )
        }
    };
    if let GraphSource::File(_) = source {
        return Ok((builder, source));
    }
    let bytes = source.bytes();
    write_within(bytes, path, inside, if is_given { &[] } else { edits })?;
    builder = found_beside(builder, path).map_err(&failed)?;
    match grown.as_slice() {
        [] => Ok((builder, source)),
        [weight] => match grow(bytes, weight) {
            Some(bytes) => Ok((builder, GraphSource::Given(bytes))),
            None => Err(moved(path, &weight.name)),
        },
        several => Err(Error::Graph {
            component: "graph".to_owned(),
            path: path.to_path_buf(),
            action: "opening",
            problem: format!("{} weights have to grow, and only one can", several.len()),
        }),
    }
}

/// Writes weights and edits into a graph's bytes.
fn write_within(bytes: &mut [u8], path: &Path, weights: Vec<Weight>, edits: &[ByteEdit]) -> Result<()> {
    for weight in weights {
        let WeightLocation::InGraph(start) = weight.location else { continue };
        let place = usize::try_from(start).ok().and_then(|start| bytes.get_mut(start..));
        let written = place.map(|place| (place.len(), weight.values.write_to(place)));
        if written.is_none_or(|(room, written)| written > room) {
            return Err(moved(path, &weight.name));
        }
    }
    for edit in edits {
        match usize::try_from(edit.at).ok().and_then(|at| bytes.get_mut(at)).filter(|byte| **byte == edit.from) {
            Some(byte) => *byte = edit.to,
            None => {
                let problem = format!("byte {} is no longer {}, as when the file was checked", edit.at, edit.from);
                return Err(Error::model(path, problem, "the file changed during the run; run again"));
            }
        }
    }
    Ok(())
}

fn moved(path: &Path, weight: &str) -> Error {
    let problem = format!("weight {weight} is no longer where it was when the file was checked");
    Error::model(path, problem, "the file changed during the run; run again")
}

/// Maps weight files and passes them to the runtime under the names that the graph gives them, so that it does not look
/// for them itself. The mappings have to outlive the session.
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
        // SAFETY: the mapping is read-only. If another process shortens the file meanwhile, reading it ends this
        // process, as for every program that maps its models.
        unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "mapping", e))
    };
    let maps = files.iter().map(map).collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = files.iter().map(|file| system_string(&file.location)).collect();
    let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let starts: Vec<_> = maps.iter().map(|map| map.as_ptr().cast_mut().cast()).collect();
    let lengths: Vec<_> = maps.iter().map(|map| map.len()).collect();
    // SAFETY: all arrays have the given length and live until the call returns, which copies the names. The caller
    // keeps the mapped bytes as long as the session. ONNX Runtime only reads them.
    let status = unsafe {
        (ort::api().AddExternalInitializersFromMemory)(
            builder.ptr_mut(),
            names.as_ptr(),
            starts.as_ptr(),
            lengths.as_ptr(),
            files.len(),
        )
    };
    // SAFETY: the call returned it, and nothing has released it yet.
    unsafe { ort::Error::result_from_status(status) }.map_err(failed)?;
    Ok(maps)
}

/// Encodes text as ONNX Runtime expects paths, with a final NUL. A name that contains NUL is cut there and will not be
/// found.
#[cfg(not(windows))]
fn system_string(text: &str) -> Vec<ort::sys::os_char> {
    text.bytes().chain([0]).map(|byte| ort::sys::os_char::from_ne_bytes([byte])).collect()
}

/// Encodes text as ONNX Runtime expects paths, with a final NUL.
#[cfg(windows)]
fn system_string(text: &str) -> Vec<ort::sys::os_char> {
    text.encode_utf16().chain([0]).collect()
}

/// Makes the runtime look for weight files in the directory of `path`: a graph passed as bytes has no directory.
fn found_beside(builder: SessionBuilder, path: &Path) -> ort::Result<SessionBuilder> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(builder.with_config_entry(FOLDER, folder.to_string_lossy())?)
}

/// Returns a graph's bytes with one initializer re-encoded to hold its values; `None` if it is not at the expected
/// offset.
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

/// Encodes a weight as a `TensorProto`.
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

/// Writes a protobuf varint: seven bits per byte, the lowest first.
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
