//! A lane in plain Rust, which the compiler vectorizes. Plain loops: it does not inline the closures of arrays' own methods
//! into code for other instructions.

use super::Lane;
use crate::kernels::number::Number;
use crate::kernels::tile_size::LANES;

/// Numbers in an array.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Array([f32; LANES]);

impl Array {
    #[inline(always)]
    fn each(mut self, other: Self, of: impl Fn(f32, f32) -> f32) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own = of(*own, *other));
        self
    }
}

impl Lane for Array {
    #[inline(always)]
    fn all(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn of(values: [f32; LANES]) -> Self {
        Self(values)
    }

    #[inline(always)]
    fn values(self) -> [f32; LANES] {
        self.0
    }

    #[inline(always)]
    fn read<E: Number>(from: &[E]) -> Self {
        let mut to = [0.0; LANES];
        if let Some(from) = from.first_chunk::<LANES>() {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
        } else {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
        }
        Self(to)
    }

    #[inline(always)]
    fn write<E: Number>(self, to: &mut [E]) {
        if let Some(to) = to.first_chunk_mut::<LANES>() {
            to.iter_mut().zip(&self.0).for_each(|(to, from)| *to = E::from_f32(*from));
        } else {
            to.iter_mut().zip(&self.0).for_each(|(to, from)| *to = E::from_f32(*from));
        }
    }

    #[inline(always)]
    fn write_group<E: Number>(rows: [Self; 2], to: &mut [E]) {
        for (at, to) in to.chunks_exact_mut(E::GROUP).enumerate() {
            to.iter_mut().zip(&rows).for_each(|(to, row)| *to = E::from_f32(row.0[at]));
        }
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.each(other, |own, other| own + other)
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.each(other, |own, other| own - other)
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self.each(other, |own, other| own * other)
    }

    #[inline(always)]
    fn plus_times(mut self, other: Self, factor: Self) -> Self {
        let factors = other.0.iter().zip(&factor.0);
        self.0.iter_mut().zip(factors).for_each(|(own, (other, factor))| *own = other.mul_add(*factor, *own));
        self
    }

    #[inline(always)]
    fn pairs_swapped(mut self) -> Self {
        for pair in self.0.as_chunks_mut::<2>().0 {
            *pair = [pair[1], pair[0]];
        }
        self
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.each(other, |own, other| if other > own { other } else { own })
    }

    #[inline(always)]
    fn power_of_two<E: Number>(self, factor: Self, largest: Self) -> Self {
        let mut exponents = Self::zero().minus(largest).plus_times(self, factor);
        exponents.0.iter_mut().for_each(|x| *x = E::power_of_two(*x));
        exponents
    }

    #[inline(always)]
    fn bounded_power_of_two<E: Number>(self, factor: Self) -> Self {
        self.power_of_two::<E>(factor, Self::zero())
    }
}
