//! Threads that share a kernel's work.

use std::marker::PhantomData;

/// Something that runs tasks at the same time.
pub trait Threads {
    /// The number of tasks that run at the same time.
    fn count(&self) -> usize;

    /// Runs `work` for each number below `tasks`, and returns when all have ended.
    fn each(&self, tasks: usize, work: &(dyn Fn(usize) + Sync));
}

/// Divides `units` of equal work into parts of up to `most` for some threads, and returns the units of a part.
///
/// A thread has three parts or more where there are enough, since threads are not equally fast, but fewer if that leaves less
/// to the one that has the most.
pub fn units_of_part(units: usize, most: usize, threads: usize) -> usize {
    let least = units.div_ceil(most.max(1)).div_ceil(threads).max(1);
    let sizes = (least..=least.max(3)).rev().map(|parts| units.div_ceil(parts * threads).max(1));
    sizes.min_by_key(|size| units.div_ceil(*size).div_ceil(threads) * size).unwrap_or(1)
}

/// The calling thread alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneThread;

impl Threads for OneThread {
    fn count(&self) -> usize {
        1
    }

    fn each(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(work);
    }
}

/// A slice that tasks write to at different places.
pub struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: `range` is unsafe: whoever calls it keeps the ranges apart.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Divides a slice.
    pub fn new(whole: &'a mut [T]) -> Self {
        Self { start: whole.as_mut_ptr(), len: whole.len(), life: PhantomData }
    }

    /// The address of a value, which need not be there.
    #[inline(always)]
    pub fn address(&self, at: usize) -> *const T {
        self.start.wrapping_add(at)
    }

    /// Returns the address of `width` values, and of as many at every distance of `stride` after them, `count` in all.
    ///
    /// # Panics
    /// If they are not within the slice.
    #[inline(always)]
    pub fn rows(&self, at: usize, stride: usize, count: usize, width: usize) -> *mut T {
        assert!(count == 0 || at + (count - 1) * stride + width <= self.len);
        self.start.wrapping_add(at)
    }

    /// Returns a range of the slice.
    ///
    /// # Safety
    /// No other range in use at the same time overlaps it.
    ///
    /// # Panics
    /// If it is not within the slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn range(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: it is within the slice, and the caller has it alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_leave_no_thread_with_much_more_than_another() {
        assert_eq!(units_of_part(20, 20, 2), 5);
        assert_eq!(units_of_part(10, 10, 2), 5);
        assert_eq!(units_of_part(64, 9, 2), 8);
        assert_eq!(units_of_part(1, 1, 8), 1);
        assert_eq!(units_of_part(0, 0, 2), 1);
        for (units, most, threads) in (1..200).flat_map(|units| [(units, 7, 2), (units, 500, 4), (units, 16, 3)]) {
            let part = units_of_part(units, most, threads);
            let busiest = units.div_ceil(part).div_ceil(threads) * part;
            assert!(
                part <= most && busiest < units.div_ceil(threads) + units.div_ceil(threads).max(4) / 2,
                "{units} {part}"
            );
        }
    }
}
