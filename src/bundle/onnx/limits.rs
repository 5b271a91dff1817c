//! Limits for the shapes that a graph may declare.
//!
//! Buffers are allocated in the shapes that a graph declares, so a shape too large for any machine has to be rejected
//! when the graph is read.

use std::path::Path;

use super::proto;
use super::tensors::tensor_bytes;
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};

/// The maximum number of values of an input or output, counting static axes: 64 GiB of float32.
const MOST_VALUES: u64 = 1 << 34;

/// A stored value takes at least an eighth of its size: integers may be varints.
const SHORTEST: u64 = 8;

/// Checks that inputs and outputs have at most [`MOST_VALUES`] values, and that internal weights fit into the file.
pub fn check<'a>(
    path: &Path,
    file_bytes: u64,
    values: impl IntoIterator<Item = &'a TensorInfo>,
    tensors: &[&proto::TensorProto],
) -> Result<()> {
    let help = "the file is damaged; download or copy it again, or export the model again";
    for info in values {
        let fixed = info.shape.iter().filter_map(Dim::fixed);
        let count = fixed.fold(1u64, |n, length| n.saturating_mul(length as u64));
        if count > MOST_VALUES {
            let problem = format!("declares {info}, which is at least {count} values; expected at most {MOST_VALUES}");
            return Err(Error::model(path, problem, help));
        }
    }
    let inside =
        tensors.iter().filter(|tensor| tensor.data_location != proto::EXTERNAL && tensor.external_data.is_empty());
    for tensor in inside {
        let declared = tensor_bytes(tensor);
        if declared / SHORTEST > file_bytes {
            let problem = format!(
                "tensor {} has shape {:?}, which is {declared} bytes, and the file has {file_bytes}",
                tensor.name, tensor.dims
            );
            return Err(Error::model(path, problem, help));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn what_no_machine_holds_is_refused() {
        let info = |shape: &[usize]| TensorInfo {
            name: "sample".into(),
            dtype: DType::F32,
            shape: shape.iter().map(|&n| if n == 0 { Dim::Free("n".into()) } else { Dim::Fixed(n) }).collect(),
        };
        let checked = |shape: &[usize]| check(Path::new("a.onnx"), 100, [&info(shape)], &[]);
        for fits in [&[][..], &[1, 3, 16384, 16384], &[0, 4, 0, 0], &[1 << 34]] {
            checked(fits).unwrap();
        }
        for large in [&[1 << 40][..], &[0, 1 << 40], &[1 << 20, 1 << 20], &[usize::MAX, usize::MAX, 0]] {
            let error = checked(large).unwrap_err().to_string();
            assert!(error.contains("a.onnx: declares") && error.contains("sample"), "{error}");
        }
        let stored = |dims: &[i64], location: i32| {
            let tensor = proto::TensorProto {
                name: "w".into(),
                dims: dims.to_vec(),
                data_type: 1,
                data_location: location,
                ..Default::default()
            };
            check(Path::new("a.onnx"), 100, [], &[&tensor])
        };
        stored(&[10, 20], 0).unwrap();
        stored(&[1 << 40], proto::EXTERNAL).unwrap();
        for dims in [&[10, 21][..], &[1 << 40], &[i64::MAX, i64::MAX]] {
            let error = stored(dims, 0).unwrap_err().to_string();
            assert!(error.contains("tensor w has shape") && error.contains("the file has 100"), "{error}");
        }
    }
}
