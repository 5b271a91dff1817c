//! Rounding to the type of operands.

use ort::operator::{KernelContext, OperatorInput};

use super::call::{Call, Compute, FLOAT, Stored, check, needed, values, whole};
use crate::kernels::{InstructionSet, OperandCopy, OwnOperator};

/// The operator `Operand`, with its attributes.
pub struct OperandKernel {
    has_border: bool,
    width: usize,
}

impl Compute for OperandKernel {
    const OPERATOR: OwnOperator = OwnOperator::Operand;

    fn inputs<E: Stored>() -> Vec<OperatorInput> {
        vec![FLOAT]
    }

    fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self { has_border: whole(node, "border", 0) != 0, width: whole(node, "width", 0) })
    }

    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()> {
        let rows = needed(call.value(0)?, "the rows")?;
        let (lengths, rows) = values::<f32>(&rows)?;
        let [before @ .., depth] = lengths.as_slice() else { return check(false, "the rows") };
        let padded = self.width.max(*depth);
        let mut shape = lengths.clone();
        if let Some(last) = shape.last_mut() {
            *last = padded;
        }
        let (lines, line) = match before {
            &[batch, height, width] if self.has_border => {
                shape[1] += 2;
                shape[2] += 2;
                (batch * height, Some((height, width)))
            }
            _ => (before.iter().product(), None),
        };
        let operand = OperandCopy { rows, depth: *depth, padded, lines, border: line };
        call.write::<O>(0, &shape, |out| operand.write(InstructionSet::used(), call, out))
    }
}
