//! The product in plain Rust.

use super::block::{Accumulator, Block};
use crate::kernels::number::Number;
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS};

/// Computes the product of the block's panels, added to `sums` if it `accumulates`.
pub fn multiply<E: Number>(block: &Block<'_, E>, accumulates: bool, sums: &mut [&mut Accumulator]) {
    for (panel, sums) in block.panels.iter().zip(sums) {
        multiply_panel(block, panel, accumulates, sums);
    }
}

fn multiply_panel<E: Number>(block: &Block<'_, E>, panel: &[E], accumulates: bool, sums: &mut Accumulator) {
    if !accumulates {
        *sums = Accumulator::new();
    }
    for group in 0..2 {
        for row in 0..block.rows[group] {
            let start = block.starts[group] + row * block.stride;
            let sums = &mut sums.0[group * GROUP_ROWS + row];
            for (tap, panel) in block.taps.iter().zip(panel.chunks_exact(block.depth * COLUMNS)) {
                let values = &block.left[start + tap..][..block.depth];
                let pairs = values.chunks_exact(E::GROUP).zip(panel.chunks_exact(E::GROUP * COLUMNS));
                for (values, columns) in pairs {
                    for (sum, column) in sums.iter_mut().zip(columns.chunks_exact(E::GROUP)) {
                        for (value, other) in values.iter().zip(column) {
                            *sum = value.to_f32().mul_add(other.to_f32(), *sum);
                        }
                    }
                }
            }
        }
    }
}
