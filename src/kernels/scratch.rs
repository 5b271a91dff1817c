//! Memory for what an operator computes on the way. Each thread keeps its own, since fresh pages cost more than some
//! operators.

use std::cell::Cell;

use super::number::Number;

/// As much as a cache line, and aligned like one.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

thread_local! {
    static KEPT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with `len` numbers of any values.
pub fn with_scratch<E: Number, R>(len: usize, work: impl FnOnce(&mut [E]) -> R) -> R {
    // Taken away meanwhile: a call within `work` gets memory of its own.
    let mut lines = KEPT.take();
    let wanted = (len * size_of::<E>()).div_ceil(size_of::<Line>());
    if lines.len() < wanted {
        lines = vec![Line([0; 64]); wanted];
    }
    // SAFETY: numbers are plain bytes of which all values are valid, and the lines are as long and aligned better.
    let done = work(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<E>(), len) });
    KEPT.set(lines);
    done
}
