//! The product in AMX tiles, bfloat16. Rust's intrinsics for them are not stable, so the instructions are written out.
//!
//! Tiles 0 to 3 hold the sums of two groups of rows by two halves of the columns, 4 and 5 the groups' left operands, 6
//! and 7 the halves of the panel.

use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::slice::Chunks;

use half::bf16;

use super::block::{Accumulator, Block};
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS};

/// Depth of one tile.
const DEPTH: usize = 32;
/// Distance in bytes at which the panel is fetched ahead: tiles wait for the second cache otherwise.
const AHEAD: usize = 4096;

/// A configuration of the tiles (Intel SDM, `LDTILECFG`).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// Configures the tiles for groups of `rows` rows, of 1 to 16, and clears them.
///
/// # Safety
/// The process may use AMX.
pub unsafe fn configure(rows: [usize; 2]) {
    let mut configuration =
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
    let of_groups = rows.map(|rows| rows as u8);
    for (tile, rows) in [0, 0, 1, 1, 0, 1].map(|group| of_groups[group]).into_iter().chain([16, 16]).enumerate() {
        configuration.bytes_per_row[tile] = 64;
        configuration.rows[tile] = rows;
    }
    // SAFETY: the processor has tiles, and the configuration is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly)) };
}

/// Frees the tiles.
///
/// # Safety
/// The process may use AMX.
pub unsafe fn release() {
    // SAFETY: the processor has tiles.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Computes the product of one of the block's panels, added to `sums` if it `accumulates`.
///
/// # Safety
/// The tiles are configured for [`Block::readable_rows`], and the operands are as long as [`Block::check`] wants them.
pub unsafe fn multiply(block: &Block<'_, bf16>, panel: &[bf16], accumulates: bool, sums: &mut Accumulator) {
    let stride = block.stride * size_of::<bf16>();
    let steps = block.depth / DEPTH;
    let out = sums.0.as_mut_ptr().cast::<f32>();
    let has_second = block.rows[1] > 0;
    // SAFETY: all addresses are within the operands and the sums, as the caller checked.
    unsafe {
        if accumulates {
            load_sums(out, has_second);
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack));
        }
        let mut panel = panel.as_ptr();
        // In the first half, so that the last ones are there in time.
        let mut ahead = block.ahead.chunks(block.ahead.len().div_ceil((steps * block.taps.len() / 2).max(1)).max(1));
        for &tap in block.taps {
            let first = block.left.as_ptr().add(block.starts[0] + tap);
            if has_second {
                let second = block.left.as_ptr().add(block.starts[1] + tap);
                panel = two_groups(first, second, stride, panel, steps, &mut ahead);
            } else {
                panel = one_group(first, stride, panel, steps, &mut ahead);
            }
        }
        store_sums(out, has_second);
    }
}

/// Fetches the part of a panel that comes after the next step, which may be beyond its end, and some other lines.
#[inline(always)]
fn fetch_ahead(panel: *const bf16, others: &mut Chunks<'_, *const i8>) {
    for other in others.next().unwrap_or_default() {
        // SAFETY: as below.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(*other) };
    }
    const LINE: usize = 64;
    let ahead = panel.cast::<i8>().wrapping_add(AHEAD);
    for at in (0..DEPTH * COLUMNS * size_of::<bf16>()).step_by(LINE) {
        // SAFETY: a prefetch accesses no memory that could not be there.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(at)) };
    }
}

/// # Safety
/// As [`multiply`]: `steps` tiles can be read from each of the addresses.
unsafe fn two_groups(
    mut first: *const bf16,
    mut second: *const bf16,
    stride: usize,
    mut panel: *const bf16,
    steps: usize,
    ahead: &mut Chunks<'_, *const i8>,
) -> *const bf16 {
    for _ in 0..steps {
        fetch_ahead(panel, ahead);
        // SAFETY: as above.
        unsafe {
            asm!(
                "tileloadd tmm6, [{panel} + {width}*1]",
                "tileloadd tmm4, [{first} + {stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{panel} + {width}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{second} + {stride}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                panel = in(reg) panel,
                first = in(reg) first,
                second = in(reg) second,
                stride = in(reg) stride,
                width = in(reg) 2 * COLUMNS * size_of::<bf16>(),
                options(nostack, readonly)
            );
            (first, second, panel) = (first.add(DEPTH), second.add(DEPTH), panel.add(DEPTH * COLUMNS));
        }
    }
    panel
}

/// # Safety
/// As [`multiply`]: `steps` tiles can be read from each of the addresses.
unsafe fn one_group(
    mut first: *const bf16,
    stride: usize,
    mut panel: *const bf16,
    steps: usize,
    ahead: &mut Chunks<'_, *const i8>,
) -> *const bf16 {
    for _ in 0..steps {
        fetch_ahead(panel, ahead);
        // SAFETY: as above.
        unsafe {
            asm!(
                "tileloadd tmm6, [{panel} + {width}*1]",
                "tileloadd tmm4, [{first} + {stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{panel} + {width}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                panel = in(reg) panel,
                first = in(reg) first,
                stride = in(reg) stride,
                width = in(reg) 2 * COLUMNS * size_of::<bf16>(),
                options(nostack, readonly)
            );
            (first, panel) = (first.add(DEPTH), panel.add(DEPTH * COLUMNS));
        }
    }
    panel
}

/// # Safety
/// The rows that the tiles are configured for can be read at `sums`.
unsafe fn load_sums(sums: *const f32, has_second: bool) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {width}*1]",
            "tileloadd tmm1, [{sums} + {width}*1 + 64]",
            sums = in(reg) sums, width = in(reg) COLUMNS * size_of::<f32>(), options(nostack, readonly)
        );
        if has_second {
            asm!(
                "tileloadd tmm2, [{sums} + {width}*1]",
                "tileloadd tmm3, [{sums} + {width}*1 + 64]",
                sums = in(reg) sums.add(GROUP_ROWS * COLUMNS),
                width = in(reg) COLUMNS * size_of::<f32>(),
                options(nostack, readonly)
            );
        }
    }
}

/// # Safety
/// The rows that the tiles are configured for can be written at `sums`.
unsafe fn store_sums(sums: *mut f32, has_second: bool) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "tilestored [{sums} + {width}*1], tmm0",
            "tilestored [{sums} + {width}*1 + 64], tmm1",
            sums = in(reg) sums, width = in(reg) COLUMNS * size_of::<f32>(), options(nostack)
        );
        if has_second {
            asm!(
                "tilestored [{sums} + {width}*1], tmm2",
                "tilestored [{sums} + {width}*1 + 64], tmm3",
                sums = in(reg) sums.add(GROUP_ROWS * COLUMNS),
                width = in(reg) COLUMNS * size_of::<f32>(),
                options(nostack)
            );
        }
    }
}
