//! Attributes that hold an element type or values of one.

use half::f16;
use prost::Message;

use crate::bundle::proto::{AttributeProto, NodeProto};
use crate::quantize::half_precision::with_half_limits;
use crate::rewrite::edits::int;
use crate::rewrite::indexed_graph::{IndexedGraph, attribute, is, output};
use crate::rewrite::numbers::{TensorValues, Values};
use crate::tensor::{DType, Field};

/// Operators whose attribute `dtype` is the type of their result, and their types without it.
const TYPED: &[(&str, Option<DType>)] = &[
    ("RandomNormal", Some(DType::F32)),
    ("RandomUniform", Some(DType::F32)),
    ("SequenceEmpty", Some(DType::F32)),
    ("RandomNormalLike", None),
    ("RandomUniformLike", None),
    ("EyeLike", None),
    ("Bernoulli", None),
];

/// `AttributeProto` with a tensor.
#[derive(Clone, PartialEq, Message)]
struct TensorAttribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    t: Option<TensorValues>,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

/// Returns the attribute of a node at `place` for half precision, or for float32 with the limits of half precision; `None`
/// if it stays as it is.
pub fn changed_attribute(
    source: &IndexedGraph<'_>,
    node: &NodeProto,
    is_single: bool,
    place: Field,
) -> Option<Vec<u8>> {
    let own = AttributeProto::decode(source.bytes().get(place.body..place.end)?).ok()?;
    if own.name == "value" && is(node, "ConstantOfShape") {
        let numbers = source.constant(output(node)?).filter(|numbers| numbers.dtype == DType::F32)?;
        let Values::Real(values) = numbers.values else { return None };
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        return Some(filled_with(&with_half_limits(&bytes), numbers.dims, is_single));
    }
    let is_type = (own.name == "to" && is(node, "Cast")) || (own.name == "dtype" && typed(node).is_some());
    let is_changed = is_type && !is_single && own.i == i64::from(DType::F32.to_onnx());
    is_changed.then(|| int(&own.name, i64::from(DType::F16.to_onnx())).encode_to_vec())
}

/// Returns the attribute that a node needs in half precision where its result is float32 without one.
pub fn added_attribute(node: &NodeProto, is_single: bool) -> Option<Vec<u8>> {
    let lacks = |name: &str| !is_single && attribute(node, name).is_none();
    if typed(node) == Some(Some(DType::F32)) && lacks("dtype") {
        return Some(int("dtype", i64::from(DType::F16.to_onnx())).encode_to_vec());
    }
    (is(node, "ConstantOfShape") && lacks("value")).then(|| filled_with(&0f32.to_le_bytes(), vec![1], false))
}

fn typed(node: &NodeProto) -> Option<Option<DType>> {
    TYPED.iter().find(|(name, _)| is(node, name)).map(|(_, default)| *default)
}

/// Returns the attribute of a `ConstantOfShape` with little-endian float32 values.
fn filled_with(bytes: &[u8], dims: Vec<i64>, is_single: bool) -> Vec<u8> {
    /// The number of a tensor in `AttributeProto.AttributeType`.
    const TENSOR: i32 = 4;
    let (dtype, raw_data) = match is_single {
        true => (DType::F32, bytes.to_vec()),
        false => {
            // A number beyond half precision's range hides what it is added to; infinity would make NaN of it.
            let limited = |value: &[u8; 4]| match f32::from_le_bytes(*value) {
                value if value.is_finite() => value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()),
                value => value,
            };
            let values = bytes.as_chunks::<4>().0.iter().map(limited);
            (DType::F16, values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect())
        }
    };
    let t = TensorValues { dims, data_type: dtype.to_onnx(), raw_data, ..TensorValues::default() };
    TensorAttribute { name: "value".to_owned(), t: Some(t), r#type: TENSOR }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_beyond_half_precision_become_its_limits() {
        for (fill, expected) in [(-1e9, -65504.0), (1e9, 65504.0), (0.5, 0.5), (f32::NEG_INFINITY, f32::NEG_INFINITY)] {
            let bytes = filled_with(&f32::to_le_bytes(fill), vec![1], false);
            let tensor = TensorAttribute::decode(bytes.as_slice()).unwrap().t.unwrap();
            assert_eq!(tensor.raw_data, f16::from_f32(expected).to_le_bytes(), "{fill}");
        }
    }
}
