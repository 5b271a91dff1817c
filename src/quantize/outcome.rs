//! The forms in which weights are stored, and what became of a graph.

use std::path::PathBuf;

use serde::Serialize;

use crate::bundle::ComponentKind;
use crate::error::{Error, Result};
use crate::session::Cancel;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// IEEE half precision.
    Half,
    /// Blocks of 8-bit whole numbers, each with a scale; tables that are looked up in half precision.
    Int8,
    /// Columns of 8-bit whole numbers for `MatMul`, each with a scale, and products of 8 bits; all else float32.
    DynamicInt8,
}

impl Weights {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Half => "half",
            Self::Int8 => "int8",
            Self::DynamicInt8 => "dynamic-int8",
        }
    }

    /// The form of this name.
    ///
    /// # Errors
    /// [`Error::Input`] for a name that is none, and for forms that were measured and lose, with the figures.
    pub fn from_name(name: &str) -> Result<Self> {
        let refused = |problem: &str, help: &str| Err(Error::input("--weights", problem, help));
        match name {
            "half" | "float16" | "fp16" => Ok(Self::Half),
            "int8" => Ok(Self::Int8),
            "int4" => refused(
                "weights of 4 bits are not made: on Stable Diffusion 1.5's layers ONNX Runtime's MatMulNBits took 1.1 to \
                 2.6 times the time of float32, held more memory than float32 does, and put the prediction off by 3.7e-2",
                "take int8, whose error is a tenth of that",
            ),
            "dynamic-int8" => Ok(Self::DynamicInt8),
            _ => refused(&format!("there is no form {name:?} of weights"), "take half, int8 or dynamic-int8"),
        }
    }
}

/// What became of one graph.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The component, such as `unet`.
    pub component: &'static str,
    /// The graph's file, relative to the model directory.
    pub graph: PathBuf,
    /// Bytes of the graph and of its weights before.
    pub bytes_before: u64,
    /// The same now.
    pub bytes_after: u64,
    /// How many tensors are stored in fewer bits.
    pub tensors: usize,
    /// How many large float32 tensors stay as they are because of what reads them.
    pub unknown: usize,
    /// The largest change of a weight.
    pub largest_error: f64,
    /// The changes of all of those weights, root of the sum of squares, over that of the weights themselves.
    pub relative_error: f64,
    /// Tensors that stay float32 because of their values.
    pub kept: Vec<Kept>,
}

/// A tensor that stays float32.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kept {
    /// Its name.
    pub tensor: String,
    /// Why.
    pub because: String,
}

/// What is told while graphs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The component at work.
    pub component: ComponentKind,
    /// Bytes of its weights read so far.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}

pub(super) fn stop_if(cancel: &Cancel) -> Result<()> {
    if cancel.is_cancelled() { Err(Error::Interrupted { at_step: None }) } else { Ok(()) }
}
