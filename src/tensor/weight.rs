//! Values that go in the place of a weight that a graph stores.

use half::{bf16, f16};

use super::DType;

/// A weight of a graph, replaced: what a session is opened with in the place of what the graph stores.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// The name under which the graph stores it.
    pub name: String,
    /// Its shape, which is that of the stored one.
    pub shape: Vec<usize>,
    /// Its values, row-major, in the element type of the stored one.
    pub values: WeightValues,
    /// Where the graph stores it.
    pub place: WeightPlace,
}

/// One byte of a graph's file, read as another when the graph is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteEdit {
    /// Where it is.
    pub at: u64,
    /// What it is.
    pub from: u8,
    /// What it is read as.
    pub to: u8,
}

/// Where a graph stores a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightPlace {
    /// In the .onnx file itself, its values from this byte on, little-endian.
    Inside(u64),
    /// In a file beside it.
    Beside,
    /// Anywhere, and its shape is another one: the initializer itself is written anew.
    Grown {
        /// The graph's message in the .onnx file.
        graph: Field,
        /// The initializer's.
        tensor: Field,
    },
}

/// The place of a protobuf message in a file, as the field of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Where the field begins, which is with its number.
    pub start: usize,
    /// Where its contents begin.
    pub body: usize,
    /// The byte after its last.
    pub end: usize,
}

/// Values of a weight, in an element type that weights of diffusion models have.
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
    /// Rounds values to the element type, or gives `None` where it is not one of these.
    pub fn round(values: Vec<f32>, dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32(values)),
            DType::F16 => Some(Self::F16(values.into_iter().map(f16::from_f32).collect())),
            DType::Bf16 => Some(Self::Bf16(values.into_iter().map(bf16::from_f32).collect())),
            _ => None,
        }
    }

    /// Reads little-endian bytes as `f32`; `None` where the element type is not one of these.
    pub fn widen(bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
        let pairs = || bytes.chunks_exact(2).filter_map(|b| b.try_into().ok());
        Some(match dtype {
            DType::F32 => bytes.chunks_exact(4).filter_map(|b| b.try_into().ok()).map(f32::from_le_bytes).collect(),
            DType::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            DType::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            _ => return None,
        })
    }

    /// Writes the values as little-endian bytes to the beginning of `out`, and says how many bytes they are; writes
    /// nothing where `out` is shorter.
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
