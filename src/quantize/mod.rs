//! Quantization: writes a copy of a model directory whose graphs store their large float32 weights in half precision or
//! as blocks of 8-bit values and dequantize them node by node at run time.
//!
//! Arithmetic stays float32; quantization saves memory and disk space. ONNX Runtime must not dequantize the weights
//! once when it opens a graph, which it does with everything constant:
//!
//! - Half precision is converted by a `Cast`, and its tensor is also a graph input. Callers may set such an input but
//!   need not, so it is not constant.
//! - 8-bit values are converted by a `DequantizeLinear`, which ONNX Runtime does not fold. Each [`BLOCK`] of them has a
//!   scale, the largest magnitude over 127: blocks are rows of the stored tensor, and a `Reshape` after the
//!   `DequantizeLinear` restores its shape. Scales per channel have a larger error; a matrix product's channels are
//!   along the last axis, which ONNX Runtime 1.31.1 dequantizes more slowly; and it replaces such products by 8-bit
//!   ones, with a still larger error.
//!
//! [`WeightFormat::DynamicInt8`] uses those faster products: `y = (x_q − z) W_q · s_x s_W`. `x_q`, `s_x` and `z` are the
//! outputs of `DynamicQuantizeLinear` for a whole `x` at run time (ONNX operator version 11: uint8, from the smallest
//! to the largest value, including zero); `W_q` are 8-bit values of −127 to 127 with a scale `s_W` per column, the
//! largest magnitude over
//! 127. CPUs without VNNI add pairs of such products in 16 bits, which overflows; for such graphs the plan sets
//!   `session.x64quantprecision`, which makes ONNX Runtime avoid that. `Gemm` is not quantized: for the single row of a
//!   time embedding, the 8-bit product is slower than float32.

mod folder;
mod graph;
mod half_precision;
mod selection;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::{Bundle, Component, ComponentKind, DirectoryOverrides};
use crate::error::{Error, Result};
use crate::session::Cancel;

pub use half_precision::BLOCK;

/// The storage format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightFormat {
    /// IEEE half precision.
    Half,
    /// Blocks of 8-bit integers, each with a scale; lookup tables in half precision.
    Int8,
    /// Columns of 8-bit integers for `MatMul`, each with a scale, and 8-bit products; everything else float32.
    DynamicInt8,
}

impl WeightFormat {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Half => "half",
            Self::Int8 => "int8",
            Self::DynamicInt8 => "dynamic-int8",
        }
    }

    /// Returns the format with this name.
    ///
    /// # Errors
    /// [`Error::Input`] for an unknown name, and for formats that were measured to be worse, with the figures.
    pub fn from_name(name: &str) -> Result<Self> {
        let refused = |problem: &str, help: &str| Err(Error::input("--weights", problem, help));
        match name {
            "half" | "float16" | "fp16" => Ok(Self::Half),
            "int8" => Ok(Self::Int8),
            "int4" => refused(
                "4-bit weights are not supported: on Stable Diffusion 1.5's layers ONNX Runtime's MatMulNBits took 1.1 to \
                 2.6 times the time of float32, held more memory than float32 does, and put the prediction off by 3.7e-2",
                "use int8, whose error is a tenth of that",
            ),
            "dynamic-int8" => Ok(Self::DynamicInt8),
            _ => refused(&format!("unknown weight format {name:?}"), "use half, int8 or dynamic-int8"),
        }
    }
}

/// The result for one graph.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizedGraph {
    /// The component, such as `unet`.
    pub component: &'static str,
    /// The graph's file, relative to the model directory.
    pub graph: PathBuf,
    /// The size of the graph and its weights before, in bytes.
    pub bytes_before: u64,
    /// The same after.
    pub bytes_after: u64,
    /// The number of quantized tensors.
    pub tensors: usize,
    /// The number of large float32 tensors that stay as they are because of the nodes that read them.
    pub unknown: usize,
    /// The largest error of a weight.
    pub largest_error: f64,
    /// The errors of all quantized weights over the weights themselves, each the root of the sum of squares.
    pub relative_error: f64,
    /// Tensors that stay float32 because of their values.
    pub skipped: Vec<SkippedTensor>,
}

/// A tensor that stays float32.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SkippedTensor {
    /// Its name.
    pub tensor: String,
    /// The reason.
    pub reason: String,
}

/// The progress of writing graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantizeProgress {
    /// The current component.
    pub component: ComponentKind,
    /// The bytes of its weights read so far.
    pub done: u64,
    /// The bytes of its weights in total.
    pub total: u64,
}

/// Writes the model directory `output`, in which the graphs of `components` store their weights in the format `weights`
/// and everything else is as in `model`. If it fails, nothing is written. Without `components`, the denoiser and the
/// text encoders are quantized.
///
/// Unchanged files larger than a megabyte are hard links to those in `model`, if the file system supports them.
///
/// # Errors
/// [`Error::Input`] if `output` already exists or is in `model`, or `model` has no such component; [`Error::Model`] if
/// there is nothing to do, for example because weights are already quantized, or if the graph already uses 8-bit
/// products; [`Error::Interrupted`] if `cancel` was cancelled; [`Error::Io`] if a file cannot be read or written; as
/// [`Bundle::open`].
pub fn quantize(
    model: &Path,
    output: &Path,
    weights: WeightFormat,
    components: &[ComponentKind],
    cancel: &Cancel,
    observer: &mut dyn FnMut(QuantizeProgress),
) -> Result<Vec<QuantizedGraph>> {
    let bundle = Bundle::open(model, &DirectoryOverrides::default())?;
    let model = bundle.dir.as_path();
    let chosen = chosen(&bundle, components)?;
    let is_chosen = |component: &Component| chosen.iter().any(|c| c.graph.path == component.graph.path);
    let mut replaced: HashSet<PathBuf> = chosen.iter().flat_map(|component| files(component)).collect();
    // Graphs may share a weight file.
    for other in bundle.components.values().filter(|component| !is_chosen(component)) {
        files(other).for_each(|file| {
            replaced.remove(&file);
        });
    }
    folder::write(model, output, &replaced, cancel, |room| {
        let mut outcomes = Vec::new();
        for component in &chosen {
            let outcome = graph::write(model, room, component, weights, cancel, observer)?;
            if outcome.tensors == 0 && !components.is_empty() {
                return Err(nothing(component, weights, &outcome));
            }
            outcomes.push(outcome);
        }
        match (chosen.first(), outcomes.first()) {
            (Some(component), Some(outcome)) if outcomes.iter().all(|outcome| outcome.tensors == 0) => {
                Err(nothing(component, weights, outcome))
            }
            _ => Ok(outcomes),
        }
    })
}

/// Returns the files of a component's graph and its weights.
fn files(component: &Component) -> impl Iterator<Item = PathBuf> {
    let external = component.graph.external.iter().map(|file| file.path.clone());
    std::iter::once(component.graph.path.clone()).chain(external)
}

/// Returns the components to quantize.
fn chosen<'b>(bundle: &'b Bundle, kinds: &[ComponentKind]) -> Result<Vec<&'b Component>> {
    let mut chosen: Vec<&Component> = if kinds.is_empty() {
        bundle.text_encoders().chain([bundle.denoiser()?]).collect()
    } else {
        let of = |&kind| bundle.require(kind, &format!("--component {kind}"));
        kinds.iter().map(of).collect::<Result<_>>()?
    };
    // The alternative denoiser that ControlNets need is quantized along with the denoiser.
    let other = bundle.controlled_denoiser.as_ref();
    chosen.extend(other.filter(|other| chosen.iter().any(|component| component.kind == other.kind)));
    let mut seen = HashSet::new();
    chosen.retain(|component| seen.insert(component.graph.path.clone()));
    Ok(chosen)
}

fn nothing(component: &Component, weights: WeightFormat, outcome: &QuantizedGraph) -> Error {
    let types: Vec<_> = component.graph.weight_types.iter().map(|(dtype, _)| dtype.to_string()).collect();
    let (problem, help) = match outcome.skipped.first() {
        Some(kept) => (format!("tensor {}: {}", kept.tensor, kept.reason), "leave this graph as it is"),
        None => (
            match weights {
                WeightFormat::DynamicInt8 => {
                    "none of its large weights is a matrix in float32 that MatMul alone multiplies by"
                }
                _ => "none of its large weights is a float32 one that is known to quantize well",
            }
            .to_owned()
                + &format!(": {}", types.join(", ")),
            "use the model's float32 export, or leave this graph as it is",
        ),
    };
    Error::model(&component.graph.path, format!("nothing to quantize: {problem}"), help)
}
