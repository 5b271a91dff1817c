//! The product in AMX tiles, bfloat16. Rust's intrinsics for them are not stable, so the instructions are written out.
//!
//! Tiles 0 to 3 hold the sums of two groups of rows by two halves of the columns, 4 and 5 the groups' left operands, 6
//! and 7 the halves of the panel.

use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use half::bf16;

use super::block::{Accumulator, Block, Fetcher};
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS};

/// Depth of one tile.
const DEPTH: usize = 32;
/// Distance in bytes at which the panel is fetched ahead: tiles wait for the second cache otherwise.
const AHEAD: usize = 4096;
/// Bytes of a panel that stays in the first cache from one block to the next, so that it need not be fetched.
const NEAR_BYTES: usize = 32 << 10;

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
    let out = sums.0.as_mut_ptr().cast::<f32>();
    let has_second = block.rows[1] > 0;
    // SAFETY: all addresses are within the operands and the sums, as the caller checked.
    unsafe {
        if accumulates {
            load_sums(out, has_second);
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack));
        }
        match (has_second, size_of_val(panel) > NEAR_BYTES) {
            (true, true) => steps::<true, true>(block, panel),
            (true, false) => steps::<true, false>(block, panel),
            (false, true) => steps::<false, true>(block, panel),
            (false, false) => steps::<false, false>(block, panel),
        }
        store_sums(out, has_second);
    }
}

/// Adds the products of all depths.
///
/// # Safety
/// As [`multiply`]. The block has a second group if `SECOND`.
unsafe fn steps<const SECOND: bool, const FAR: bool>(block: &Block<'_, bf16>, panel: &[bf16]) {
    let stride = block.stride * size_of::<bf16>();
    // In the first half, so that the last ones are there in time.
    let mut ahead = Fetcher::new(block.ahead, block.depth / DEPTH * block.taps.len() / 2);
    let mut panel = panel.as_ptr();
    for &tap in block.taps {
        let [mut first, mut second] = block.starts.map(|start| block.left.as_ptr().wrapping_add(start + tap));
        for _ in 0..block.depth / DEPTH {
            ahead.fetch();
            if FAR {
                fetch_ahead(panel);
            }
            // SAFETY: as the caller promises.
            unsafe { step::<SECOND>(first, second, stride, panel) };
            first = first.wrapping_add(DEPTH);
            second = second.wrapping_add(DEPTH);
            panel = panel.wrapping_add(DEPTH * COLUMNS);
        }
    }
}

/// Fetches the part of a panel that comes after the next step, which may be beyond its end.
#[inline(always)]
fn fetch_ahead(panel: *const bf16) {
    const LINE: usize = 64;
    let ahead = panel.cast::<i8>().wrapping_add(AHEAD);
    for at in (0..DEPTH * COLUMNS * size_of::<bf16>()).step_by(LINE) {
        // SAFETY: a prefetch accesses no memory that could not be there.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(at)) };
    }
}

/// Adds the products of one tile of the depth.
///
/// # Safety
/// A tile can be read from each of the addresses, from that of the second group if `SECOND`.
#[inline(always)]
unsafe fn step<const SECOND: bool>(first: *const bf16, second: *const bf16, stride: usize, panel: *const bf16) {
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
        if SECOND {
            asm!(
                "tileloadd tmm5, [{second} + {stride}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                second = in(reg) second,
                stride = in(reg) stride,
                options(nostack, readonly)
            );
        }
    }
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
