//! Numbers that are computed side by side.

mod array;
#[cfg(target_arch = "x86_64")]
mod zmm;

pub use array::Array;
#[cfg(target_arch = "x86_64")]
pub use zmm::Zmm;

use super::functions::{Activation, activate};
use super::number::Number;
use super::tile_size::{COLUMNS, LANES};

/// The lanes of a panel's columns.
pub const HALVES: usize = COLUMNS / LANES;

/// Numbers side by side, such as one for each of some channels, in the registers of an instruction set. All kinds compute
/// the same but for the last bit.
pub trait Lane: Copy {
    /// The same number everywhere.
    fn all(value: f32) -> Self;

    /// Takes numbers from an array.
    fn of(values: [f32; LANES]) -> Self;

    /// Returns the numbers as an array.
    fn values(self) -> [f32; LANES];

    /// Reads some numbers, up to 16; the others are zeros.
    fn read<E: Number>(from: &[E]) -> Self;

    /// Writes as many numbers as `to` has room for. Subnormal numbers may become zeros in bfloat16.
    fn write<E: Number>(self, to: &mut [E]);

    /// Reads as many numbers as a panel has columns, in an order of their own, which [`Lane::write_columns`] undoes.
    #[inline(always)]
    fn read_columns<E: Number>(from: &[E]) -> [Self; HALVES] {
        [Self::read(&from[..LANES]), Self::read(&from[LANES..COLUMNS])]
    }

    /// Writes them. Numbers that are midway between two of bfloat16 may go either way.
    #[inline(always)]
    fn write_columns<E: Number>(columns: [Self; HALVES], to: &mut [E]) {
        let (low, high) = to.split_at_mut(LANES);
        columns[0].write(low);
        columns[1].write(high);
    }

    /// Writes a part of a panel: `rows` of it that are side by side, [`OperandValue::GROUP`](super::OperandValue::GROUP) of which
    /// count, with numbers from 0 on or [`f32::NAN`].
    fn write_group<E: Number>(rows: [Self; 2], to: &mut [E]);

    /// Rounds to values of a type. Numbers that are midway between two of bfloat16 may go either way.
    #[inline(always)]
    fn rounded<E: Number>(self) -> Self {
        let mut values = self.values();
        values.iter_mut().for_each(|value| *value = E::from_f32(*value).to_f32());
        Self::of(values)
    }

    /// `self + other`
    fn plus(self, other: Self) -> Self;

    /// `self - other`
    fn minus(self, other: Self) -> Self;

    /// `self · other`
    fn times(self, other: Self) -> Self;

    /// `self + other · factor`, rounded once.
    fn plus_times(self, other: Self, factor: Self) -> Self;

    /// The numbers with those of each pair side by side exchanged.
    fn pairs_swapped(self) -> Self;

    /// The larger of two numbers; `self` if one of them is NaN.
    fn larger(self, other: Self) -> Self;

    /// `2^(self · factor - largest)`, as exactly as `E` keeps it. The exponent is below 127; below -126 the result is that of
    /// -126; that of NaN is [`f32::NAN`].
    fn power_of_two<E: Number>(self, factor: Self, largest: Self) -> Self;

    /// `2^(self · factor)`, as exactly as `E` keeps it, for exponents between -126 and 127.
    fn bounded_power_of_two<E: Number>(self, factor: Self) -> Self;

    /// Zeros.
    #[inline(always)]
    fn zero() -> Self {
        Self::all(0.0)
    }

    /// Applies an activation, as exactly as `E` keeps it.
    #[inline(always)]
    fn activated<E: Number>(self, activation: Activation) -> Self {
        if activation == Activation::Identity {
            return self;
        }
        let mut values = self.values();
        activate(activation, &mut values);
        Self::of(values)
    }
}
