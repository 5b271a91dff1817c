//! Counts what each thread asks of the memory and holds of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

/// No input of some kilobytes is a reason to hold so much; many a machine has no more. The process ends there, since the
/// machine's other processes would be next.
const IMPOSSIBLE: isize = 3 << 30;

thread_local! {
    /// How often this thread has asked for memory.
    pub static ASKED: Cell<usize> = const { Cell::new(0) };

    /// The most bytes that it has asked for at once since this was last set to 0.
    pub static LARGEST: Cell<usize> = const { Cell::new(0) };

    static INPUT: Cell<Option<(&'static str, u64)>> = const { Cell::new(None) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with an account for each thread.
pub struct Counting;

/// Counts a request for `bytes`, which makes the thread hold `more`. A thread that is ending has no counters any more.
fn count(bytes: usize, more: isize) {
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
    hold(more);
}

fn hold(more: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + more);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        if more > 0 && held.get() > IMPOSSIBLE {
            end(held.get());
        }
    });
}

/// Ends the process if this thread is at a mutated input.
fn end(held: isize) {
    if let Ok(Some((reader, input))) = INPUT.try_with(Cell::get) {
        // Straight to the file: what the test harness catches would be lost.
        let mut out = std::io::stderr();
        let _ = writeln!(out, "{reader}: input {input} makes it hold {} MiB", held >> 20);
        std::process::abort();
    }
}

/// Says what this thread is at, for the message of an input that ends the process.
pub fn begin(reader: &'static str, input: u64) {
    INPUT.set(Some((reader, input)));
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, size.cast_signed() - layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The most that this thread held beyond what it holds now while it did `work`, in bytes.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let result = work();
    (result, usize::try_from(PEAK.with(Cell::get) - before).unwrap_or(0))
}
