//! Counts what each thread holds of the memory, so that an input that makes a reader ask for gigabytes is found.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

/// No input of some kilobytes is a reason to hold so much; many a machine has no more. The process ends there, since the
/// machine's other processes would be next.
const IMPOSSIBLE: isize = 3 << 30;

thread_local! {
    static INPUT: Cell<(&'static str, u64)> = const { Cell::new(("", 0)) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with an account for each thread.
pub struct Counting;

fn count(bytes: isize) {
    // A thread that is being torn down has no account any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        if bytes > 0 && held.get() > IMPOSSIBLE {
            let (reader, input) = INPUT.try_with(Cell::get).unwrap_or_default();
            // Straight to the file: what the test harness catches would be lost.
            let mut out = std::io::stderr();
            let _ = writeln!(out, "{reader}: input {input} makes it hold {} MiB", held.get() >> 20);
            std::process::abort();
        }
    });
}

/// Says what this thread is at, for the message of an input that ends the process.
pub fn begin(reader: &'static str, input: u64) {
    INPUT.set((reader, input));
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
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
