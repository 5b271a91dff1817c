//! Numbers that the operators multiply.

use half::bf16;

use super::functions::{EXP2, EXP2_BF16, exp2};
use super::operator::OperandType;
use super::tile_size::LANES;

/// A type of numbers in operands of matrix products. Sums are float32.
pub trait Number: Copy + Default + Send + Sync + PartialEq + std::fmt::Debug + 'static {
    /// The type's name in those of operators.
    const TYPE: OperandType;
    /// The number of values of one column that are side by side in a panel.
    const GROUP: usize;
    /// The depth of every product is a multiple of this: operands are padded with zeros.
    const STEP: usize;

    /// Rounds to the nearest value, ties to even.
    fn from_f32(value: f32) -> Self;

    /// Widens, without rounding.
    fn to_f32(self) -> f32;

    /// Returns `2^x` for x up to 0, as exactly as this type keeps it.
    fn power_of_two(x: f32) -> f32;

    /// Writes a lane of [`Number::GROUP`] rows of a panel side by side: numbers from 0 to 1.
    fn write_group(rows: &[[f32; LANES]; 2], to: &mut [Self]);
}

impl Number for f32 {
    const TYPE: OperandType = OperandType::Float32;
    const GROUP: usize = 1;
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

    #[inline(always)]
    fn write_group(rows: &[[f32; LANES]; 2], to: &mut [Self]) {
        to.copy_from_slice(&rows[0]);
    }
}

impl Number for bf16 {
    const TYPE: OperandType = OperandType::Bf16;
    const GROUP: usize = 2;
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

    #[inline(always)]
    fn write_group(rows: &[[f32; LANES]; 2], to: &mut [Self]) {
        const HALF: u32 = 0x8000;
        let mut words = [0; LANES];
        for ((word, low), high) in words.iter_mut().zip(&rows[0]).zip(&rows[1]) {
            // Ties round up.
            let [low, high] = [low, high].map(|value| value.to_bits().wrapping_add(HALF));
            *word = match cfg!(target_endian = "little") {
                true => high & 0xffff_0000 | low >> 16,
                false => low & 0xffff_0000 | high >> 16,
            };
        }
        assert_eq!(to.len(), 2 * LANES);
        // SAFETY: `to` has as many bytes.
        unsafe { to.as_mut_ptr().cast::<[u32; LANES]>().write_unaligned(words) };
    }
}
