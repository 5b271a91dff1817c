//! The product in AVX-512, float32: eight rows by 32 columns in registers.

use std::arch::x86_64::{
    __m512, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::block::{Accumulator, Block};
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS};

/// Rows that are in registers at the same time.
const AT_ONCE: usize = 8;
/// Depth after which the next rows are taken, so that this part of the panel is still in the first cache.
const STRIP: usize = 256;

/// Adds the product to `sums`.
///
/// # Safety
/// The processor has AVX-512 F, and the operands are as long as [`Block::check`] wants them.
#[target_feature(enable = "avx512f")]
pub unsafe fn multiply(block: &Block<'_, f32>, sums: &mut Accumulator) {
    for (tap, &offset) in block.taps.iter().enumerate() {
        for at in (0..block.depth).step_by(STRIP) {
            let depth = STRIP.min(block.depth - at);
            for group in 0..2 {
                for first in (0..block.rows[group]).step_by(AT_ONCE) {
                    let start = block.starts[group] + first * block.stride + offset + at;
                    // SAFETY: within the operands, as the caller checked.
                    unsafe {
                        let left = block.left.as_ptr().add(start);
                        let panel = block.panel.as_ptr().add((tap * block.depth + at) * COLUMNS);
                        let out = sums.0[group * GROUP_ROWS + first..].as_mut_ptr().cast::<f32>();
                        let of = (left, block.stride, panel, depth, out);
                        match AT_ONCE.min(block.rows[group] - first) {
                            8 => rows::<8>(of),
                            7 => rows::<7>(of),
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
/// `R` rows of `depth` values can be read at `left`, `depth` rows of 32 at `panel`, and `R` rows of 32 written at `out`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn rows<const R: usize>((left, stride, panel, depth, out): (*const f32, usize, *const f32, usize, *mut f32)) {
    // SAFETY: as above.
    unsafe {
        let mut sums: [[__m512; 2]; R] = [[_mm512_setzero_ps(); 2]; R];
        for (row, sums) in sums.iter_mut().enumerate() {
            sums[0] = _mm512_loadu_ps(out.add(row * COLUMNS));
            sums[1] = _mm512_loadu_ps(out.add(row * COLUMNS + 16));
        }
        for k in 0..depth {
            let low = _mm512_loadu_ps(panel.add(k * COLUMNS));
            let high = _mm512_loadu_ps(panel.add(k * COLUMNS + 16));
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*left.add(row * stride + k));
                sums[0] = _mm512_fmadd_ps(value, low, sums[0]);
                sums[1] = _mm512_fmadd_ps(value, high, sums[1]);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(out.add(row * COLUMNS), sums[0]);
            _mm512_storeu_ps(out.add(row * COLUMNS + 16), sums[1]);
        }
    }
}
