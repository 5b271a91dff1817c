//! Memory for what an operator computes on the way. Each thread keeps its own, since fresh pages cost more than some
//! operators.

use std::cell::RefCell;

/// As much as a cache line, and aligned like one: a tile's rows are read twice as fast if each is in one line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Bytes of a piece of memory that a thread keeps.
const KEPT_BYTES: usize = 64 << 20;

thread_local! {
    static KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A type of which all bits are valid values.
///
/// # Safety
/// That is so, and the type's alignment divides 64.
pub unsafe trait AnyBits {}

// SAFETY: numbers.
unsafe impl AnyBits for f32 {}
// SAFETY: as above.
unsafe impl AnyBits for half::bf16 {}
// SAFETY: as above.
unsafe impl AnyBits for u8 {}

/// Calls `work` with `len` of any values, in memory of its own: `work` may ask for more.
pub fn with_scratch<E: AnyBits, R>(len: usize, work: impl FnOnce(&mut [E]) -> R) -> R {
    let mut lines = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    let wanted = (len * size_of::<E>()).div_ceil(size_of::<Line>());
    if lines.len() < wanted {
        lines = vec![Line([0; 64]); wanted];
    }
    // SAFETY: all bits are valid values, and the lines are as long and aligned as well.
    let done = work(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<E>(), len) });
    if size_of_val(&lines[..]) <= KEPT_BYTES {
        KEPT.with_borrow_mut(|kept| kept.push(lines));
    }
    done
}
