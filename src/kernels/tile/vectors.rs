//! The registers of each instruction set, and its products.

use std::arch::x86_64::{
    __m256, __m512, __m512bh, _mm256_add_ps, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use half::bf16;

use super::block::{Accumulator, Block};
use super::registers::{Vectors, multiply_each, multiply_pair};

/// AVX2 and FMA: six rows by 16 columns.
struct Avx2;

/// AVX-512 F, float32.
struct Avx512;

/// AVX-512 BF16, whose `vdpbf16ps` adds the products of two depths.
struct Avx512Bf16;

/// Computes the product of a block's panels with AVX2, added to `sums` if it `accumulates`.
///
/// # Safety
/// The processor has AVX2 and FMA, and the operands are as long as [`Block::check`] wants them.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply_avx2(block: &Block<'_, f32>, accumulates: bool, sums: &mut [&mut Accumulator]) {
    // SAFETY: as the caller promises.
    unsafe { multiply_each::<Avx2, 2>(block, accumulates, sums) }
}

/// As [`multiply_avx2`], with AVX-512; two panels together.
///
/// # Safety
/// The processor has AVX-512 F, and as there.
#[target_feature(enable = "avx512f")]
pub unsafe fn multiply_avx512(block: &Block<'_, f32>, accumulates: bool, sums: &mut [&mut Accumulator]) {
    // SAFETY: as the caller promises.
    unsafe {
        match sums.len() {
            2 => multiply_pair::<Avx512>(block, accumulates, sums),
            _ => multiply_each::<Avx512, 2>(block, accumulates, sums),
        }
    }
}

/// As [`multiply_avx512`], of bfloat16.
///
/// # Safety
/// The processor has AVX-512 F and BF16, and as there.
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn multiply_avx512_bf16(block: &Block<'_, bf16>, accumulates: bool, sums: &mut [&mut Accumulator]) {
    // SAFETY: as the caller promises.
    unsafe {
        match sums.len() {
            2 => multiply_pair::<Avx512Bf16>(block, accumulates, sums),
            _ => multiply_each::<Avx512Bf16, 2>(block, accumulates, sums),
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "callers promise what the trait demands")]
impl Vectors for Avx2 {
    type Of = f32;
    type Sums = __m256;
    type Values = __m256;
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const SUMS_STRIPS: bool = true;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(sums: __m256, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, sums) }
    }

    #[inline(always)]
    unsafe fn plus(sums: __m256, others: __m256) -> __m256 {
        unsafe { _mm256_add_ps(sums, others) }
    }

    #[inline(always)]
    unsafe fn read(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn repeat(from: *const f32) -> __m256 {
        unsafe { _mm256_broadcast_ss(&*from) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m256, one: __m256, other: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(one, other, sums) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "callers promise what the trait demands")]
impl Vectors for Avx512 {
    type Of = f32;
    type Sums = __m512;
    type Values = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 8;
    const SUMS_STRIPS: bool = true;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(sums: __m512, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, sums) }
    }

    #[inline(always)]
    unsafe fn plus(sums: __m512, others: __m512) -> __m512 {
        unsafe { _mm512_add_ps(sums, others) }
    }

    #[inline(always)]
    unsafe fn read(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn repeat(from: *const f32) -> __m512 {
        unsafe { _mm512_set1_ps(*from) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512, one: __m512, other: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(one, other, sums) }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "callers promise what the trait demands")]
impl Vectors for Avx512Bf16 {
    type Of = bf16;
    type Sums = __m512;
    type Values = __m512bh;
    const LANES: usize = 16;
    const ROWS: usize = 8;
    const SUMS_STRIPS: bool = false;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { Avx512::zero() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { Avx512::load(from) }
    }

    #[inline(always)]
    unsafe fn store(sums: __m512, to: *mut f32) {
        unsafe { Avx512::store(sums, to) }
    }

    #[inline(always)]
    unsafe fn plus(sums: __m512, others: __m512) -> __m512 {
        unsafe { Avx512::plus(sums, others) }
    }

    #[inline(always)]
    unsafe fn read(from: *const bf16) -> __m512bh {
        unsafe { transmute(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn repeat(from: *const bf16) -> __m512bh {
        unsafe { transmute(_mm512_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512, one: __m512bh, other: __m512bh) -> __m512 {
        unsafe { _mm512_dpbf16_ps(sums, one, other) }
    }
}
