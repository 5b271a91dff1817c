//! Boolean inputs left over from tracing.

use crate::tensor::TensorInfo;

/// A boolean input left over from tracing, and the value it receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The input.
    pub input: TensorInfo,
    /// Its value.
    pub value: bool,
}
