//! Tensors as a graph declares them: their types, shapes and sizes.

use super::proto;
use crate::tensor::{DType, Dim, TensorInfo};

/// Returns the name, element type and shape of an input or an output.
pub(super) fn tensor_info(value: &proto::ValueInfoProto) -> TensorInfo {
    let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let shape = tensor.and_then(|t| t.shape.as_ref());
    TensorInfo {
        name: value.name.clone(),
        dtype: DType::from_onnx(tensor.map_or(0, |t| t.elem_type)),
        shape: shape.map(|s| s.dim.iter().map(dim).collect()).unwrap_or_default(),
    }
}

fn dim(d: &proto::Dimension) -> Dim {
    match usize::try_from(d.dim_value) {
        Ok(n) if n > 0 => Dim::Fixed(n),
        _ => Dim::Free(d.dim_param.clone()),
    }
}

/// Returns the size of a tensor's values in bytes, from its shape and type; 0 for strings.
pub(super) fn tensor_bytes(tensor: &proto::TensorProto) -> u64 {
    let bits: u64 = match tensor.data_type {
        2 | 3 | 9 | 17..=20 | 24 => 8,
        4 | 5 | 10 | 16 => 16,
        1 | 6 | 12 => 32,
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        21..=23 => 4,
        25 | 26 => 2,
        _ => 0,
    };
    let count = tensor.dims.iter().fold(1u64, |n, &d| n.saturating_mul(u64::try_from(d).unwrap_or(0)));
    count.saturating_mul(bits).div_ceil(8)
}
