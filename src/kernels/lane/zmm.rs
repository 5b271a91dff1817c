//! A lane in AVX-512.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512i, __mmask16, _CMP_UNORD_Q, _mm256_loadu_si256, _mm256_mask_storeu_epi16,
    _mm256_maskz_loadu_epi16, _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32,
    _mm512_cvtneps_pbh, _mm512_fmadd_ps, _mm512_fmsub_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_mov_ps, _mm512_mask_or_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps,
    _mm512_min_ps, _mm512_mul_ps, _mm512_permute_ps, _mm512_rcp14_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
    _mm512_ternarylogic_epi32,
};

use super::{HALVES, Lane};
use crate::kernels::functions::{
    Activation, EXP2, EXP2_BF16, GELU, GELU_BF16, GELU_END, QUICK_SCALE, ROUND, TANH_CUBE, TANH_SCALE,
};
use crate::kernels::number::Number;
use crate::kernels::operator::OperandType;
use crate::kernels::tile_size::{COLUMNS, LANES};

/// Numbers in a register. Only code for processors with AVX-512 F, BW, DQ and VL may name it, which
/// [`vectorized`](crate::kernels::instruction_set::vectorized) chooses. If it `ROUNDS`, they have AVX-512 BF16, too.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Zmm<const ROUNDS: bool>(__m512);

/// The bits of the second of two numbers of bfloat16.
const HIGH: i32 = 0xffff_0000_u32 as i32;

/// The first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "the processor has the instructions, which all blocks rely on")]
impl<const ROUNDS: bool> Zmm<ROUNDS> {
    /// `2^(whole + rest)`: a polynomial in `rest`, from -0.5 to 0.5, whose exponent is raised. `shifted` is `whole +`
    /// [`ROUND`].
    #[inline(always)]
    fn raised<E: Number>(rest: __m512, shifted: __m512) -> Self {
        let factors: &[f32] = match E::TYPE {
            OperandType::Float32 => &EXP2,
            OperandType::Bf16 => &EXP2_BF16,
        };
        unsafe {
            let mut sum = _mm512_set1_ps(factors[0]);
            for factor in &factors[1..] {
                sum = _mm512_fmadd_ps(rest, sum, _mm512_set1_ps(*factor));
            }
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sum), exponent)))
        }
    }

    /// `self · p(self)`, where the polynomial's factors are those for `E`, the highest first.
    #[inline(always)]
    fn polynomial<E: Number, const N: usize, const M: usize>(self, exact: &[f32; N], bf16: &[f32; M]) -> Self {
        let factors: &[f32] = match E::TYPE {
            OperandType::Float32 => exact,
            OperandType::Bf16 => bf16,
        };
        unsafe {
            let mut sum = _mm512_set1_ps(factors[0]);
            for factor in &factors[1..] {
                sum = _mm512_fmadd_ps(self.0, sum, _mm512_set1_ps(*factor));
            }
            Self(_mm512_mul_ps(self.0, sum))
        }
    }

    /// `x · Φ(x)`, as [`Activation::of`] computes it.
    #[inline(always)]
    fn gelu<E: Number>(self) -> Self {
        unsafe {
            // Of two numbers one of which is NaN, these are the second.
            let positive = Self(_mm512_min_ps(_mm512_set1_ps(GELU_END), _mm512_abs_ps(self.0)));
            let above = _mm512_max_ps(_mm512_setzero_ps(), self.0);
            let exponent = positive.polynomial::<E, _, _>(&GELU, &GELU_BF16);
            let power = exponent.bounded_power_of_two::<E>(Self::all(1.0));
            Self(_mm512_fnmadd_ps(_mm512_mul_ps(_mm512_set1_ps(0.5), positive.0), power.0, above))
        }
    }

    /// The logistic function.
    #[inline(always)]
    fn sigmoid<E: Number>(self) -> Self {
        const LIMIT: f32 = 87.0;
        unsafe {
            let x = _mm512_min_ps(_mm512_set1_ps(LIMIT), _mm512_max_ps(_mm512_set1_ps(-LIMIT), self.0));
            let power = Self(x).bounded_power_of_two::<E>(Self::all(-std::f32::consts::LOG2_E));
            let sum = _mm512_add_ps(_mm512_set1_ps(1.0), power.0);
            // Off by 2^-14 of itself, of which one step of Newton's leaves 2^-28.
            let inverse = _mm512_rcp14_ps(sum);
            Self(match E::TYPE {
                OperandType::Bf16 => inverse,
                OperandType::Float32 => {
                    let rest = _mm512_fnmadd_ps(sum, inverse, _mm512_set1_ps(1.0));
                    _mm512_fmadd_ps(inverse, rest, inverse)
                }
            })
        }
    }

    /// Numbers rounded to bfloat16, each of the first before one of the second. Ties round up, which is slightly less work.
    #[inline(always)]
    fn side_by_side([Self(low), Self(high)]: [Self; 2]) -> __m512i {
        unsafe {
            let half = _mm512_set1_epi32(0x8000);
            let low = _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_castps_si512(low), half));
            let high = _mm512_add_epi32(_mm512_castps_si512(high), half);
            // (high & mask) | low
            const CHOICE: i32 = 0xea;
            _mm512_ternarylogic_epi32::<CHOICE>(high, _mm512_set1_epi32(HIGH), low)
        }
    }

    /// The numbers in bfloat16, ties to even. NaN stays NaN.
    #[inline(always)]
    fn halves(self) -> __m256i {
        unsafe {
            if ROUNDS {
                return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
            }
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            let quiet = _mm512_mask_or_epi32(sum, is_nan, bits, _mm512_set1_epi32(0x0040_0000));
            _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(quiet))
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "as above, and masks keep accesses within the slices")]
impl<const ROUNDS: bool> Lane for Zmm<ROUNDS> {
    #[inline(always)]
    fn all(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn of(values: [f32; LANES]) -> Self {
        Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn values(self) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) };
        values
    }

    #[inline(always)]
    fn read<E: Number>(from: &[E]) -> Self {
        let at = from.as_ptr();
        unsafe {
            Self(match (E::TYPE, from.len() >= LANES) {
                (OperandType::Float32, true) => _mm512_loadu_ps(at.cast()),
                (OperandType::Float32, false) => _mm512_maskz_loadu_ps(first(from.len()), at.cast()),
                (OperandType::Bf16, is_whole) => {
                    let halves = match is_whole {
                        true => _mm256_loadu_si256(at.cast()),
                        false => _mm256_maskz_loadu_epi16(first(from.len()), at.cast()),
                    };
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
                }
            })
        }
    }

    #[inline(always)]
    fn write<E: Number>(self, to: &mut [E]) {
        let at = to.as_mut_ptr();
        unsafe {
            match (E::TYPE, to.len() >= LANES) {
                (OperandType::Float32, true) => _mm512_storeu_ps(at.cast(), self.0),
                (OperandType::Float32, false) => _mm512_mask_storeu_ps(at.cast(), first(to.len()), self.0),
                (OperandType::Bf16, true) => _mm256_storeu_si256(at.cast(), self.halves()),
                (OperandType::Bf16, false) => {
                    _mm256_mask_storeu_epi16(at.cast(), first(to.len()), self.halves());
                }
            }
        }
    }

    #[inline(always)]
    fn read_columns<E: Number>(from: &[E]) -> [Self; HALVES] {
        assert_eq!(from.len(), COLUMNS);
        unsafe {
            match E::TYPE {
                OperandType::Float32 => [Self::read(&from[..LANES]), Self::read(&from[LANES..])],
                OperandType::Bf16 => {
                    // Those at even and those at odd places.
                    let both = _mm512_loadu_si512(from.as_ptr().cast());
                    let odd = _mm512_and_si512(both, _mm512_set1_epi32(HIGH));
                    let even = _mm512_slli_epi32::<16>(both);
                    [Self(_mm512_castsi512_ps(even)), Self(_mm512_castsi512_ps(odd))]
                }
            }
        }
    }

    #[inline(always)]
    fn write_columns<E: Number>(columns: [Self; HALVES], to: &mut [E]) {
        assert_eq!(to.len(), COLUMNS);
        match E::TYPE {
            OperandType::Float32 => {
                let (low, high) = to.split_at_mut(LANES);
                columns[0].write(low);
                columns[1].write(high);
            }
            OperandType::Bf16 => unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), Self::side_by_side(columns)) },
        }
    }

    #[inline(always)]
    fn write_group<E: Number>(rows: [Self; 2], to: &mut [E]) {
        assert_eq!(to.len(), E::GROUP * LANES);
        unsafe {
            match E::TYPE {
                OperandType::Float32 => _mm512_storeu_ps(to.as_mut_ptr().cast(), rows[0].0),
                OperandType::Bf16 => _mm512_storeu_si512(to.as_mut_ptr().cast(), Self::side_by_side(rows)),
            }
        }
    }

    #[inline(always)]
    fn rounded<E: Number>(self) -> Self {
        match E::TYPE {
            OperandType::Float32 => self,
            OperandType::Bf16 => unsafe {
                let up = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(0x8000));
                Self(_mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(HIGH))))
            },
        }
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn plus_times(self, other: Self, factor: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(other.0, factor.0, self.0) })
    }

    #[inline(always)]
    fn pairs_swapped(self) -> Self {
        // The second number of a pair first.
        const ORDER: i32 = 0b10_11_00_01;
        Self(unsafe { _mm512_permute_ps::<ORDER>(self.0) })
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        // The second one, if one of them is NaN.
        Self(unsafe { _mm512_max_ps(other.0, self.0) })
    }

    #[inline(always)]
    fn power_of_two<E: Number>(self, factor: Self, largest: Self) -> Self {
        unsafe {
            let x = _mm512_max_ps(_mm512_set1_ps(-126.0), _mm512_fmsub_ps(self.0, factor.0, largest.0));
            let shifted = _mm512_add_ps(x, _mm512_set1_ps(ROUND));
            let whole = _mm512_sub_ps(shifted, _mm512_set1_ps(ROUND));
            let Self(power) = Self::raised::<E>(_mm512_sub_ps(x, whole), shifted);
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
            Self(_mm512_mask_mov_ps(power, is_nan, _mm512_set1_ps(f32::NAN)))
        }
    }

    #[inline(always)]
    fn bounded_power_of_two<E: Number>(self, factor: Self) -> Self {
        unsafe {
            let shifted = _mm512_fmadd_ps(self.0, factor.0, _mm512_set1_ps(ROUND));
            let whole = _mm512_sub_ps(shifted, _mm512_set1_ps(ROUND));
            Self::raised::<E>(_mm512_fmsub_ps(self.0, factor.0, whole), shifted)
        }
    }

    #[inline(always)]
    fn activated<E: Number>(self, activation: Activation) -> Self {
        let scaled = |factor: f32| self.times(Self::all(factor));
        match activation {
            Activation::Identity => self,
            Activation::Silu => self.times(self.sigmoid::<E>()),
            Activation::Gelu => self.gelu::<E>(),
            Activation::GeluTanh => {
                let cube = self.times(self).times(scaled(TANH_CUBE));
                self.times(self.plus(cube).times(Self::all(TANH_SCALE)).sigmoid::<E>())
            }
            Activation::QuickGelu => self.times(scaled(QUICK_SCALE).sigmoid::<E>()),
        }
    }

    #[inline(always)]
    fn zero() -> Self {
        Self(unsafe { _mm512_setzero_ps() })
    }
}
