//! Weights in fewer bits: a model directory like another, whose graphs store their large float32 weights as half precision
//! or as blocks of 8-bit numbers and widen them as they run, node by node.
//!
//! Arithmetic stays float32; what is won is memory and room on the disk. ONNX Runtime must not widen the weights once
//! and for all when it opens a graph, which it does with whatever is constant:
//!
//! - Half precision is widened by a `Cast`, and its tensor is named among the graph's inputs too. Such an input need not
//!   be fed, but it might be, and so it is no constant.
//! - 8-bit numbers are widened by a `DequantizeLinear`, which ONNX Runtime leaves alone. Every [`BLOCK`] of them have a
//!   scale of their own, the largest magnitude over 127: blocks are rows of the stored tensor, and a `Reshape` behind the
//!   `DequantizeLinear` gives it its shape back. A scale a channel was tried: its error is larger, a matrix product's
//!   channels lie along the last axis, where ONNX Runtime 1.31.1 takes five times as long to widen them, and it replaces
//!   such products by ones of 8 bits, whose error is larger still.
//!
//! [`Weights::DynamicInt8`] asks for those products, which are faster: `y = (x_q − z) W_q · s_x s_W`: `x_q`, `s_x` and `z` are what
//! `DynamicQuantizeLinear` makes of a whole `x` as the graph runs (ONNX operator of version 11: uint8, from the smallest
//! to the largest number, zero among them), `W_q` are 8-bit numbers of −127 to 127 with a scale `s_W` a column, the
//! largest magnitude over 127. Processors without VNNI add pairs of such products in 16 bits, which overflow; where the
//! plan opens such graphs, `session.x64quantprecision` has ONNX Runtime make them in another way there. `Gemm` is left
//! alone: of the one row of a time's embedding the product took 1.09 of the time of float32.

mod folder;
mod graph;
mod half_precision;
mod outcome;
mod select;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::bundle::{Bundle, Component, ComponentKind, DirectoryOverrides};
use crate::error::{Error, Result};
use crate::session::Cancel;

pub use half_precision::BLOCK;
pub use outcome::{Kept, Outcome, Progress, Weights};

/// Writes the model directory `output`, in which the graphs of `components` store their weights as `weights` says and all
/// else is as in `model`: whole, or not at all. Without `components`, the denoiser and the text encoders are changed.
///
/// Files that do not change and are larger than a megabyte are hard links to those in `model` where the file system has
/// them.
///
/// # Errors
/// [`Error::Input`] where `output` is there already or in `model`, or `model` has no such component;
/// [`Error::Model`] where nothing is to be done, because weights are stored in fewer bits already for example, or where
/// products are made in 8 bits already;
/// [`Error::Interrupted`] where `cancel` was thrown; [`Error::Io`] where a file cannot be read or written; as
/// [`Bundle::open`].
pub fn quantize(
    model: &Path,
    output: &Path,
    weights: Weights,
    components: &[ComponentKind],
    cancel: &Cancel,
    observer: &mut dyn FnMut(Progress),
) -> Result<Vec<Outcome>> {
    let bundle = Bundle::open(model, &DirectoryOverrides::default())?;
    let model = bundle.dir.as_path();
    let chosen = chosen(&bundle, components)?;
    let is_chosen = |component: &Component| chosen.iter().any(|c| c.graph.path == component.graph.path);
    let mut replaced: HashSet<PathBuf> = chosen.iter().flat_map(|component| files(component)).collect();
    // Graphs may share a file of weights.
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

/// The files that hold a component's graph and its weights.
fn files(component: &Component) -> impl Iterator<Item = PathBuf> {
    let external = component.graph.external.iter().map(|file| file.path.clone());
    std::iter::once(component.graph.path.clone()).chain(external)
}

/// The components that are changed.
fn chosen<'b>(bundle: &'b Bundle, kinds: &[ComponentKind]) -> Result<Vec<&'b Component>> {
    let mut chosen: Vec<&Component> = if kinds.is_empty() {
        bundle.text_encoders().chain([bundle.denoiser()?]).collect()
    } else {
        let of = |&kind| bundle.require(kind, &format!("--component {kind}"));
        kinds.iter().map(of).collect::<Result<_>>()?
    };
    // A denoiser of another form, which control networks need, goes with the one that it stands in for.
    let other = bundle.controlled_denoiser.as_ref();
    chosen.extend(other.filter(|other| chosen.iter().any(|component| component.kind == other.kind)));
    let mut seen = HashSet::new();
    chosen.retain(|component| seen.insert(component.graph.path.clone()));
    Ok(chosen)
}

fn nothing(component: &Component, weights: Weights, outcome: &Outcome) -> Error {
    let types: Vec<_> = component.graph.weight_types.iter().map(|(dtype, _)| dtype.to_string()).collect();
    let (problem, help) = match outcome.kept.first() {
        Some(kept) => (format!("tensor {}: {}", kept.tensor, kept.because), "leave this graph as it is"),
        None => (
            match weights {
                Weights::DynamicInt8 => {
                    "none of its large weights is a matrix in float32 that MatMul alone multiplies by"
                }
                _ => "none of its large weights is one in float32 that is known to be widened well",
            }
            .to_owned()
                + &format!(": {}", types.join(", ")),
            "take the model's float32 export, or use this graph as it is",
        ),
    };
    Error::model(&component.graph.path, format!("nothing to store in fewer bits: {problem}"), help)
}
