//! Reads LoRA files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use ndarray::Array2;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};

use super::alpha::Alphas;
use super::names::{ForeignTensor, LoraTarget, MatrixRole, TensorKey, flatten_name};
use crate::error::{Error, Result};
use crate::files;
use crate::guard::contain;
use crate::tensor::{DType, WeightValues};

const AGAIN: &str = "download or copy the file again";

/// A LoRA file: the modules that it changes. Its matrices are read on demand.
pub struct LoraFile {
    path: PathBuf,
    bytes: Mmap,
    /// The modules it changes, by part and name, with `_` for `.`.
    pub modules: BTreeMap<(LoraTarget, String), Module>,
    /// Tensors of changes other than plain LoRA.
    pub foreign: Vec<(String, ForeignTensor)>,
    /// Modules with an alpha and without matrices.
    pub alphas_only: Vec<(LoraTarget, String)>,
    /// The base model in the file's header, if any.
    pub base_model: Option<String>,
}

/// A module's change: `scale · alpha / rank · up · down`.
pub struct Module {
    /// The module's name in the file.
    pub written: String,
    down: StoredTensor,
    up: StoredTensor,
    /// alpha / rank.
    pub factor: f32,
}

/// A matrix, a kernel or a number in the file.
#[derive(Clone)]
struct StoredTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    place: Range<usize>,
}

/// The pieces of one module while the file is being read.
#[derive(Default)]
struct ModulePieces {
    written: String,
    /// The position of its first matrix in the file.
    order: usize,
    down: Option<StoredTensor>,
    up: Option<StoredTensor>,
    alpha: Option<f32>,
}

impl LoraFile {
    /// Reads the modules that a file changes.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Model`] if it is not a safetensors file, is truncated, or contains
    /// no plain LoRA.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = map(path)?;
        let read =
            contain(|| SafeTensors::read_metadata(&bytes)).map_err(|e| Error::model(path, e.to_string(), AGAIN))?;
        let (header, metadata) = read.map_err(|e| not_safetensors(path, &bytes, &e))?;
        // The data follows eight bytes of length and the header of that length.
        let data = header + 8;
        let mut pieces: BTreeMap<(LoraTarget, String), ModulePieces> = BTreeMap::new();
        let mut foreign = Vec::new();
        for (order, name) in metadata.offset_keys().into_iter().enumerate() {
            let (Some(info), key) = (metadata.info(&name), TensorKey::parse(&name)) else { continue };
            let key = match key {
                Ok(key) => key,
                Err(what) => {
                    foreign.push((name, what));
                    continue;
                }
            };
            let stored = StoredTensor::new(info, data);
            let piece = pieces.entry((key.part, flatten_name(&key.module))).or_default();
            match key.role {
                MatrixRole::Alpha => piece.alpha = Some(stored.scalar(path, &name, &bytes)?),
                MatrixRole::Down => piece.down = Some(stored.require_float(path, &name)?),
                MatrixRole::Up => (piece.up, piece.order) = (Some(stored.require_float(path, &name)?), order),
            }
            piece.written = key.module;
        }
        let alphas_only = pieces.extract_if(.., |_, piece| piece.down.is_none() && piece.up.is_none());
        let alphas_only = alphas_only.map(|((part, _), piece)| (part, piece.written)).collect();
        let base_model = metadata.metadata().as_ref().and_then(base_model);
        let modules = join(path, pieces, &metadata)?;
        let file = Self { path: path.to_path_buf(), bytes, modules, foreign, alphas_only, base_model };
        match file.modules.is_empty() {
            true => Err(file.refuse(&file.foreign.iter().collect::<Vec<_>>())),
            false => Ok(file),
        }
    }

    /// Returns the error for tensors that are not plain LoRA; the list may be empty.
    pub fn refuse(&self, foreign: &[&(String, ForeignTensor)]) -> Error {
        let Some((name, ForeignTensor { kind, .. })) = foreign.first() else {
            let problem =
                if self.alphas_only.is_empty() { "contains no LoRA" } else { "contains alphas but no matrices" };
            return Error::model(&self.path, problem, "use a LoRA's .safetensors file");
        };
        let more = if foreign.len() > 1 { format!(" and {} more like it", foreign.len() - 1) } else { String::new() };
        match kind {
            Some(kind) => Error::model(
                &self.path,
                format!("contains {kind}: tensor {name}{more}"),
                "only plain LoRA is supported; extract a plain LoRA from it with the trainer's tools",
            ),
            None => Error::model(
                &self.path,
                format!("tensor {name}{more} does not follow a known LoRA naming (kohya, diffusers, PEFT)"),
                "set [[lora]] path to a LoRA's .safetensors file, not a whole model",
            ),
        }
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Computes the change of a module's weight at scale 1: `[out, in · kernel]`.
    ///
    /// # Errors
    /// [`Error::Model`] if the file changed since it was opened.
    pub fn delta(&self, module: &Module) -> Result<Array2<f32>> {
        let (rank, inputs) = (module.rank(), module.down.shape.iter().skip(1).product());
        let matrix = |stored: &StoredTensor, rows: usize, columns: usize| {
            let values = self.bytes.get(stored.place.clone()).and_then(|bytes| floats(bytes, stored.dtype));
            let array = values.and_then(|values| Array2::from_shape_vec((rows, columns), values).ok());
            array.ok_or_else(|| Error::model(&self.path, "changed while it was read", "run again"))
        };
        let up = matrix(&module.up, module.outputs(), rank)?;
        let down = matrix(&module.down, rank, inputs)?;
        Ok(up.dot(&down) * module.factor)
    }
}

impl Module {
    /// Returns the rank of the change.
    pub fn rank(&self) -> usize {
        self.down.shape.first().copied().unwrap_or(0)
    }

    fn outputs(&self) -> usize {
        self.up.shape.first().copied().unwrap_or(0)
    }

    /// Returns the shape of the changed weight: `[out, in]`, followed by the kernel's sides if any.
    pub fn shape(&self) -> Vec<usize> {
        std::iter::once(self.outputs()).chain(self.down.shape.iter().skip(1).copied()).collect()
    }
}

impl StoredTensor {
    fn new(info: &TensorInfo, data: usize) -> Self {
        let (start, end) = info.data_offsets;
        let place = data.saturating_add(start)..data.saturating_add(end);
        Self { dtype: info.dtype, shape: info.shape.clone(), place }
    }

    /// Checks that the tensor has a floating-point type.
    fn require_float(self, path: &Path, name: &str) -> Result<Self> {
        match self.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64 => Ok(self),
            other => {
                let problem =
                    format!("tensor {name} is of type {other:?}; expected float32, float16, bfloat16 or float64");
                Err(Error::model(path, problem, "save the LoRA in one of these types"))
            }
        }
    }

    fn scalar(&self, path: &Path, name: &str, bytes: &[u8]) -> Result<f32> {
        let values = bytes.get(self.place.clone()).and_then(|bytes| floats(bytes, self.dtype));
        match values.as_deref() {
            Some([alpha]) if alpha.is_finite() => Ok(*alpha),
            None => {
                let problem = format!("tensor {name} is of type {:?}; expected a float or an integer", self.dtype);
                Err(Error::model(path, problem, "save the LoRA in float32"))
            }
            _ => Err(Error::model(path, format!("tensor {name}: expected one finite number"), "the file is damaged")),
        }
    }
}

/// Reads little-endian floating-point numbers as `f32`, rounded to nearest; `None` for other element types.
fn floats(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    fn all<const N: usize>(bytes: &[u8], number: fn([u8; N]) -> f32) -> Option<Vec<f32>> {
        Some(bytes.as_chunks::<N>().0.iter().copied().map(number).collect())
    }
    match dtype {
        Dtype::F32 => WeightValues::widen(bytes, DType::F32),
        Dtype::F16 => WeightValues::widen(bytes, DType::F16),
        Dtype::BF16 => WeightValues::widen(bytes, DType::Bf16),
        Dtype::F64 => all(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::I64 => all(bytes, |b| i64::from_le_bytes(b) as f32),
        Dtype::U64 => all(bytes, |b| u64::from_le_bytes(b) as f32),
        Dtype::I32 => all(bytes, |b| i32::from_le_bytes(b) as f32),
        Dtype::U32 => all(bytes, |b| u32::from_le_bytes(b) as f32),
        Dtype::I16 => all(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::U16 => all(bytes, |b| u16::from_le_bytes(b).into()),
        Dtype::I8 => all(bytes, |b| i8::from_le_bytes(b).into()),
        Dtype::U8 => all(bytes, |b| u8::from_le_bytes(b).into()),
        _ => None,
    }
}

/// Joins the pieces of every module, and checks that each has two matrices of matching shapes.
fn join(
    path: &Path,
    pieces: BTreeMap<(LoraTarget, String), ModulePieces>,
    metadata: &Metadata,
) -> Result<BTreeMap<(LoraTarget, String), Module>> {
    let mut alphas = Alphas::new(metadata.metadata().as_ref());
    let mut whole = Vec::new();
    for ((part, name), piece) in pieces {
        let ModulePieces { written, order, down, up, alpha } = piece;
        let (Some(down), Some(up)) = (down, up) else {
            let problem = format!("module {written} is incomplete: it lacks a matrix (down or A, up or B)");
            return Err(Error::model(path, problem, "the file is damaged, or of an unknown kind"));
        };
        let rank = down.shape.first().copied().unwrap_or(0);
        let is_matrix = down.shape.len() >= 2 && up.shape.len() >= 2 && rank > 0;
        if !is_matrix || up.shape.get(1) != Some(&rank) || up.shape.iter().skip(2).any(|&n| n != 1) {
            let problem = format!(
                "module {written}: its matrices are {:?} and {:?}; expected [rank, in, …] and [out, rank], with a \
                 kernel in the first alone",
                down.shape, up.shape
            );
            return Err(Error::model(path, problem, "the file is damaged, or of an unknown kind"));
        }
        alphas.take(part, &name, order, rank, alpha);
        whole.push(((part, name), written, down, up, alpha));
    }
    let module =
        |(key, written, down, up, alpha): ((LoraTarget, String), String, StoredTensor, StoredTensor, Option<f32>)| {
            let rank = down.shape.first().copied().unwrap_or(1);
            let factor = alphas.factor(key.0, &key.1, rank, alpha);
            (key, Module { written, down, up, factor })
        };
    Ok(whole.into_iter().map(module).collect())
}

fn map(path: &Path) -> Result<Mmap> {
    let file = files::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::model(path, "no such file", "set [[lora]] path to a .safetensors file"),
        std::io::ErrorKind::IsADirectory => {
            Error::model(path, "is a directory", "set [[lora]] path to the .safetensors file in it")
        }
        _ => Error::io(path, "reading", e),
    })?;
    let metadata = file.metadata().map_err(|e| Error::io(path, "reading", e))?;
    if metadata.len() == 0 {
        return Err(Error::model(path, "the file is empty", "download or copy it again"));
    }
    // SAFETY: the mapping is read-only. If another process shortens the file meanwhile, reading it ends this process,
    // as for every program that maps its models.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "mapping", e))
}

fn not_safetensors(path: &Path, bytes: &[u8], error: &SafeTensorError) -> Error {
    let head = bytes.get(..64).unwrap_or(bytes).trim_ascii_start();
    let (problem, help) = if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        ("is a Git LFS pointer, not the file it points to".to_owned(), "fetch the file itself with `git lfs pull`")
    } else if head.first() == Some(&b'<') {
        ("is a web page, not a safetensors file".to_owned(), "download the file itself")
    } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80]) {
        ("is a PyTorch pickle, which runs code when it is read".to_owned(), "use the .safetensors file of this LoRA")
    } else if matches!(error, SafeTensorError::MetadataIncompleteBuffer) {
        let problem =
            format!("the file is truncated: it has {} bytes, and its header describes another number", bytes.len());
        (problem, AGAIN)
    } else {
        (format!("is not a whole safetensors file: {error}"), AGAIN)
    };
    Error::model(path, problem, help)
}

/// Returns the base model that kohya's scripts and Stability AI's convention record.
fn base_model(header: &std::collections::HashMap<String, String>) -> Option<String> {
    ["modelspec.architecture", "ss_base_model_version"].iter().find_map(|key| header.get(*key)).cloned()
}
