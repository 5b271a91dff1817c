//! Tensors of a request.

use serde_json::{Number, Value};

use crate::fault::{Answer, Fault};

/// The largest input, in bytes. Encoded images and pixels of 64 megapixels are smaller.
pub(crate) const LARGEST: u64 = 1 << 28;

/// The data types of inputs, by their values in `TRITONSERVER_DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataType {
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp32,
    Fp64,
    Bytes,
}

impl DataType {
    pub(crate) fn of(value: u32) -> Option<Self> {
        Some(match value {
            2 => Self::Uint8,
            3 => Self::Uint16,
            4 => Self::Uint32,
            5 => Self::Uint64,
            6 => Self::Int8,
            7 => Self::Int16,
            8 => Self::Int32,
            9 => Self::Int64,
            11 => Self::Fp32,
            12 => Self::Fp64,
            13 => Self::Bytes,
            _ => return None,
        })
    }

    // Values of the outputs' types.
    pub(crate) const UINT8: u32 = 2;
    pub(crate) const UINT64: u32 = 5;
    pub(crate) const BYTES: u32 = 13;

    /// Bytes of an element; `None` for texts, which have their own lengths.
    fn size(self) -> Option<usize> {
        match self {
            Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

/// An input with its data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub name: String,
    pub data_type: DataType,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// A part of a tensor: all of it, or a row of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'t> {
    pub name: &'t str,
    pub data_type: DataType,
    pub shape: &'t [usize],
    data: &'t [u8],
}

impl Tensor {
    /// Checks the data against the shape, and returns the whole tensor as one part or, with batches, a part for each index
    /// of the first axis.
    pub(crate) fn parts(&self, is_batched: bool) -> Answer<Vec<Part<'_>>> {
        let (rows, shape) = match (is_batched, &self.shape[..]) {
            (true, [0, ..]) => return Err(self.fault("expected a batch of one row or more, found none")),
            (true, [rows, rest @ ..]) => (*rows, rest),
            (true, []) => return Err(self.fault("expected a batch axis, found a scalar")),
            (false, shape) => (1, shape),
        };
        let count = shape.iter().try_fold(1_usize, |product, axis| product.checked_mul(*axis));
        let count = count.filter(|count| count.checked_mul(rows.max(1)).is_some_and(|all| all as u64 <= LARGEST));
        let count = count.ok_or_else(|| self.fault(format_args!("its shape {:?} is too large", self.shape)))?;
        let mut rest = &self.data[..];
        let mut parts = Vec::with_capacity(rows);
        for _ in 0..rows {
            let length = match self.data_type.size() {
                Some(size) => Some(count * size).filter(|length| *length <= rest.len()),
                None => length_of_texts(rest, count),
            };
            let Some(length) = length else { return Err(self.mismatch()) };
            let (data, after) = rest.split_at(length);
            parts.push(Part { name: &self.name, data_type: self.data_type, shape, data });
            rest = after;
        }
        if rest.is_empty() { Ok(parts) } else { Err(self.mismatch()) }
    }

    fn mismatch(&self) -> Fault {
        self.fault(format_args!("its {} bytes do not fit its shape {:?}", self.data.len(), self.shape))
    }

    fn fault(&self, problem: impl std::fmt::Display) -> Fault {
        Fault::input(&self.name, problem)
    }
}

impl<'t> Part<'t> {
    /// The texts of a tensor of texts: each has its length before it, 4 bytes, little-endian.
    pub(crate) fn texts(&self) -> Answer<Vec<&'t [u8]>> {
        if self.data_type != DataType::Bytes {
            return Err(self.fault(format_args!("expected a text, found {:?}", self.data_type)));
        }
        let mut rest = self.data;
        let mut texts = Vec::new();
        while let Some((text, after)) = first_text(rest) {
            texts.push(text);
            rest = after;
        }
        Ok(texts)
    }

    /// The texts, which must be UTF-8.
    pub(crate) fn strings(&self) -> Answer<Vec<&'t str>> {
        let string =
            |text| std::str::from_utf8(text).map_err(|error| self.fault(format_args!("is not UTF-8: {error}")));
        self.texts()?.into_iter().map(string).collect()
    }

    /// The data as it is.
    pub(crate) fn bytes(&self) -> &'t [u8] {
        self.data
    }

    /// The numbers of a tensor of numbers. A float32 is the shortest decimal that stands for it: 0.8, not
    /// 0.800000011920929.
    pub(crate) fn numbers(&self) -> Answer<Vec<Value>> {
        let size = self.data_type.size().ok_or_else(|| self.fault("expected numbers, found texts"))?;
        self.data.chunks_exact(size).map(|element| self.number(element)).collect()
    }

    fn number(&self, element: &[u8]) -> Answer<Value> {
        let mut bytes = [0; 8];
        bytes[..element.len()].copy_from_slice(element);
        let float = |value: f64| {
            let number = Number::from_f64(value);
            number.map(Value::Number).ok_or_else(|| self.fault(format_args!("expected a finite number, found {value}")))
        };
        let unsigned = |value: u64| match i64::try_from(value) {
            Ok(value) => Ok(Value::from(value)),
            Err(_) => Err(self.fault(format_args!("expected at most {}, found {value}", i64::MAX))),
        };
        let low = |bytes: [u8; 8]| [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(match self.data_type {
            DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => {
                unsigned(u64::from_le_bytes(bytes))?
            }
            DataType::Int8 => i8::from_le_bytes([bytes[0]]).into(),
            DataType::Int16 => i16::from_le_bytes([bytes[0], bytes[1]]).into(),
            DataType::Int32 => i32::from_le_bytes(low(bytes)).into(),
            DataType::Int64 => i64::from_le_bytes(bytes).into(),
            DataType::Fp32 => float(f32::from_le_bytes(low(bytes)).to_string().parse().unwrap_or(f64::NAN))?,
            DataType::Fp64 => float(f64::from_le_bytes(bytes))?,
            DataType::Bytes => return Err(self.fault("expected numbers, found texts")),
        })
    }

    pub(crate) fn fault(&self, problem: impl std::fmt::Display) -> Fault {
        Fault::input(self.name, problem)
    }
}

/// Returns the first text and what follows.
fn first_text(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

/// Returns the bytes that `count` texts take.
fn length_of_texts(data: &[u8], count: usize) -> Option<usize> {
    let mut rest = data;
    for _ in 0..count {
        rest = first_text(rest)?.1;
    }
    Some(data.len() - rest.len())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tensor of texts.
    pub(crate) fn texts(name: &str, shape: &[usize], texts: &[&[u8]]) -> Tensor {
        let lengths = texts.iter().map(|text| u32::try_from(text.len()).expect("a length").to_le_bytes());
        let data = lengths.zip(texts).flat_map(|(length, text)| [&length[..], text].concat()).collect();
        Tensor { name: name.to_owned(), data_type: DataType::Bytes, shape: shape.to_vec(), data }
    }

    /// A tensor of 32-bit integers.
    pub(crate) fn integers(name: &str, shape: &[usize], values: &[i32]) -> Tensor {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { name: name.to_owned(), data_type: DataType::Int32, shape: shape.to_vec(), data }
    }

    #[test]
    fn splits_batches() {
        let tensor = texts("PROMPT", &[3, 1], &[b"a", b"", b"three"]);
        let parts = tensor.parts(true).expect("parts");
        let strings: Vec<_> = parts.iter().map(|part| part.strings().expect("strings")).collect();
        assert_eq!(strings, [["a"], [""], ["three"]]);
        let tensor = integers("STEPS", &[2, 1], &[4, -5]);
        let numbers: Vec<_> = tensor.parts(true).expect("parts").iter().map(|part| part.numbers()).collect();
        assert_eq!(numbers, [Ok(vec![4.into()]), Ok(vec![(-5).into()])]);
    }

    #[test]
    fn refuses_data_that_does_not_fit() {
        let named = |tensor: Tensor, is_batched| {
            tensor
                .parts(is_batched)
                .err()
                .is_some_and(|fault| fault.message.starts_with(&format!("input {}: ", tensor.name)))
        };
        assert!(named(integers("STEPS", &[2], &[1, 2, 3]), false));
        assert!(named(integers("STEPS", &[4], &[1, 2, 3]), false));
        assert!(named(integers("STEPS", &[], &[1]), true));
        assert!(named(integers("STEPS", &[0, 1], &[]), true));
        assert!(named(integers("STEPS", &[usize::MAX, 2], &[]), false));
        assert!(named(integers("STEPS", &[1 << 40], &[]), true));
        assert!(named(texts("PROMPT", &[2], &[b"a"]), false));
        let mut cut = texts("PROMPT", &[1], &[b"abc"]);
        cut.data.pop();
        assert!(named(cut, false));
    }

    #[test]
    fn floats_are_the_shortest_decimals() {
        let data = [0.8_f32, 7.5].iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor { name: "X".to_owned(), data_type: DataType::Fp32, shape: vec![2], data };
        let parts = tensor.parts(false).expect("parts");
        assert_eq!(parts[0].numbers(), Ok(vec![0.8.into(), 7.5.into()]));
        let data = f32::NAN.to_le_bytes().to_vec();
        let tensor = Tensor { name: "X".to_owned(), data_type: DataType::Fp32, shape: vec![1], data };
        assert!(tensor.parts(false).expect("parts")[0].numbers().is_err());
        let data = u64::MAX.to_le_bytes().to_vec();
        let tensor = Tensor { name: "X".to_owned(), data_type: DataType::Uint64, shape: vec![1], data };
        assert!(tensor.parts(false).expect("parts")[0].numbers().is_err());
    }
}
