//! Numbers that are computed side by side. Plain loops, which the compiler vectorizes; it does not inline the closures of arrays' own
//! methods into code for other instructions.

use super::number::Number;
use super::tile_size::{COLUMNS, LANES};

/// The lanes of a panel's columns.
pub const HALVES: usize = COLUMNS / LANES;

/// Numbers side by side, such as one for each of some channels.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Lane(pub [f32; LANES]);

impl Lane {
    /// Zeros.
    pub const ZERO: Self = Self([0.0; LANES]);

    /// The same number everywhere.
    #[inline(always)]
    pub fn all(value: f32) -> Self {
        Self([value; LANES])
    }

    /// The larger of two numbers; of NaN and another one, the other one.
    #[inline(always)]
    pub fn larger(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own = if *other > *own { *other } else { *own });
        self
    }

    /// `self · other`
    #[inline(always)]
    pub fn times_each(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own *= other);
        self
    }

    /// `2^self` for numbers up to 0, as exactly as `E` keeps it.
    #[inline(always)]
    pub fn power_of_two<E: Number>(mut self) -> Self {
        self.0.iter_mut().for_each(|own| *own = E::power_of_two(*own));
        self
    }

    /// Reads some numbers, up to 16.
    #[inline(always)]
    pub fn read<E: Number>(from: &[E]) -> Self {
        let mut to = Self::ZERO;
        if let Some(from) = from.first_chunk::<LANES>() {
            to.0.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
        } else {
            to.0.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
        }
        to
    }

    /// Writes as many numbers as `to` has room for.
    #[inline(always)]
    pub fn write<E: Number>(&self, to: &mut [E]) {
        if let Some(to) = to.first_chunk_mut::<LANES>() {
            to.iter_mut().zip(&self.0).for_each(|(to, from)| *to = E::from_f32(*from));
        } else {
            to.iter_mut().zip(&self.0).for_each(|(to, from)| *to = E::from_f32(*from));
        }
    }

    /// `self + other`
    #[inline(always)]
    pub fn plus(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own += other);
        self
    }

    /// `self - other`
    #[inline(always)]
    pub fn minus(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own -= other);
        self
    }

    /// `self · factor`
    #[inline(always)]
    pub fn times(mut self, factor: f32) -> Self {
        self.0.iter_mut().for_each(|own| *own *= factor);
        self
    }

    /// `self + other · factor`
    #[inline(always)]
    pub fn plus_times(mut self, other: &Self, factor: f32) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own = other.mul_add(factor, *own));
        self
    }
}
