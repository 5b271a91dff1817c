//! The product with sums in registers: some rows and columns at a time, over a strip of the depth.

use super::block::{Accumulator, Block};
use crate::kernels::number::Number;
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS};

/// Some rows over one strip.
#[derive(Debug, Clone, Copy)]
pub struct Strip<E> {
    /// The first value of the first row.
    pub left: *const E,
    /// The distance of two rows.
    pub stride: usize,
    /// The first column of the panel's strip. Rows of the panel are [`COLUMNS`] apart.
    pub panel: *const E,
    /// The depth of the strip, a multiple of [`Number::GROUP`].
    pub depth: usize,
    /// The first sum; rows of sums are [`COLUMNS`] apart.
    pub sums: *mut f32,
    /// True if the sums begin at zero.
    pub begins: bool,
    /// The first value that is fetched meanwhile, which may be beyond the panel: a cache line every [`Registers::FETCH_EVERY`] rows
    /// of the panel.
    pub ahead: *const E,
}

/// An instruction set's product of some rows and columns that are in its registers.
pub trait Registers {
    /// The numbers that it multiplies.
    type Of: Number;
    /// Rows at a time, up to 8.
    const ROWS: usize;
    /// Columns at a time.
    const WIDTH: usize;
    /// Depth of a strip, after which the next rows are taken: a strip of the panel, and the next one, which is fetched
    /// meanwhile, are in the first cache.
    const STRIP: usize;
    /// Rows of a strip for each of which a cache line is fetched ahead.
    const FETCH_EVERY: usize;

    /// Adds the products of `R` rows to their sums.
    ///
    /// # Safety
    /// The processor has the instructions, and the strip is within the operands.
    unsafe fn rows<const R: usize>(strip: Strip<Self::Of>);
}

/// Computes the product of one of the block's panels, added to `sums` if it `accumulates`.
///
/// # Safety
/// The processor has the instructions, and the operands are as long as [`Block::check`] wants them.
pub unsafe fn multiply<T: Registers>(
    block: &Block<'_, T::Of>,
    panel: &[T::Of],
    accumulates: bool,
    sums: &mut Accumulator,
) {
    /// Bytes of a cache line.
    const LINE: usize = 64;
    let per_line = LINE / size_of::<T::Of>();
    for (tap, &offset) in block.taps.iter().enumerate() {
        for at in (0..block.depth).step_by(T::STRIP) {
            let depth = T::STRIP.min(block.depth - at);
            let panel = panel.as_ptr().wrapping_add((tap * block.depth + at) * COLUMNS);
            let mut ahead = panel.wrapping_add(depth * COLUMNS);
            for (column, group) in (0..COLUMNS).step_by(T::WIDTH).flat_map(|column| [(column, 0), (column, 1)]) {
                for first in (0..block.rows[group]).step_by(T::ROWS) {
                    let start = block.starts[group] + first * block.stride + offset + at;
                    let strip = Strip {
                        left: block.left.as_ptr().wrapping_add(start),
                        stride: block.stride,
                        panel: panel.wrapping_add(column * T::Of::GROUP),
                        depth,
                        sums: sums.0[group * GROUP_ROWS + first..].as_mut_ptr().cast::<f32>().wrapping_add(column),
                        begins: !accumulates && tap == 0 && at == 0,
                        ahead,
                    };
                    ahead = ahead.wrapping_add(depth / T::Of::GROUP / T::FETCH_EVERY * per_line);
                    // SAFETY: within the operands, as the caller checked.
                    unsafe {
                        match T::ROWS.min(block.rows[group] - first) {
                            8 => T::rows::<8>(strip),
                            7 => T::rows::<7>(strip),
                            6 => T::rows::<6>(strip),
                            5 => T::rows::<5>(strip),
                            4 => T::rows::<4>(strip),
                            3 => T::rows::<3>(strip),
                            2 => T::rows::<2>(strip),
                            _ => T::rows::<1>(strip),
                        }
                    }
                }
            }
        }
    }
}
