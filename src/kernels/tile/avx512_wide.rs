//! The product of two panels in AVX-512, float32: six rows by 64 columns in registers. To eight rows by 32 columns, 16
//! products take ten loads; here 24 do.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::block::{Accumulator, Block, Fetcher};
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS};

/// Rows at a time.
const ROWS: usize = 6;
/// Depth after which the next rows are taken: both panels' strips are in the first cache.
const STRIP: usize = 128;
/// Depth at which something is fetched: six times six rows fetch the next strip, a row of both panels each time, and as much
/// of the result.
const FETCH_EVERY: usize = 6;

/// Some rows over one strip.
#[derive(Debug, Clone, Copy)]
struct Strip {
    /// The first value of the first row.
    left: *const f32,
    /// The distance of two rows.
    stride: usize,
    /// The first column of each panel's strip.
    panels: [*const f32; 2],
    depth: usize,
    /// The first sum of each panel.
    sums: [*mut f32; 2],
    /// True if the sums begin at zero.
    begins: bool,
    /// The row of the first panel's next strip from which on rows are fetched meanwhile.
    next: usize,
}

/// Computes the product of both panels, added to `sums` if it `accumulates`.
///
/// # Safety
/// The processor has AVX-512 F, the block has two panels, and the operands are as long as [`Block::check`] wants them.
pub unsafe fn multiply(block: &Block<'_, f32>, accumulates: bool, sums: &mut [&mut Accumulator]) {
    let sums: [*mut f32; 2] = std::array::from_fn(|at| sums[at].0.as_mut_ptr().cast());
    let panels: [*const f32; 2] = std::array::from_fn(|at| block.panels[at].as_ptr());
    let strips = block.taps.len() * block.depth.div_ceil(STRIP);
    let parts: usize = block.rows.iter().map(|rows| rows.div_ceil(ROWS)).sum();
    // In the first half, so that the last ones are there in time.
    let mut ahead = Fetcher::new(block.ahead, strips * parts * (STRIP.min(block.depth) / FETCH_EVERY) / 2);
    for (tap, &offset) in block.taps.iter().enumerate() {
        for at in (0..block.depth).step_by(STRIP) {
            let place = (tap * block.depth + at) * COLUMNS;
            let depth = STRIP.min(block.depth - at);
            let mut next = depth;
            for group in 0..2 {
                let mut first = 0;
                while first < block.rows[group] {
                    let left = block.rows[group] - first;
                    let count = left.div_ceil(left.div_ceil(ROWS));
                    let start = block.starts[group] + first * block.stride + offset + at;
                    let sum = (group * GROUP_ROWS + first) * COLUMNS;
                    let strip = Strip {
                        left: block.left.as_ptr().wrapping_add(start),
                        stride: block.stride,
                        panels: panels.map(|panel| panel.wrapping_add(place)),
                        depth,
                        sums: sums.map(|sums| sums.wrapping_add(sum)),
                        begins: !accumulates && tap == 0 && at == 0,
                        next,
                    };
                    next += depth / FETCH_EVERY;
                    // SAFETY: within the operands, as the caller checked.
                    unsafe {
                        match count {
                            6 => rows::<6>(strip, &mut ahead),
                            5 => rows::<5>(strip, &mut ahead),
                            4 => rows::<4>(strip, &mut ahead),
                            3 => rows::<3>(strip, &mut ahead),
                            2 => rows::<2>(strip, &mut ahead),
                            _ => rows::<1>(strip, &mut ahead),
                        }
                    }
                    first += count;
                }
            }
        }
    }
}

/// Adds the products of `R` rows to their sums.
///
/// # Safety
/// The processor has AVX-512 F, and the strip is within the operands.
#[target_feature(enable = "avx512f")]
unsafe fn rows<const R: usize>(strip: Strip, others: &mut Fetcher<'_>) {
    let Strip { left, stride, panels, depth, sums: out, begins, next } = strip;
    // SAFETY: as the caller promises; a prefetch accesses no memory that could not be there.
    unsafe {
        let mut sums: [[__m512; 4]; R] = [[_mm512_setzero_ps(); 4]; R];
        if !begins {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (at, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(out[at / 2].add(row * COLUMNS + at % 2 * 16));
                }
            }
        }
        let whole = depth / FETCH_EVERY * FETCH_EVERY;
        for (step, first) in (0..whole).step_by(FETCH_EVERY).enumerate() {
            for panel in panels.map(|panel| panel.wrapping_add((next + step) * COLUMNS)) {
                _mm_prefetch::<_MM_HINT_T0>(panel.cast());
                _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(16).cast());
            }
            others.fetch();
            for k in first..first + FETCH_EVERY {
                add(&mut sums, left, stride, panels, k);
            }
        }
        for k in whole..depth {
            add(&mut sums, left, stride, panels, k);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (at, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(out[at / 2].add(row * COLUMNS + at % 2 * 16), *sum);
            }
        }
    }
}

/// Adds the products at one depth.
///
/// # Safety
/// As [`rows`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn add<const R: usize>(
    sums: &mut [[__m512; 4]; R],
    left: *const f32,
    stride: usize,
    panels: [*const f32; 2],
    k: usize,
) {
    // SAFETY: as above.
    unsafe {
        let columns: [__m512; 4] =
            std::array::from_fn(|at| _mm512_loadu_ps(panels[at / 2].add(k * COLUMNS + at % 2 * 16)));
        for (row, sums) in sums.iter_mut().enumerate() {
            let value = _mm512_set1_ps(*left.add(row * stride + k));
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = _mm512_fmadd_ps(value, column, *sum);
            }
        }
    }
}
