//! The known facts about one tensor.

use crate::rewrite::length::Length;
use crate::rewrite::numbers::Values;
use crate::tensor::DType;

/// The maximum number of values of a tensor to track individually.
pub const FEW: usize = 16;

/// The known facts about a tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TensorFact {
    /// The element type.
    pub dtype: Option<DType>,
    /// The shape.
    pub shape: Option<Vec<Length>>,
    /// The values, row-major, if they are few.
    pub value: Option<KnownValue>,
}

/// Known values.
#[derive(Debug, Clone, PartialEq)]
pub enum KnownValue {
    /// Integers, such as lengths.
    Whole(Vec<Length>),
    /// Floating-point numbers.
    Real(Vec<f32>),
}

impl KnownValue {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(values) => values.len(),
            Self::Real(values) => values.len(),
        }
    }

    /// Returns the only value, of either type.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(values) => match values.as_slice() {
                [one] => one.number().map(|n| n as f64),
                _ => None,
            },
            Self::Real(values) => match values.as_slice() {
                [one] => Some(f64::from(*one)),
                _ => None,
            },
        }
    }

    /// Returns the integers.
    pub fn whole(&self) -> Option<&[Length]> {
        match self {
            Self::Whole(values) => Some(values),
            Self::Real(_) => None,
        }
    }
}

impl From<Values> for KnownValue {
    fn from(values: Values) -> Self {
        match values {
            Values::Whole(values) => Self::Whole(values.into_iter().map(Length::from).collect()),
            Values::Real(values) => Self::Real(values),
        }
    }
}
