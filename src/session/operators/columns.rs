//! What all products have in common: columns, and what follows their sums.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::ValueRef;

use super::call::{Call, OPTIONAL, activation, check, floats, whole};
use crate::kernels::{Activation, Epilogue};

/// The inputs of a product after its operands, all of them float32.
pub const EPILOGUE_INPUTS: [OperatorInput; 4] = [OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL];

/// The attributes of a product's columns.
pub struct Columns {
    /// The columns of the weights.
    pub count: usize,
    activation: Activation,
    /// True if half of them are gates.
    pub is_gated: bool,
}

/// The values of [`EPILOGUE_INPUTS`]: the bias, what is added, the gate, and the residual.
pub struct EpilogueValues<'v>([Option<ValueRef<'v>>; 4]);

impl<'v> EpilogueValues<'v> {
    /// Reads the inputs after the two operands.
    pub fn of(call: &'v Call<'_>) -> ort::Result<Self> {
        Ok(Self([call.value(2)?, call.value(3)?, call.value(4)?, call.value(5)?]))
    }
}

impl Columns {
    /// Reads the attributes.
    pub fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        let is_gated = whole(node, "gated", 0) != 0;
        Ok(Self { count: whole(node, "columns", 0), activation: activation(node)?, is_gated })
    }

    /// The columns of the result.
    pub fn of_result(&self) -> usize {
        if self.is_gated { self.count / 2 } else { self.count }
    }

    /// What follows the sums of some rows of `batch` images.
    pub fn epilogue<'v>(&self, values: &'v EpilogueValues<'_>, batch: usize, rows: usize) -> ort::Result<Epilogue<'v>> {
        let [bias, added, gate, residual] = &values.0;
        let epilogue = Epilogue {
            bias: floats(bias)?,
            added: floats(added)?,
            activation: self.activation,
            is_gated: self.is_gated,
            gate: floats(gate)?,
            residual: floats(residual)?,
        };
        check(epilogue.bias.is_none_or(|v| v.len() == self.count), "the bias")?;
        check(epilogue.added.is_none_or(|v| v.len() == batch * self.count), "what is added")?;
        check(epilogue.gate.is_none_or(|v| v.len() == batch * self.of_result()), "the gate")?;
        check(epilogue.residual.is_none_or(|v| v.len() == rows * self.of_result()), "the residual")?;
        Ok(epilogue)
    }
}

/// The images and rows of a left operand, of which only the last axis is the depth.
pub fn batch_and_rows(before: &[usize]) -> (usize, usize) {
    let batch = if before.len() > 1 { before[0] } else { 1 };
    (batch, before.iter().product())
}

/// The rows of each image, or all of them where no number is of one image.
pub fn rows_per_image(epilogue: &Epilogue<'_>, batch: usize, rows: usize) -> usize {
    let is_by_image = epilogue.added.is_some() || epilogue.gate.is_some();
    if is_by_image { rows / batch.max(1) } else { rows }
}
