//! The registers of each instruction set, and its products.

use std::arch::x86_64::{
    __m256, __m512, __m512bh, __m512i, _mm256_add_ps, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_setzero_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use half::bf16;

use super::block::{Accumulator, Block};
use super::registers::{Vectors, even_strip, even_strip_of_sums, multiply_each, multiply_pair};
use crate::kernels::int8::{self, HEADER};
use crate::kernels::number::OperandValue;
use crate::kernels::tile_size::COLUMNS;

/// AVX2 and FMA: six rows by 16 columns.
struct Avx2;

/// AVX-512 F, float32.
struct Avx512;

/// AVX-512 BF16, whose `vdpbf16ps` adds the products of two depths.
struct Avx512Bf16;

/// AVX-512 VNNI, whose `vpdpbusd` adds the products of four depths, those of the rows without sign.
struct Avx512Vnni;

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

/// As [`multiply_avx512`], of int8.
///
/// # Safety
/// The processor has AVX-512 F and VNNI, and as there.
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn multiply_avx512_vnni(block: &Block<'_, u8>, accumulates: bool, sums: &mut [&mut Accumulator]) {
    // SAFETY: as the caller promises.
    unsafe {
        match sums.len() {
            2 => multiply_pair::<Avx512Vnni>(block, accumulates, sums),
            _ => multiply_each::<Avx512Vnni, 2>(block, accumulates, sums),
        }
    }
}

#[expect(clippy::undocumented_unsafe_blocks, reason = "callers promise what the trait demands")]
impl Vectors for Avx2 {
    type Of = f32;
    type Sums = __m256;
    type Values = __m256;
    type Factor = ();
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    fn strip(groups: usize, _: usize, _: usize) -> usize {
        even_strip_of_sums::<f32>(groups)
    }

    #[inline(always)]
    unsafe fn begin(_: bool, _: *const f32, _: *const f32) -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn row_factor(_: *const f32) {}

    #[inline(always)]
    unsafe fn column_factor(_: *const f32) {}

    #[inline(always)]
    unsafe fn end(is_first: bool, sums: __m256, _: [(); 2], to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, if is_first { sums } else { _mm256_add_ps(_mm256_loadu_ps(to), sums) }) }
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
    type Factor = ();
    const LANES: usize = 16;
    const ROWS: usize = 8;

    #[inline(always)]
    fn strip(groups: usize, _: usize, _: usize) -> usize {
        even_strip_of_sums::<f32>(groups)
    }

    #[inline(always)]
    unsafe fn begin(_: bool, _: *const f32, _: *const f32) -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn row_factor(_: *const f32) {}

    #[inline(always)]
    unsafe fn column_factor(_: *const f32) {}

    #[inline(always)]
    unsafe fn end(is_first: bool, sums: __m512, _: [(); 2], to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, if is_first { sums } else { _mm512_add_ps(_mm512_loadu_ps(to), sums) }) }
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
    type Factor = ();
    const LANES: usize = 16;
    const ROWS: usize = 8;

    // Operands round more than a long sum does, and adding short ones takes time.
    #[inline(always)]
    fn strip(groups: usize, panels: usize, step: usize) -> usize {
        even_strip::<bf16>(groups, panels, step)
    }

    #[inline(always)]
    unsafe fn begin(is_first: bool, from: *const f32, _: *const bf16) -> __m512 {
        unsafe { if is_first { _mm512_setzero_ps() } else { _mm512_loadu_ps(from) } }
    }

    #[inline(always)]
    unsafe fn row_factor(_: *const bf16) {}

    #[inline(always)]
    unsafe fn column_factor(_: *const bf16) {}

    #[inline(always)]
    unsafe fn end(_: bool, sums: __m512, _: [(); 2], to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, sums) }
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

#[expect(clippy::undocumented_unsafe_blocks, reason = "callers promise what the trait demands")]
impl Vectors for Avx512Vnni {
    type Of = u8;
    type Sums = __m512i;
    type Values = __m512i;
    type Factor = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 8;
    const HEADER: usize = HEADER / u8::GROUP;

    #[inline(always)]
    fn strip(groups: usize, _: usize, _: usize) -> usize {
        int8::strip(groups * u8::GROUP) / u8::GROUP
    }

    #[inline(always)]
    unsafe fn begin(_: bool, _: *const f32, column: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(column.sub(u8::GROUP * COLUMNS).cast()) }
    }

    #[inline(always)]
    unsafe fn row_factor(row: *const u8) -> __m512 {
        unsafe { _mm512_set1_ps(row.sub(HEADER).cast::<f32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn column_factor(column: *const u8) -> __m512 {
        unsafe { _mm512_loadu_ps(column.sub(HEADER * COLUMNS).cast()) }
    }

    #[inline(always)]
    unsafe fn end(is_first: bool, sums: __m512i, [row, column]: [__m512; 2], to: *mut f32) {
        unsafe {
            let sums = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), row);
            let before = if is_first { _mm512_setzero_ps() } else { _mm512_loadu_ps(to) };
            _mm512_storeu_ps(to, _mm512_fmadd_ps(sums, column, before));
        }
    }

    #[inline(always)]
    unsafe fn read(from: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn repeat(from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512i, one: __m512i, other: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, one, other) }
    }
}
