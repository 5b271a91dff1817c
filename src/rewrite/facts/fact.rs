//! What is known of one tensor.

use crate::rewrite::symbol::Length;
use crate::tensor::DType;

/// Tensors with more numbers than these are not followed number by number.
pub(super) const FEW: usize = 16;

/// What is known of one tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fact {
    /// The element type.
    pub dtype: Option<DType>,
    /// The shape.
    pub shape: Option<Vec<Length>>,
    /// The numbers, row-major, where they are few.
    pub value: Option<Value>,
}

/// Numbers that are known.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Whole ones, such as lengths.
    Whole(Vec<Length>),
    /// Those of floating point.
    Real(Vec<f32>),
}

impl Value {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Whole(values) => values.len(),
            Self::Real(values) => values.len(),
        }
    }

    /// The one number, of whichever kind.
    pub(super) fn number(&self) -> Option<f64> {
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

    /// The whole numbers.
    pub(super) fn whole(&self) -> Option<&[Length]> {
        match self {
            Self::Whole(values) => Some(values),
            Self::Real(_) => None,
        }
    }
}
