//! The inputs for a ControlNet's residuals.

use super::tensor_forms::is_float;
use super::unassigned::Unassigned;
use crate::bundle::onnx::GraphFile;
use crate::tensor::TensorInfo;

/// The inputs for a ControlNet's residuals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Residuals {
    /// Those added to the skip connections, from the first to the last.
    pub down: Vec<TensorInfo>,
    /// The one added in the middle.
    pub mid: Option<TensorInfo>,
}

impl Residuals {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.down.is_empty() && self.mid.is_none()
    }
}

/// Takes the residual inputs: their names differ by exporter, their order does not.
pub(super) fn residuals(inputs: &mut Unassigned<'_>) -> Residuals {
    let is_mid = |t: &TensorInfo| is_float(t, 4) && t.name.starts_with("mid_block");
    let mid = inputs.only(is_mid);
    let down = inputs.all(|t| if is_float(t, 4) { down_block_number(&t.name) } else { None });
    Residuals { down: down.into_iter().map(|(_, t)| t).collect(), mid }
}

/// The number in a name such as `down_block_3_additional_residual`, `down_block_3` or `down_block_additional_residual_3`.
pub(super) fn down_block_number(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("down_block")?;
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// True if a graph is a denoiser that takes a ControlNet's residuals, whatever folder it is in.
pub(crate) fn takes_residuals(graph: &GraphFile) -> bool {
    graph.inputs.iter().any(|i| is_float(i, 4) && down_block_number(&i.name).is_some())
}
