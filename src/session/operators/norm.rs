//! Normalizations.

use ort::operator::{KernelContext, OperatorInput};

use super::call::{Call, Compute, FLOAT, OPTIONAL, Stored, activation, check, floats, needed, values, whole};
use crate::kernels::{Activation, GroupNorm, InstructionSet, OwnOperator, RowNorm};

/// The operator `GroupNorm`, with its attributes.
pub struct GroupNormKernel {
    groups: usize,
    epsilon: f32,
    activation: Activation,
    has_border: bool,
}

impl Compute for GroupNormKernel {
    const OPERATOR: OwnOperator = OwnOperator::GroupNorm;

    fn inputs<E: Stored>() -> Vec<OperatorInput> {
        vec![OperatorInput::required(E::STORED), OperatorInput::optional(E::STORED), FLOAT, FLOAT]
    }

    fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self {
            groups: whole(node, "groups", 0),
            epsilon: needed(node.get::<f32>("epsilon"), "the attribute epsilon")?,
            activation: activation(node)?,
            has_border: whole(node, "border", 0) != 0,
        })
    }

    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()> {
        let (first, second) = (needed(call.value(0)?, "the image")?, call.value(1)?);
        let (lengths, first) = values::<E>(&first)?;
        let &[batch, height, width, channels] = lengths.as_slice() else { return check(false, "the image") };
        let second = second.as_ref().map(values::<E>).transpose()?.map(|(_, values)| values).unwrap_or_default();
        let pixels = batch * height * width;
        check(second.len().is_multiple_of(pixels.max(1)), "the second image")?;
        let more = second.len() / pixels.max(1);
        let all = channels + more;
        let (scale, shift) = (call.value(2)?, call.value(3)?);
        let scale = needed(floats(&scale)?, "the scale")?;
        let shift = needed(floats(&shift)?, "the shift")?;
        let is_divisible = self.groups > 0 && all > 0 && all.is_multiple_of(self.groups);
        check(scale.len() == all && shift.len() == all && is_divisible, "the scale")?;
        let norm = GroupNorm {
            images: [(first, channels), (second, more)],
            batch,
            height,
            width,
            groups: self.groups,
            epsilon: self.epsilon,
            scale,
            shift,
            activation: self.activation,
            has_border: self.has_border,
        };
        let border = 2 * usize::from(self.has_border);
        let set = InstructionSet::used();
        call.write::<O>(0, &[batch, height + border, width + border, all], |out| norm.run(set, call, out))
    }
}

/// The operator `RowNorm`, with its attributes.
pub struct RowNormKernel {
    epsilon: f32,
    centers: bool,
}

impl Compute for RowNormKernel {
    const OPERATOR: OwnOperator = OwnOperator::RowNorm;

    fn inputs<E: Stored>() -> Vec<OperatorInput> {
        vec![FLOAT, OPTIONAL, OPTIONAL]
    }

    fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self {
            epsilon: needed(node.get::<f32>("epsilon"), "the attribute epsilon")?,
            centers: whole(node, "centers", 1) != 0,
        })
    }

    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()> {
        let (rows, scale, shift) = (needed(call.value(0)?, "the rows")?, call.value(1)?, call.value(2)?);
        let (lengths, rows) = values::<f32>(&rows)?;
        let (scale, shift) = (floats(&scale)?, floats(&shift)?);
        let [before @ .., width] = lengths.as_slice() else { return check(false, "the matrix") };
        let count = before.iter().product::<usize>();
        let batch = if before.len() > 1 { before[0] } else { 1 };
        let fits = |values: Option<&[f32]>| values.is_none_or(|v| v.len() == *width || v.len() == batch * width);
        check(fits(scale) && fits(shift) && *width > 0, "scale or shift")?;
        let norm = RowNorm {
            rows,
            width: *width,
            rows_per_image: (count / batch.max(1)).max(1),
            epsilon: self.epsilon,
            centers: self.centers,
            scale,
            shift,
        };
        call.write::<O>(0, &lengths, |out| norm.run(InstructionSet::used(), call, out))
    }
}
