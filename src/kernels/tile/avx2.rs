//! The product in AVX2, float32: six rows by 16 columns in registers.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::block::{Accumulator, Block};
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS};

/// Rows that are in registers at the same time.
const AT_ONCE: usize = 6;
/// Columns that are in registers at the same time.
const HALF: usize = 16;
/// Depth after which the next rows are taken, so that this part of the panel is still in the first cache.
const STRIP: usize = 192;

/// Adds the product to `sums`.
///
/// # Safety
/// The processor has AVX2 and FMA, and the operands are as long as [`Block::check`] wants them.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply(block: &Block<'_, f32>, sums: &mut Accumulator) {
    for (tap, &offset) in block.taps.iter().enumerate() {
        for at in (0..block.depth).step_by(STRIP) {
            let depth = STRIP.min(block.depth - at);
            for (group, half) in [(0, 0), (1, 0), (0, HALF), (1, HALF)] {
                for first in (0..block.rows[group]).step_by(AT_ONCE) {
                    let start = block.starts[group] + first * block.stride + offset + at;
                    // SAFETY: within the operands, as the caller checked.
                    unsafe {
                        let left = block.left.as_ptr().add(start);
                        let panel = block.panel.as_ptr().add((tap * block.depth + at) * COLUMNS + half);
                        let out = sums.0[group * GROUP_ROWS + first..].as_mut_ptr().cast::<f32>().add(half);
                        let of = (left, block.stride, panel, depth, out);
                        match AT_ONCE.min(block.rows[group] - first) {
                            6 => rows::<6>(of),
                            5 => rows::<5>(of),
                            4 => rows::<4>(of),
                            3 => rows::<3>(of),
                            2 => rows::<2>(of),
                            _ => rows::<1>(of),
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// `R` rows of `depth` values can be read at `left`, 16 of each of `depth` rows of 32 at `panel`, and as many of `R` rows
/// written at `out`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn rows<const R: usize>((left, stride, panel, depth, out): (*const f32, usize, *const f32, usize, *mut f32)) {
    // SAFETY: as above.
    unsafe {
        let mut sums: [[__m256; 2]; R] = [[_mm256_setzero_ps(); 2]; R];
        for (row, sums) in sums.iter_mut().enumerate() {
            sums[0] = _mm256_loadu_ps(out.add(row * COLUMNS));
            sums[1] = _mm256_loadu_ps(out.add(row * COLUMNS + 8));
        }
        for k in 0..depth {
            let low = _mm256_loadu_ps(panel.add(k * COLUMNS));
            let high = _mm256_loadu_ps(panel.add(k * COLUMNS + 8));
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = _mm256_broadcast_ss(&*left.add(row * stride + k));
                sums[0] = _mm256_fmadd_ps(value, low, sums[0]);
                sums[1] = _mm256_fmadd_ps(value, high, sums[1]);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            _mm256_storeu_ps(out.add(row * COLUMNS), sums[0]);
            _mm256_storeu_ps(out.add(row * COLUMNS + 8), sums[1]);
        }
    }
}
