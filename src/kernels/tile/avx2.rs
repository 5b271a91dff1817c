//! The product in AVX2, float32: six rows by 16 columns in registers.

use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_prefetch, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};

use super::registers::{Registers, Strip};
use crate::kernels::tile_size::COLUMNS;

/// AVX2 and FMA.
pub struct Avx2;

impl Registers for Avx2 {
    type Of = f32;
    const ROWS: usize = 6;
    const STRIP: usize = 256;
    const WIDTH: usize = 16;
    // Twelve parts of 32 rows by 32 columns fetch the next strip.
    const FETCH_EVERY: usize = 6;

    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows<const R: usize>(strip: Strip<f32>) {
        let Strip { left, stride, panel, depth, sums: out, begins, ahead } = strip;
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums: [[__m256; 2]; R] = [[_mm256_setzero_ps(); 2]; R];
            if !begins {
                for (row, sums) in sums.iter_mut().enumerate() {
                    sums[0] = _mm256_loadu_ps(out.add(row * COLUMNS));
                    sums[1] = _mm256_loadu_ps(out.add(row * COLUMNS + 8));
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
                _mm256_storeu_ps(out.add(row * COLUMNS), sums[0]);
                _mm256_storeu_ps(out.add(row * COLUMNS + 8), sums[1]);
            }
        }
    }
}

/// Adds the products at one depth.
///
/// # Safety
/// As [`Registers::rows`].
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn add<const R: usize>(
    sums: &mut [[__m256; 2]; R],
    left: *const f32,
    stride: usize,
    panel: *const f32,
    k: usize,
) {
    // SAFETY: as above.
    unsafe {
        let low = _mm256_loadu_ps(panel.add(k * COLUMNS));
        let high = _mm256_loadu_ps(panel.add(k * COLUMNS + 8));
        for (row, sums) in sums.iter_mut().enumerate() {
            let value = _mm256_broadcast_ss(&*left.add(row * stride + k));
            sums[0] = _mm256_fmadd_ps(value, low, sums[0]);
            sums[1] = _mm256_fmadd_ps(value, high, sums[1]);
        }
    }
}
