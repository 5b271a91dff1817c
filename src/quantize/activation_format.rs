//! The precision of arithmetic, and the formats of a quantized graph.

use serde::Serialize;

use super::weight_format::WeightFormat;
use crate::error::{Error, Result};

/// The element type in which a graph computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationFormat {
    /// Single precision.
    #[default]
    Float32,
    /// IEEE half precision, except for the nodes that need float32. Inputs and outputs of the graph stay as they are.
    Half,
}

impl ActivationFormat {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Half => "half",
        }
    }

    /// Returns the format with this name.
    ///
    /// # Errors
    /// [`Error::Input`] for an unknown name, and for bfloat16.
    pub fn from_name(name: &str) -> Result<Self> {
        let refused = |problem: &str, help: &str| Err(Error::input("--activations", problem, help));
        match name {
            "float32" | "fp32" => Ok(Self::Float32),
            "half" | "float16" | "fp16" => Ok(Self::Half),
            "bfloat16" | "bf16" => refused(
                "graphs in bfloat16 are not supported: ONNX Runtime's CPU provider has no bfloat16 products, so that none \
                 could be compared with diffusers",
                "use half, or precision = \"bf16\" in [device], which multiplies in bfloat16 on CPUs that have it",
            ),
            _ => refused(&format!("unknown activation format {name:?}"), "use float32 or half"),
        }
    }
}

/// The formats of a quantized graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphFormat {
    /// The storage format of its weights.
    pub weights: WeightFormat,
    /// The element type in which it computes.
    pub activations: ActivationFormat,
}

impl From<WeightFormat> for GraphFormat {
    fn from(weights: WeightFormat) -> Self {
        Self { weights, activations: ActivationFormat::Float32 }
    }
}

impl GraphFormat {
    /// Checks that the formats go together.
    ///
    /// # Errors
    /// [`Error::Input`] for half-precision activations with other weights.
    pub fn check(self) -> Result<()> {
        if self.activations == ActivationFormat::Half && self.weights != WeightFormat::Half {
            let weights = self.weights.name();
            let problem = format!("half activations need half weights, and --weights is {weights}");
            return Err(Error::input("--activations", problem, "use --weights half, or leave --activations out"));
        }
        Ok(())
    }
}
