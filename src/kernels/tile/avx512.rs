//! The product in AVX-512, float32: eight rows by 32 columns in registers.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::registers::{Registers, Strip};
use crate::kernels::tile_size::COLUMNS;

/// AVX-512 F.
pub struct Avx512;

impl Registers for Avx512 {
    type Of = f32;
    const ROWS: usize = 8;
    const STRIP: usize = 128;
    const WIDTH: usize = COLUMNS;
    // Four times eight rows fetch the next strip, two lines a row of it.
    const FETCH_EVERY: usize = 2;

    #[target_feature(enable = "avx512f")]
    unsafe fn rows<const R: usize>(strip: Strip<f32>) {
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
            let whole = depth / Self::FETCH_EVERY * Self::FETCH_EVERY;
            for first in (0..whole).step_by(Self::FETCH_EVERY) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(first / Self::FETCH_EVERY * 16).cast());
                for k in first..first + Self::FETCH_EVERY {
                    add(&mut sums, left, stride, panel, k);
                }
            }
            for k in whole..depth {
                add(&mut sums, left, stride, panel, k);
            }
            for (row, sums) in sums.iter().enumerate() {
                _mm512_storeu_ps(out.add(row * COLUMNS), sums[0]);
                _mm512_storeu_ps(out.add(row * COLUMNS + 16), sums[1]);
            }
        }
    }
}

/// Adds the products at one depth.
///
/// # Safety
/// As [`Registers::rows`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn add<const R: usize>(
    sums: &mut [[__m512; 2]; R],
    left: *const f32,
    stride: usize,
    panel: *const f32,
    k: usize,
) {
    // SAFETY: as above.
    unsafe {
        let low = _mm512_loadu_ps(panel.add(k * COLUMNS));
        let high = _mm512_loadu_ps(panel.add(k * COLUMNS + 16));
        for (row, sums) in sums.iter_mut().enumerate() {
            let value = _mm512_set1_ps(*left.add(row * stride + k));
            sums[0] = _mm512_fmadd_ps(value, low, sums[0]);
            sums[1] = _mm512_fmadd_ps(value, high, sums[1]);
        }
    }
}
