//! Threads that share a kernel's work.

use std::marker::PhantomData;

/// Something that runs tasks at the same time.
pub trait Threads {
    /// The number of tasks that run at the same time.
    fn count(&self) -> usize;

    /// Runs `work` for each number below `tasks`, and returns when all have ended.
    fn each(&self, tasks: usize, work: &(dyn Fn(usize) + Sync));
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
