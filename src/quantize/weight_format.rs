//! Storage formats of weights.

use serde::Serialize;

use crate::error::{Error, Result};

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
