//! The values that a graph's inputs receive.

use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};

use crate::bundle::Switch;
use crate::error::{Error, Result};
use crate::tensor::{Dim, Tensor, TensorInfo, switch};

/// The timestep in the type and the shape that a graph declares: a scalar, `[1]`, or one value for each of `rows`.
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

/// The names of a graph's boolean inputs, with their values.
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
