//! What inputs of a graph are fed.

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice, concatenate};

use super::Condition;
use crate::bundle::{DenoiserSignature, Switch};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Tensor, TensorInfo, switch};

/// The inputs that a condition fills one row a sample, each with what fills it.
pub(super) fn by_role<'c>(
    signature: &'c DenoiserSignature,
    condition: &'c Condition,
) -> [(Option<&'c TensorInfo>, Option<&'c ArrayD<f32>>); 9] {
    [
        (signature.context.as_ref(), condition.context.as_ref()),
        (signature.context_mask.as_ref(), condition.context_mask.as_ref()),
        (signature.resolution.as_ref(), condition.resolution.as_ref()),
        (signature.aspect_ratio.as_ref(), condition.aspect_ratio.as_ref()),
        (signature.text_embeds.as_ref(), condition.text_embeds.as_ref()),
        (signature.time_ids.as_ref(), condition.time_ids.as_ref()),
        (signature.timestep_cond.as_ref(), condition.timestep_cond.as_ref()),
        (signature.guidance.as_ref(), condition.guidance.as_ref()),
        (signature.class_labels.as_ref(), condition.class_labels.as_ref()),
    ]
}

pub(super) fn rows_of(all: &Option<ArrayD<f32>>, rows: Slice) -> Option<ArrayViewD<'_, f32>> {
    all.as_ref().map(|all| all.slice_axis(Axis(0), rows))
}

/// The time in the type and the shape that a graph declares: a scalar, `[1]`, or one value for each of `rows`.
pub(super) fn timestep(info: &TensorInfo, sample: &TensorInfo, rows: usize, t: f64) -> Tensor {
    let shape = match info.shape.as_slice() {
        [] => vec![],
        [Dim::Fixed(n)] => vec![*n],
        [free] if sample.shape.first() == Some(free) => vec![rows],
        _ => vec![1],
    };
    match info.dtype.is_integer() {
        true => Tensor::I64(ArrayD::from_elem(IxDyn(&shape), t.round() as i64)),
        false => Tensor::F32(ArrayD::from_elem(IxDyn(&shape), t as f32)),
    }
}

/// The switches of a graph with their values.
pub(super) fn switches(switches: &[Switch]) -> Vec<(&str, ArrayD<bool>)> {
    switches.iter().map(|s| (s.input.name.as_str(), switch(&s.input, s.value))).collect()
}

/// Repeats the last row until there are `rows`, so that a graph with a fixed batch is always given whole batches.
pub(super) fn pad_rows(tensor: ArrayD<f32>, rows: usize) -> Result<ArrayD<f32>> {
    let have = tensor.shape()[0];
    if have >= rows {
        return Ok(tensor);
    }
    let last = tensor.slice_axis(Axis(0), Slice::from(have - 1..)).to_owned();
    let mut parts = vec![tensor.view()];
    parts.extend(std::iter::repeat_n(last.view(), rows - have));
    concatenate(Axis(0), &parts).map_err(|e| Error::input("condition", e.to_string(), ""))
}
