//! Element types, shapes and host tensors, shared by the model files and the sessions.

mod weight;

use ndarray::{ArrayD, ArrayView, ArrayViewD, Dimension, IxDyn};

pub use weight::{ByteEdit, Field, Weight, WeightLocation, WeightValues};

use crate::error::{Error, Result};

/// An ONNX element type of a graph's inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE double precision.
    F64,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// Boolean.
    Bool,
    /// Anything else, by its number in ONNX's `TensorProto.DataType`.
    Other(i32),
}

impl DType {
    /// Returns its number in ONNX's `TensorProto.DataType`.
    pub fn to_onnx(self) -> i32 {
        match self {
            Self::F32 => 1,
            Self::I32 => 6,
            Self::I64 => 7,
            Self::Bool => 9,
            Self::F16 => 10,
            Self::F64 => 11,
            Self::Bf16 => 16,
            Self::Other(code) => code,
        }
    }

    /// Returns the type with this number in ONNX's `TensorProto.DataType`.
    pub fn from_onnx(code: i32) -> Self {
        match code {
            1 => Self::F32,
            6 => Self::I32,
            7 => Self::I64,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            16 => Self::Bf16,
            other => Self::Other(other),
        }
    }

    /// Returns the bytes per value; `None` for types smaller than a byte, and for strings.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Bool | Self::Other(2 | 3) => Some(1),
            Self::F16 | Self::Bf16 | Self::Other(4 | 5) => Some(2),
            Self::F32 | Self::I32 | Self::Other(12) => Some(4),
            Self::F64 | Self::I64 | Self::Other(13) => Some(8),
            Self::Other(_) => None,
        }
    }

    /// Returns true for floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16 | Self::F64)
    }

    /// Returns true for 32-bit and 64-bit integers.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::I32 | Self::I64)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => f.write_str("float32"),
            Self::F16 => f.write_str("float16"),
            Self::Bf16 => f.write_str("bfloat16"),
            Self::F64 => f.write_str("float64"),
            Self::I64 => f.write_str("int64"),
            Self::I32 => f.write_str("int32"),
            Self::Bool => f.write_str("bool"),
            Self::Other(2) => f.write_str("uint8"),
            Self::Other(3) => f.write_str("int8"),
            Self::Other(4) => f.write_str("uint16"),
            Self::Other(5) => f.write_str("int16"),
            Self::Other(8) => f.write_str("string"),
            Self::Other(12) => f.write_str("uint32"),
            Self::Other(13) => f.write_str("uint64"),
            Self::Other(code) => write!(f, "onnx type {code}"),
        }
    }
}

/// One axis of a graph's input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A length fixed in the graph.
    Fixed(usize),
    /// A dynamic axis with its name in the export, which may be empty.
    Free(String),
}

impl Dim {
    /// Returns the length if the graph fixes it.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(n) => Some(*n),
            Self::Free(_) => None,
        }
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Free(name) if name.is_empty() => f.write_str("?"),
            Self::Free(name) => f.write_str(name),
        }
    }
}

/// Name, element type and shape of a graph's input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name in the graph.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// One entry per axis; empty for a scalar.
    pub shape: Vec<Dim>,
}

impl std::fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} [", self.name, self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// An input tensor of a graph. Floats are `f32` and integers `i64`; the session converts them to the element type that
/// the graph declares.
#[derive(Debug, Clone, PartialEq)]
pub enum Tensor {
    /// Floating-point values.
    F32(ArrayD<f32>),
    /// Integers: token ids, class labels.
    I64(ArrayD<i64>),
    /// Booleans that tracing left in the graph, such as `return_dict`.
    Bool(ArrayD<bool>),
}

impl Tensor {
    /// Returns the shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::Bool(a) => a.shape(),
        }
    }

    /// Borrows the values.
    pub fn view(&self) -> TensorView<'_> {
        match self {
            Self::F32(a) => TensorView::F32(a.view()),
            Self::I64(a) => TensorView::I64(a.view()),
            Self::Bool(a) => TensorView::Bool(a.view()),
        }
    }
}

impl From<ArrayD<f32>> for Tensor {
    fn from(a: ArrayD<f32>) -> Self {
        Self::F32(a)
    }
}

impl From<ArrayD<i64>> for Tensor {
    fn from(a: ArrayD<i64>) -> Self {
        Self::I64(a)
    }
}

/// A borrowed [`Tensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum TensorView<'a> {
    /// Floating-point values.
    F32(ArrayViewD<'a, f32>),
    /// Integers: token ids, class labels.
    I64(ArrayViewD<'a, i64>),
    /// Booleans that tracing left in the graph, such as `return_dict`.
    Bool(ArrayViewD<'a, bool>),
}

impl TensorView<'_> {
    /// Returns the shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::Bool(a) => a.shape(),
        }
    }
}

impl<'a> From<&'a Tensor> for TensorView<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}

impl<'a, D: Dimension> From<ArrayView<'a, f32, D>> for TensorView<'a> {
    fn from(a: ArrayView<'a, f32, D>) -> Self {
        Self::F32(a.into_dyn())
    }
}

impl<'a, D: Dimension> From<ArrayView<'a, i64, D>> for TensorView<'a> {
    fn from(a: ArrayView<'a, i64, D>) -> Self {
        Self::I64(a.into_dyn())
    }
}

impl<'a, D: Dimension> From<ArrayView<'a, bool, D>> for TensorView<'a> {
    fn from(a: ArrayView<'a, bool, D>) -> Self {
        Self::Bool(a.into_dyn())
    }
}

/// Creates the value of a Boolean input that tracing left in the graph, in the declared shape.
pub(crate) fn switch(info: &TensorInfo, on: bool) -> ArrayD<bool> {
    let shape: Vec<usize> = info.shape.iter().map(|d| d.fixed().unwrap_or(1)).collect();
    ArrayD::from_elem(IxDyn(&shape), on)
}

/// Rejects NaN and infinity in `values`.
///
/// # Errors
/// [`Error::NonFinite`] with the count.
pub fn require_finite(values: &[f32], what: &str, step: usize, steps: usize) -> Result<()> {
    let help = "the model's weights or its precision produce values out of range; try its float32 export, another scheduler, \
                or a lower guidance_scale";
    require_finite_else(values, [what, help], step, steps)
}

/// Rejects NaN and infinity in `values`, with the name of the tensor and the next thing to do for the error.
///
/// # Errors
/// As [`require_finite`].
pub fn require_finite_else(values: &[f32], [what, help]: [&str; 2], step: usize, steps: usize) -> Result<()> {
    // A sum of v × 0 is NaN exactly if some v is not finite. In lanes it vectorizes, unlike a branch per value.
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0_f32; 16];
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, v)| *lane += v * 0.0);
    }
    let poison: f32 = lanes.iter().copied().chain(rest.iter().map(|v| v * 0.0)).sum();
    if poison == 0.0 {
        return Ok(());
    }
    Err(Error::NonFinite {
        what: what.to_owned(),
        step,
        steps,
        count: values.iter().filter(|v| !v.is_finite()).count(),
        total: values.len(),
        help: help.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_values_are_counted() {
        assert!(require_finite(&[0.0, -1.0, f32::MAX, f32::MIN_POSITIVE], "x", 1, 2).is_ok());
        for at in 0..40 {
            let mut values = [1.0; 40];
            values[at] = f32::NEG_INFINITY;
            assert!(require_finite(&values, "x", 1, 2).is_err(), "{at}");
        }
        let error = require_finite(&[0.0, f32::NAN, f32::INFINITY], "the latents", 3, 20).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the latents at step 3 of 20 holds 2 non-finite values of 3"), "{text}");
    }
}
