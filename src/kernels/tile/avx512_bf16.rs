//! The product in AVX-512 with `vdpbf16ps`: eight rows by 32 columns in registers.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use half::bf16;

use super::registers::{Registers, Strip};
use crate::kernels::tile_size::COLUMNS;

/// AVX-512 F and BF16.
pub struct Avx512Bf16;

impl Registers for Avx512Bf16 {
    type Of = bf16;
    const ROWS: usize = 8;
    const STRIP: usize = 256;
    const WIDTH: usize = COLUMNS;
    // As in float32. A row of the strip is two of the panel's, side by side.
    const FETCH_EVERY: usize = 2;

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn rows<const R: usize>(strip: Strip<bf16>) {
        let Strip { left, stride, panel, depth, sums: out, begins, ahead } = strip;
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums: [[__m512; 2]; R] = [[_mm512_setzero_ps(); 2]; R];
            if !begins {
                for (row, sums) in sums.iter_mut().enumerate() {
                    sums[0] = _mm512_loadu_ps(out.add(row * COLUMNS));
                    sums[1] = _mm512_loadu_ps(out.add(row * COLUMNS + 16));
                }
            }
            let whole = depth / 2 / Self::FETCH_EVERY * Self::FETCH_EVERY;
            for first in (0..whole).step_by(Self::FETCH_EVERY) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(first / Self::FETCH_EVERY * 32).cast());
                for k in first..first + Self::FETCH_EVERY {
                    add(&mut sums, left, stride, panel, k);
                }
            }
            for k in whole..depth / 2 {
                add(&mut sums, left, stride, panel, k);
            }
            for (row, sums) in sums.iter().enumerate() {
                _mm512_storeu_ps(out.add(row * COLUMNS), sums[0]);
                _mm512_storeu_ps(out.add(row * COLUMNS + 16), sums[1]);
            }
        }
    }
}

/// Adds the products at a pair of depths.
///
/// # Safety
/// As [`Registers::rows`].
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn add<const R: usize>(
    sums: &mut [[__m512; 2]; R],
    left: *const bf16,
    stride: usize,
    panel: *const bf16,
    k: usize,
) {
    // SAFETY: as above.
    unsafe {
        let pair = panel.add(2 * k * COLUMNS).cast::<__m512i>();
        let low: __m512bh = transmute(_mm512_loadu_si512(pair));
        let high: __m512bh = transmute(_mm512_loadu_si512(pair.add(1)));
        for (row, sums) in sums.iter_mut().enumerate() {
            let values = left.add(row * stride + 2 * k).cast::<i32>().read_unaligned();
            let values: __m512bh = transmute(_mm512_set1_epi32(values));
            sums[0] = _mm512_dpbf16_ps(sums[0], values, low);
            sums[1] = _mm512_dpbf16_ps(sums[1], values, high);
        }
    }
}
