//! Opening a graph on other weights than it stores.
//!
//! ONNX Runtime offers two ways to hand it values for an initializer. `AddInitializer` takes any, but only after the
//! graph was optimised: what folded or repacked the stored weight by then, as a convolution's is repacked on a
//! processor, goes on with the stored values and says nothing. `AddExternalInitializers` replaces them before
//! anything else is done, but only those that lie in a file beside the graph. So the values of weights within the
//! .onnx file are written over those in a private copy of its pages, and the runtime opens that.

use std::path::Path;

use memmap2::MmapOptions;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Tensor};

use crate::error::{Error, Result};
use crate::tensor::{ByteEdit, Weight, WeightPlace, WeightValues};

/// Where the runtime looks for files of weights of a graph that it is handed as bytes.
const FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// What is opened: a graph's file, or its bytes with the weights written into them.
pub(super) enum Source<'p> {
    File(&'p Path),
    Bytes(memmap2::MmapMut),
}

impl Source<'_> {
    pub(super) fn commit(&self, builder: &mut SessionBuilder) -> ort::Result<ort::session::Session> {
        match self {
            Self::File(path) => builder.commit_from_file(path),
            Self::Bytes(bytes) => builder.commit_from_memory(bytes),
        }
    }
}

/// Puts `weights` in the place of those that the graph in the file `path` stores.
///
/// Memory: a weight beside the graph lives as long as the session, held by its builder; of one inside, the pages that
/// hold it live until the graph is open.
pub(super) fn replace<'p>(
    mut builder: SessionBuilder,
    path: &'p Path,
    weights: Vec<Weight>,
    edits: &[ByteEdit],
    failed: impl Fn(ort::Error) -> Error,
) -> Result<(SessionBuilder, Source<'p>)> {
    let (inside, beside): (Vec<_>, Vec<_>) =
        weights.into_iter().partition(|weight| matches!(weight.place, WeightPlace::Inside(_)));
    for weight in beside {
        let name = weight.name.clone();
        let value = value(weight).map_err(&failed)?;
        builder = builder.with_external_initializer(name, value).map_err(|e| failed(e.into()))?;
    }
    if inside.is_empty() && edits.is_empty() {
        return Ok((builder, Source::File(path)));
    }
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, "opening", e))?;
    // SAFETY: what is written stays in this process. Should another process shorten the file meanwhile, reading it ends
    // this one, as it would for every program that maps its models.
    let mut bytes = unsafe { MmapOptions::new().map_copy(&file) }.map_err(|e| Error::io(path, "mapping", e))?;
    for weight in inside {
        let WeightPlace::Inside(start) = weight.place else { continue };
        let place = usize::try_from(start).ok().and_then(|start| bytes.get_mut(start..));
        let written = place.map(|place| (place.len(), weight.values.write_to(place)));
        if written.is_none_or(|(room, written)| written > room) {
            let problem = format!("weight {} is no longer where it was when the file was checked", weight.name);
            return Err(Error::model(path, problem, "the file was changed meanwhile; run again"));
        }
    }
    for edit in edits {
        match usize::try_from(edit.at).ok().and_then(|at| bytes.get_mut(at)).filter(|byte| **byte == edit.from) {
            Some(byte) => *byte = edit.to,
            None => {
                let problem = format!("byte {} is no longer {}, as when the file was checked", edit.at, edit.from);
                return Err(Error::model(path, problem, "the file was changed meanwhile; run again"));
            }
        }
    }
    // The runtime knows no folder of a graph that it is handed as bytes.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.to_string_lossy();
    builder = builder.with_config_entry(FOLDER, folder).map_err(|e| failed(e.into()))?;
    Ok((builder, Source::Bytes(bytes)))
}

fn value(weight: Weight) -> ort::Result<DynValue> {
    let shape = weight.shape;
    Ok(match weight.values {
        WeightValues::F32(values) => Tensor::from_array((shape, values))?.into_dyn(),
        WeightValues::F16(values) => Tensor::from_array((shape, values))?.into_dyn(),
        WeightValues::Bf16(values) => Tensor::from_array((shape, values))?.into_dyn(),
    })
}
