//! Quantization: writes a copy of a model directory whose graphs store their large float32 weights in half precision or
//! as blocks of 8-bit values and dequantize them node by node at run time, or compute in half precision too (`half_graph`).
//!
//! With [`ActivationFormat::Float32`], arithmetic stays float32; quantization saves memory and disk space. ONNX Runtime must not dequantize the weights
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

mod activation_format;
mod folder;
mod graph;
mod half_graph;
mod half_precision;
mod outcome;
mod output;
mod selection;
mod weight_format;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::bundle::{Bundle, Component, ComponentKind, DirectoryOverrides};
use crate::error::{Error, Result};
use crate::session::Cancel;
use output::Destination;

pub use activation_format::{ActivationFormat, GraphFormat};
pub use half_precision::BLOCK;
pub use outcome::{Float32Nodes, QuantizeProgress, QuantizedGraph, SkippedTensor};
pub use weight_format::WeightFormat;

/// Writes the model directory `output`, in which the graphs of `components` are in the format `format` and everything else
/// is as in `model`. If it fails, nothing is written. Without `components`, the denoiser and the text encoders are
/// quantized.
///
/// Unchanged files larger than a megabyte are hard links to those in `model`, if the file system supports them.
///
/// # Errors
/// [`Error::Input`] if `output` already exists or is in `model`, `model` has no such component, the formats of weights and
/// activations do not go together, or a VAE with `force_upcast` is to compute in half precision; [`Error::Model`] if
/// there is nothing to do, for example because weights are already quantized, or if the graph already uses 8-bit
/// products; [`Error::Interrupted`] if `cancel` was cancelled; [`Error::Io`] if a file cannot be read or written; as
/// [`Bundle::open`].
pub fn quantize(
    model: &Path,
    output: &Path,
    format: impl Into<GraphFormat>,
    components: &[ComponentKind],
    cancel: &Cancel,
    observer: &mut dyn FnMut(QuantizeProgress),
) -> Result<Vec<QuantizedGraph>> {
    let format = format.into();
    format.check()?;
    let bundle = Bundle::open(model, &DirectoryOverrides::default())?;
    let model = bundle.dir.as_path();
    let chosen = chosen(&bundle, components)?;
    if format.activations == ActivationFormat::Half {
        chosen.iter().try_for_each(|component| refuse_upcast(&bundle, component))?;
    }
    let is_chosen = |component: &Component| chosen.iter().any(|c| c.graph.path == component.graph.path);
    let mut replaced: HashSet<PathBuf> = chosen.iter().flat_map(|component| files(component)).collect();
    // Graphs may share a weight file.
    for other in bundle.components.values().filter(|component| !is_chosen(component)) {
        files(other).for_each(|file| {
            replaced.remove(&file);
        });
    }
    let is_unchanged = |outcome: &QuantizedGraph| outcome.tensors + outcome.half_nodes == 0;
    folder::write(model, output, &replaced, cancel, |room| {
        let mut outcomes = Vec::new();
        let to = Destination { model, room, cancel };
        for component in &chosen {
            let outcome = match format.activations {
                ActivationFormat::Float32 => graph::write(&to, component, format.weights, observer)?,
                ActivationFormat::Half => half_graph::write(&to, component, observer)?,
            };
            if is_unchanged(&outcome) && !components.is_empty() {
                return Err(nothing(component, format, &outcome));
            }
            outcomes.push(outcome);
        }
        match (chosen.first(), outcomes.first()) {
            (Some(component), Some(outcome)) if outcomes.iter().all(is_unchanged) => {
                Err(nothing(component, format, outcome))
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

/// Refuses half-precision arithmetic in a VAE that diffusers runs in float32.
fn refuse_upcast(bundle: &Bundle, component: &Component) -> Result<()> {
    if !bundle.needs_float32(component) {
        return Ok(());
    }
    let config = component.config_path.as_ref().map_or_else(String::new, |path| path.display().to_string());
    let problem = format!(
        "{config} has force_upcast = true, its default: activations of this VAE leave the range of half precision, and diffusers runs it \
         in float32"
    );
    let help = "leave --activations out for this component, or use a VAE made for half precision (sdxl-vae-fp16-fix), whose \
                configuration has force_upcast = false";
    Err(Error::input(format!("--component {}", component.kind), problem, help))
}

fn nothing(component: &Component, format: GraphFormat, outcome: &QuantizedGraph) -> Error {
    let types: Vec<_> = component.graph.weight_types.iter().map(|(dtype, _)| dtype.to_string()).collect();
    let (problem, help) = match outcome.skipped.first() {
        Some(kept) => (format!("tensor {}: {}", kept.tensor, kept.reason), "leave this graph as it is"),
        None => (
            match format.weights {
                _ if format.activations == ActivationFormat::Half => "none of its nodes computes in float32",
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
