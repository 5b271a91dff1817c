//! Replacement values for a graph's stored weights.

use half::{bf16, f16};

use super::DType;

/// A replacement for a weight that a graph stores, applied when a session opens the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// The weight's name in the graph.
    pub name: String,
    /// The shape, equal to the stored one's unless it is [`WeightLocation::Resized`].
    pub shape: Vec<usize>,
    /// The values, row-major, in the stored element type.
    pub values: WeightValues,
    /// The location of the stored weight.
    pub location: WeightLocation,
}

/// A byte of a graph's file that is replaced when the graph is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteEdit {
    /// The offset in the file.
    pub at: u64,
    /// The stored value.
    pub from: u8,
    /// The replacement.
    pub to: u8,
}

/// The location of a stored weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightLocation {
    /// In the .onnx file, with little-endian values from this byte offset on.
    InGraph(u64),
    /// In an external data file.
    ExternalFile,
    /// Anywhere, with a new shape: the initializer is rewritten.
    Resized {
        /// The graph's message in the .onnx file.
        graph: Field,
        /// The initializer's message in the graph.
        tensor: Field,
    },
}

/// The byte range of a protobuf message in a file, as the field of another message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The first byte of the field, its tag.
    pub start: usize,
    /// The first byte of its contents.
    pub body: usize,
    /// The byte after its contents.
    pub end: usize,
}

/// The values of a weight.
#[derive(Debug, Clone, PartialEq)]
pub enum WeightValues {
    /// IEEE single precision.
    F32(Vec<f32>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
}

impl WeightValues {
    /// Rounds values to the element type; `None` for an unsupported type.
    pub fn round(values: Vec<f32>, dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32(values)),
            DType::F16 => Some(Self::F16(values.into_iter().map(f16::from_f32).collect())),
            DType::Bf16 => Some(Self::Bf16(values.into_iter().map(bf16::from_f32).collect())),
            _ => None,
        }
    }

    /// Converts little-endian bytes to `f32`; `None` for an unsupported type.
    pub fn widen(bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
        let pairs = || bytes.chunks_exact(2).filter_map(|b| b.try_into().ok());
        Some(match dtype {
            DType::F32 => bytes.chunks_exact(4).filter_map(|b| b.try_into().ok()).map(f32::from_le_bytes).collect(),
            DType::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            DType::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            _ => return None,
        })
    }

    /// Writes the values as little-endian bytes to the start of `out` and returns their number of bytes. Writes nothing
    /// if `out` is shorter.
    pub fn write_to(&self, out: &mut [u8]) -> usize {
        fn write<const N: usize>(out: &mut [u8], values: impl ExactSizeIterator<Item = [u8; N]>) -> usize {
            let bytes = values.len() * N;
            if bytes <= out.len() {
                out.chunks_exact_mut(N).zip(values).for_each(|(place, value)| place.copy_from_slice(&value));
            }
            bytes
        }
        match self {
            Self::F32(values) => write(out, values.iter().map(|v| v.to_le_bytes())),
            Self::F16(values) => write(out, values.iter().map(|v| v.to_le_bytes())),
            Self::Bf16(values) => write(out, values.iter().map(|v| v.to_le_bytes())),
        }
    }
}
