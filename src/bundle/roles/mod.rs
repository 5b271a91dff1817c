//! The roles of a graph's inputs: its signature.
//!
//! Exporters agree on few names, and on fewer ranks and element types. The table of roles (`table.rs`) has a row for each
//! input that is run: its names, its form, the meaning of its axes, and what fills it. An input is recognized by its name,
//! then by its form if it is the only one left that has it. An input that nothing can fill is an error that shows a table,
//! since a graph that runs with a wrong input makes images that are wrong in ways hard to see.

mod conditioner;
mod control;
mod denoiser;
mod role;
mod table;
mod text;
mod unassigned;
mod vae;

pub use conditioner::ConditionerSignature;
pub use control::ControlNetSignature;
pub use denoiser::{DenoiserSignature, Residuals};
pub(crate) use role::{Filler, InputAxis};
pub use table::{Role, role_words};
pub use text::TextEncoderSignature;
pub use vae::{VaeDecoderSignature, VaeEncoderKind, VaeEncoderSignature};

use super::component::Component;
use super::onnx::GraphFile;
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;
use unassigned::Unassigned;

/// A boolean input left over from tracing, and the value it receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The input.
    pub input: TensorInfo,
    /// Its value.
    pub value: bool,
}

/// Name, element type and shape of each tensor, one a line.
fn describe(tensors: &[TensorInfo]) -> String {
    let width = tensors.iter().map(|t| t.name.chars().count()).max().unwrap_or(0);
    tensors
        .iter()
        .map(|t| {
            let shape: Vec<String> = t.shape.iter().map(ToString::to_string).collect();
            format!("\n    {:width$}  {}  [{}]", t.name, t.dtype, shape.join(", "))
        })
        .collect()
}

/// The only output of this rank; of several, the one with one of these names.
fn output(component: &Component, rank: usize, names: &[&str]) -> Result<TensorInfo> {
    let outputs = &component.graph.outputs;
    let fitting: Vec<&TensorInfo> = outputs.iter().filter(|o| o.shape.len() == rank).collect();
    let found = match (fitting.as_slice(), outputs.as_slice()) {
        ([only], _) => Some(*only),
        // An output without a stated shape reads as one without axes; where it is the only one, it is the one.
        ([], [only]) if only.shape.is_empty() => Some(only),
        (several, _) => names.iter().find_map(|name| several.iter().find(|o| o.name == *name).copied()),
    };
    found.cloned().ok_or_else(|| {
        Error::model(
            &component.graph.path,
            format!(
                "{} has {} outputs with {rank} axes where one is wanted; its outputs are{}",
                component.kind,
                fitting.len(),
                describe(outputs)
            ),
            "this graph is of a kind that is not run; export the model with scripts/export.py",
        )
    })
}

fn is_number(t: &TensorInfo) -> bool {
    t.dtype.is_float() || t.dtype.is_integer()
}

fn is_float(t: &TensorInfo, rank: usize) -> bool {
    t.dtype.is_float() && t.shape.len() == rank
}

/// The first axis, if the graph fixes it for any of these. Batches are padded to it.
///
/// # Errors
/// [`Error::Model`] for more rows than a batch could sensibly be padded to.
fn fixed_batch<'a>(component: &Component, tensors: impl IntoIterator<Item = &'a TensorInfo>) -> Result<Option<usize>> {
    const MOST: usize = 1024;
    let fixed = tensors.into_iter().find_map(|t| Some((t, t.shape.first()?.fixed()?)));
    match fixed {
        Some((info, rows)) if rows > MOST => Err(Error::model(
            &component.graph.path,
            format!("{info} is fixed to a batch of {rows}; expected {MOST} at most"),
            "export the model again, with a batch that is free or 1",
        )),
        _ => Ok(fixed.map(|(_, rows)| rows)),
    }
}

/// True if a graph is a denoiser that takes a ControlNet's residuals, whatever folder it is in.
pub(super) fn takes_residuals(graph: &GraphFile) -> bool {
    graph.inputs.iter().any(|i| is_float(i, 4) && denoiser::down_block_number(&i.name).is_some())
}

/// The image-shaped input of a denoiser, an encoder or a decoder, found without resolving the graph's other inputs.
pub(super) fn image_input(graph: &GraphFile) -> Option<&TensorInfo> {
    let fitting: Vec<&TensorInfo> = graph.inputs.iter().filter(|i| is_float(i, 4)).collect();
    let mut names = [Role::Sample, Role::Latent, Role::Image].into_iter().flat_map(Role::names);
    let named = names.find_map(|name| fitting.iter().find(|i| i.name == *name).copied());
    named.or(match fitting.as_slice() {
        [only] => Some(*only),
        _ => None,
    })
}

/// The image-shaped output of a graph, if it has exactly one.
pub(super) fn image_output(graph: &GraphFile) -> Option<&TensorInfo> {
    let mut fitting = graph.outputs.iter().filter(|o| o.shape.len() == 4);
    let first = fitting.next();
    first.filter(|_| fitting.next().is_none())
}
