//! The product in plain Rust.

use super::block::{Accumulator, Block};
use crate::kernels::int8::{HEADER, strip};
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

/// As [`multiply`], in int8.
pub fn multiply_int8(block: &Block<'_, u8>, accumulates: bool, sums: &mut [&mut Accumulator]) {
    let strip = strip(block.depth);
    for (panel, sums) in block.panels.iter().zip(sums) {
        if !accumulates {
            **sums = Accumulator::new();
        }
        for (row, group) in [(0, 0), (GROUP_ROWS, 1)]
            .into_iter()
            .flat_map(|(first, group)| (0..block.rows[group]).map(move |row| (first + row, group)))
        {
            let start = block.starts[group] + row % GROUP_ROWS * block.stride;
            for (tap, panel) in block.taps.iter().zip(panel.chunks_exact(block.depth * COLUMNS)) {
                let strips = block.left[start + tap..][..block.depth].chunks_exact(strip);
                for (values, panel) in strips.zip(panel.chunks_exact(strip * COLUMNS)) {
                    add_strip(values, panel, &mut sums.0[row]);
                }
            }
        }
    }
}

/// Adds the products of a strip of a row and those of a panel.
fn add_strip(values: &[u8], panel: &[u8], sums: &mut [f32; COLUMNS]) {
    let word = |bytes: &[u8], at: usize| <[u8; 4]>::try_from(&bytes[4 * at..][..4]).unwrap_or_default();
    let scale = f32::from_le_bytes(word(values, 0));
    let (headers, panel) = panel.split_at(HEADER * COLUMNS);
    for (column, sum) in sums.iter_mut().enumerate() {
        let mut whole = i32::from_le_bytes(word(headers, COLUMNS + column));
        for (group, values) in values[HEADER..].chunks_exact(4).enumerate() {
            let columns = word(panel, group * COLUMNS + column);
            whole += values.iter().zip(columns).map(|(a, b)| i32::from(*a) * i32::from(b.cast_signed())).sum::<i32>();
        }
        *sum = (whole as f32 * scale).mul_add(f32::from_le_bytes(word(headers, column)), *sum);
    }
}
