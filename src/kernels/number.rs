//! Numbers that the operators multiply.

use half::bf16;

use super::functions::{EXP2, EXP2_BF16, exp2};
use super::operator::OperandType;
use super::scratch::AnyBits;

/// A type of values in operands of matrix products. Sums are float32.
pub trait OperandValue: AnyBits + Copy + Default + Send + Sync + PartialEq + std::fmt::Debug + 'static {
    /// The number of values of one column that are side by side in a panel.
    const GROUP: usize;

    /// Returns the values that a depth takes in an operand.
    fn padded(depth: usize) -> usize;
}

/// A type of operands whose values are numbers by themselves.
pub trait Number: OperandValue {
    /// The type's name in those of operators.
    const TYPE: OperandType;
    /// The depth of every product is a multiple of this: operands are padded with zeros.
    const STEP: usize;

    /// Rounds to the nearest value, ties to even.
    fn from_f32(value: f32) -> Self;

    /// Widens, without rounding.
    fn to_f32(self) -> f32;

    /// Returns `2^x` for x below 127, as exactly as this type keeps it.
    fn power_of_two(x: f32) -> f32;
}

impl OperandValue for f32 {
    const GROUP: usize = 1;

    fn padded(depth: usize) -> usize {
        depth.next_multiple_of(Self::STEP)
    }
}

impl Number for f32 {
    const TYPE: OperandType = OperandType::Float32;
    const STEP: usize = 1;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn power_of_two(x: f32) -> f32 {
        exp2(x, &EXP2)
    }
}

impl OperandValue for bf16 {
    const GROUP: usize = 2;

    fn padded(depth: usize) -> usize {
        depth.next_multiple_of(Self::STEP)
    }
}

impl Number for bf16 {
    const TYPE: OperandType = OperandType::Bf16;
    const STEP: usize = 32;

    /// Written out, so that the compiler vectorizes it. NaN stays NaN.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff).wrapping_add((bits >> 16) & 1);
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        let chosen = if is_nan { bits | 0x0040_0000 } else { rounded };
        bf16::from_bits((chosen >> 16) as u16)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Less exact than float32.
    #[inline(always)]
    fn power_of_two(x: f32) -> f32 {
        exp2(x, &EXP2_BF16)
    }
}
