//! The roles of a graph's inputs: its signature.
//!
//! Exporters agree on few names, and on fewer ranks and element types. The table of roles (`table.rs`) has a row for each
//! input that is run: its names, its form, the meaning of its axes, and what fills it. An input is recognized by its name,
//! then by its form if it is the only one left that has it. An input that nothing can fill is an error that shows a table,
//! since a graph that runs with a wrong input makes images that are wrong in ways hard to see.

mod columns;
mod conditioner;
mod control;
mod denoiser;
mod input_hints;
mod residuals;
mod switch;
mod table;
mod tensor_forms;
mod text;
mod unassigned;
mod vae;

pub(crate) use columns::{Filler, InputAxis};
pub use conditioner::ConditionerSignature;
pub use control::ControlNetSignature;
pub use denoiser::DenoiserSignature;
pub use residuals::Residuals;
pub(super) use residuals::takes_residuals;
pub use switch::Switch;
pub use table::{Role, role_words};
pub use text::TextEncoderSignature;
pub use vae::{VaeDecoderSignature, VaeEncoderKind, VaeEncoderSignature};

use super::onnx::GraphFile;
use crate::tensor::TensorInfo;
use tensor_forms::is_float;

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
