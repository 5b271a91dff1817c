//! Converts between the caller's types (`f32`, `i64`, `bool`) and those that graphs declare.

use std::fmt::{Debug, Display};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ndarray::ArrayViewD;
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, TensorElementType, TensorRef};

use crate::tensor::{DType, TensorView};

/// Converted values of one input. It is reused between runs so that a loop does not allocate.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    f32: Vec<f32>,
    f16: Vec<f16>,
    bf16: Vec<bf16>,
    f64: Vec<f64>,
    i64: Vec<i64>,
    i32: Vec<i32>,
    bool: Vec<bool>,
}

/// Converts `view` to the runtime's value with the graph's element type. Borrows the caller's values if type and layout
/// already match the graph's, and uses `buffer` otherwise.
///
/// The error is one sentence without the tensor's name: a value that the graph's type cannot hold, or an unsupported
/// type.
pub(super) fn input<'v>(
    view: &'v TensorView<'_>,
    dtype: DType,
    buffer: &'v mut Buffer,
) -> Result<SessionInputValue<'v>, String> {
    let shape = view.shape();
    match (view, dtype) {
        (TensorView::F32(a), DType::F32) => borrowed(a, shape, &mut buffer.f32),
        (TensorView::I64(a), DType::I64) => borrowed(a, shape, &mut buffer.i64),
        (TensorView::Bool(a), DType::Bool) => borrowed(a, shape, &mut buffer.bool),

        (TensorView::F32(a), DType::F16) => {
            buffer.f16.resize(a.len(), f16::ZERO);
            buffer.f16.convert_from_f32_slice(contiguous(a, &mut buffer.f32));
            value(shape, &buffer.f16)
        }
        (TensorView::F32(a), DType::Bf16) => {
            buffer.bf16.resize(a.len(), bf16::ZERO);
            buffer.bf16.convert_from_f32_slice(contiguous(a, &mut buffer.f32));
            value(shape, &buffer.bf16)
        }
        (TensorView::F32(a), DType::F64) => converted(a, shape, &mut buffer.f64, |x| Ok(f64::from(x))),
        (TensorView::F32(a), DType::I64) => converted(a, shape, &mut buffer.i64, to_integer),
        (TensorView::F32(a), DType::Bool) => converted(a, shape, &mut buffer.bool, |x| to_bool(to_integer(x)?)),
        (TensorView::F32(a), DType::I32) => converted(a, shape, &mut buffer.i32, |x| to_i32(to_integer(x)?)),

        (TensorView::I64(a), DType::I32) => converted(a, shape, &mut buffer.i32, to_i32),
        (TensorView::I64(a), DType::F32) => converted(a, shape, &mut buffer.f32, |x| Ok(x as f32)),
        (TensorView::I64(a), DType::F64) => converted(a, shape, &mut buffer.f64, |x| Ok(x as f64)),
        (TensorView::I64(a), DType::F16) => converted(a, shape, &mut buffer.f16, |x| Ok(f16::from_f64(x as f64))),
        (TensorView::I64(a), DType::Bf16) => converted(a, shape, &mut buffer.bf16, |x| Ok(bf16::from_f64(x as f64))),
        (TensorView::I64(a), DType::Bool) => converted(a, shape, &mut buffer.bool, to_bool),

        (TensorView::Bool(a), DType::I64) => converted(a, shape, &mut buffer.i64, |x| Ok(i64::from(x))),
        (TensorView::Bool(a), DType::I32) => converted(a, shape, &mut buffer.i32, |x| Ok(i32::from(x))),
        (TensorView::Bool(a), DType::F32) => converted(a, shape, &mut buffer.f32, |x| Ok(f32::from(u8::from(x)))),

        (view, dtype) => Err(format!("{} values cannot be converted to {dtype}", kind(view))),
    }
}

/// Converts `view` to a value with the graph's element type that owns its memory.
///
/// The error is as that of [`input`].
pub(super) fn owned(view: &TensorView<'_>, dtype: DType) -> Result<DynValue, String> {
    let mut buffer = Buffer::default();
    let value = input(view, dtype, &mut buffer)?;
    match dtype {
        DType::F32 => copied::<f32>(&value),
        DType::F16 => copied::<f16>(&value),
        DType::Bf16 => copied::<bf16>(&value),
        DType::F64 => copied::<f64>(&value),
        DType::I64 => copied::<i64>(&value),
        DType::I32 => copied::<i32>(&value),
        _ => copied::<bool>(&value),
    }
}

fn copied<T: PrimitiveTensorElementType + Clone + Debug + 'static>(value: &DynValue) -> Result<DynValue, String> {
    let (shape, values) = value.try_extract_tensor::<T>().map_err(|e| e.to_string())?;
    Tensor::from_array((shape.to_vec(), values.to_vec())).map(Tensor::into_dyn).map_err(|e| e.to_string())
}

/// Returns the name of the caller's type.
pub(super) fn kind(view: &TensorView<'_>) -> &'static str {
    match view {
        TensorView::F32(_) => "float32",
        TensorView::I64(_) => "int64",
        TensorView::Bool(_) => "bool",
    }
}

/// Converts `x` to an integer, if it is one.
fn to_integer(x: f32) -> Result<i64, String> {
    // 2^63 is the first float beyond int64; every integral f32 below it converts exactly.
    if x.fract() == 0.0 && x.abs() < 9_223_372_036_854_775_808.0 {
        Ok(x as i64)
    } else {
        Err(format!("value {x} is not an integer"))
    }
}

fn to_bool(x: i64) -> Result<bool, String> {
    match x {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(format!("value {x} is neither 0 nor 1")),
    }
}

fn to_i32(x: i64) -> Result<i32, String> {
    i32::try_from(x).map_err(|_| format!("value {x} does not fit int32"))
}

/// Returns the values in row-major order; copies them to `buffer` only if they are not already.
fn contiguous<'v, T: Copy>(a: &'v ArrayViewD<'_, T>, buffer: &'v mut Vec<T>) -> &'v [T] {
    match a.as_slice() {
        Some(values) => values,
        None => {
            buffer.clear();
            buffer.extend(a.iter().copied());
            buffer
        }
    }
}

fn borrowed<'v, T>(
    a: &'v ArrayViewD<'_, T>,
    shape: &[usize],
    buffer: &'v mut Vec<T>,
) -> Result<SessionInputValue<'v>, String>
where
    T: PrimitiveTensorElementType + Copy + Debug + 'static,
{
    value(shape, contiguous(a, buffer))
}

fn converted<'v, S, T>(
    a: &ArrayViewD<'_, S>,
    shape: &[usize],
    buffer: &'v mut Vec<T>,
    convert: impl Fn(S) -> Result<T, String>,
) -> Result<SessionInputValue<'v>, String>
where
    S: Copy + Display,
    T: PrimitiveTensorElementType + Copy + Debug + 'static,
{
    buffer.clear();
    buffer.reserve(a.len());
    for x in a {
        buffer.push(convert(*x)?);
    }
    value(shape, buffer)
}

fn value<'v, T>(shape: &[usize], values: &'v [T]) -> Result<SessionInputValue<'v>, String>
where
    T: PrimitiveTensorElementType + Clone + Debug + 'static,
{
    TensorRef::from_array_view((shape.to_vec(), values)).map(SessionInputValue::from).map_err(|e| e.to_string())
}

/// Returns the shape of an output, as the runtime reports it.
pub(super) fn output_shape(value: &DynValue) -> Result<Vec<usize>, String> {
    let shape = value.dtype().tensor_shape().ok_or("it is not a tensor")?;
    shape.iter().map(|&n| usize::try_from(n).map_err(|_| format!("it has an axis of length {n}"))).collect()
}

/// Writes an output's values to `out` as `f32`. `out` has as many values as the output.
pub(super) fn output(value: &DynValue, out: &mut [f32]) -> Result<(), String> {
    let dtype = value.dtype().tensor_type().ok_or("it is not a tensor")?;
    match dtype {
        TensorElementType::Float32 => out.copy_from_slice(values(value, out.len())?),
        TensorElementType::Float16 => values::<f16>(value, out.len())?.convert_to_f32_slice(out),
        TensorElementType::Bfloat16 => values::<bf16>(value, out.len())?.convert_to_f32_slice(out),
        TensorElementType::Float64 => fill(out, values::<f64>(value, out.len())?, |x| x as f32),
        TensorElementType::Int64 => fill(out, values::<i64>(value, out.len())?, |x| x as f32),
        TensorElementType::Int32 => fill(out, values::<i32>(value, out.len())?, |x| x as f32),
        TensorElementType::Uint8 => fill(out, values::<u8>(value, out.len())?, f32::from),
        TensorElementType::Bool => fill(out, values::<bool>(value, out.len())?, |x| f32::from(u8::from(x))),
        other => return Err(format!("its element type {other} cannot be read as float32")),
    }
    Ok(())
}

fn values<T: PrimitiveTensorElementType>(value: &DynValue, expected: usize) -> Result<&[T], String> {
    let (_, values) = value.try_extract_tensor::<T>().map_err(|e| e.to_string())?;
    if values.len() == expected {
        Ok(values)
    } else {
        Err(format!("it has {} values where {expected} were expected", values.len()))
    }
}

fn fill<T: Copy>(out: &mut [f32], values: &[T], convert: impl Fn(T) -> f32) {
    for (o, v) in out.iter_mut().zip(values) {
        *o = convert(*v);
    }
}
