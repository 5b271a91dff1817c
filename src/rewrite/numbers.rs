//! The values that a graph stores, in all of their encodings.

use prost::Message;

use crate::bundle::proto::StringEntry;
use crate::tensor::{DType, WeightValues};

/// `TensorProto` with its values.
#[derive(Clone, PartialEq, Message)]
pub struct TensorValues {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringEntry>,
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// `NodeProto` of a `Constant`, with its values.
#[derive(Clone, PartialEq, Message)]
struct ConstantNode {
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<ConstantAttribute>,
}

/// `AttributeProto` of a `Constant`.
#[derive(Clone, PartialEq, Message)]
struct ConstantAttribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(message, optional, tag = "5")]
    t: Option<TensorValues>,
    #[prost(float, repeated, tag = "7")]
    floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
}

/// A stored tensor's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// The shape.
    pub dims: Vec<i64>,
    /// The element type.
    pub dtype: DType,
    /// The values, row-major.
    pub values: Values,
}

/// Values, converted to one of two types.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Integers and booleans.
    Whole(Vec<i64>),
    /// Floating-point numbers.
    Real(Vec<f32>),
}

impl Numbers {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Whole(values) => values.len(),
            Values::Real(values) => values.len(),
        }
    }

    /// Reads a tensor; `external` returns the bytes of an external one. `None` for an unsupported type or encoding, and
    /// if the number of values does not match the shape.
    pub fn read<'b>(tensor: &TensorValues, external: impl FnOnce(&TensorValues) -> Option<&'b [u8]>) -> Option<Self> {
        let is_beside = tensor.data_location != 0 || !tensor.external_data.is_empty();
        let raw = if is_beside { external(tensor)? } else { &tensor.raw_data };
        let dtype = DType::from_onnx(tensor.data_type);
        let count = tensor.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))?;
        let is_raw = is_beside || !tensor.raw_data.is_empty();
        let wide = || raw.chunks_exact(8).filter_map(|b| <[u8; 8]>::try_from(b).ok());
        let narrow = || raw.chunks_exact(4).filter_map(|b| <[u8; 4]>::try_from(b).ok());
        let values = match dtype {
            DType::I64 if is_raw => Values::Whole(wide().map(i64::from_le_bytes).collect()),
            DType::I64 => Values::Whole(tensor.int64_data.clone()),
            DType::I32 if is_raw => Values::Whole(narrow().map(|b| i64::from(i32::from_le_bytes(b))).collect()),
            DType::Bool if is_raw => Values::Whole(raw.iter().map(|&b| i64::from(b)).collect()),
            DType::I32 | DType::Bool => Values::Whole(tensor.int32_data.iter().map(|&n| i64::from(n)).collect()),
            DType::F64 if is_raw => Values::Real(wide().map(|b| f64::from_le_bytes(b) as f32).collect()),
            DType::F64 => Values::Real(tensor.double_data.iter().map(|&v| v as f32).collect()),
            DType::F32 if !is_raw => Values::Real(tensor.float_data.clone()),
            // The bits of a number in each.
            DType::F16 | DType::Bf16 if !is_raw => {
                let bits = tensor.int32_data.iter().flat_map(|&bits| (bits as u16).to_le_bytes());
                Values::Real(WeightValues::widen(&bits.collect::<Vec<u8>>(), dtype)?)
            }
            DType::F32 | DType::F16 | DType::Bf16 => Values::Real(WeightValues::widen(raw, dtype)?),
            DType::Other(_) => return None,
        };
        Some(Self { dims: tensor.dims.clone(), dtype, values }).filter(|numbers| numbers.len() == count)
    }

    /// Reads the value of a `Constant` from the node's bytes; `external` as in [`Numbers::read`].
    pub fn read_constant<'b>(node: &[u8], external: impl FnOnce(&TensorValues) -> Option<&'b [u8]>) -> Option<Self> {
        let node = ConstantNode::decode(node).ok()?;
        let [attribute] = node.attribute.as_slice() else { return None };
        let list = |n: usize| i64::try_from(n).ok().map(|n| vec![n]);
        let (dims, dtype, values) = match attribute.name.as_str() {
            "value" => return Self::read(attribute.t.as_ref()?, external),
            "value_float" => (Vec::new(), DType::F32, Values::Real(vec![attribute.f])),
            "value_floats" => (list(attribute.floats.len())?, DType::F32, Values::Real(attribute.floats.clone())),
            "value_int" => (Vec::new(), DType::I64, Values::Whole(vec![attribute.i])),
            "value_ints" => (list(attribute.ints.len())?, DType::I64, Values::Whole(attribute.ints.clone())),
            _ => return None,
        };
        Some(Self { dims, dtype, values })
    }
}
