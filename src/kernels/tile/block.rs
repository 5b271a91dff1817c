//! The operands and sums of the innermost product.

use crate::kernels::lane::{HALVES, Lane};
use crate::kernels::number::OperandValue;
use crate::kernels::scratch::AnyBits;
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS, LANES, ROWS};

/// Sums of a block, by row and column. Rows of the second group begin at [`GROUP_ROWS`].
#[repr(C, align(64))]
#[derive(Debug, Clone)]
pub struct Accumulator(pub [[f32; COLUMNS]; ROWS]);

// SAFETY: float32 values, at multiples of 64.
unsafe impl AnyBits for Accumulator {}

impl Accumulator {
    /// Sums of nothing.
    pub fn new() -> Self {
        Self([[0.0; COLUMNS]; ROWS])
    }

    /// Half of a row.
    #[inline(always)]
    pub fn lane<L: Lane>(&self, row: usize, half: usize) -> L {
        L::read(&self.0[row][half * LANES..(half + 1) * LANES])
    }

    /// Adds a number to each of the first rows.
    #[inline(always)]
    pub fn add_to_rows<L: Lane>(&mut self, numbers: impl Iterator<Item = f32>) {
        for (row, number) in self.0.iter_mut().zip(numbers) {
            for part in row.chunks_exact_mut(LANES) {
                L::read(part).plus(L::all(number)).write(part);
            }
        }
    }

    /// Multiplies every row.
    #[inline(always)]
    pub fn rescale<L: Lane>(&mut self, factors: &[L; HALVES]) {
        for row in &mut self.0 {
            for (row, factor) in row.chunks_exact_mut(LANES).zip(factors) {
                L::read(row).times(*factor).write(row);
            }
        }
    }
}

/// Rows of a matrix, or of a part of its columns, that are fetched.
#[derive(Debug, Clone, Copy)]
pub struct FetchedRows {
    /// The first byte of the first row. None of them need be there.
    pub start: *const i8,
    /// The distance of two rows in bytes.
    pub stride: usize,
    /// The bytes of a row.
    pub bytes: usize,
    /// The number of rows.
    pub rows: usize,
}

/// Fetches rows a few at a time.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub struct Fetcher<'a> {
    current: FetchedRows,
    others: std::slice::Iter<'a, FetchedRows>,
    at_once: usize,
}

#[cfg(target_arch = "x86_64")]
impl<'a> Fetcher<'a> {
    /// Prepares to fetch all rows in `times`.
    #[inline(always)]
    pub fn new(ahead: &'a [FetchedRows], times: usize) -> Self {
        let rows: usize = ahead.iter().map(|ahead| ahead.rows).sum();
        let none = FetchedRows { start: std::ptr::null(), stride: 0, bytes: 0, rows: 0 };
        Self { current: none, others: ahead.iter(), at_once: rows.div_ceil(times.max(1)) }
    }

    /// Fetches some rows.
    #[inline(always)]
    pub fn fetch(&mut self) {
        const LINE: usize = 64;
        for _ in 0..self.at_once {
            while self.current.rows == 0 {
                let Some(next) = self.others.next() else { return };
                self.current = *next;
            }
            for at in (0..self.current.bytes).step_by(LINE) {
                // SAFETY: a prefetch accesses no memory that could not be there.
                unsafe {
                    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                    _mm_prefetch::<_MM_HINT_T0>(self.current.start.wrapping_add(at));
                }
            }
            self.current.start = self.current.start.wrapping_add(self.current.stride);
            self.current.rows -= 1;
        }
    }

    /// Fetches what is left.
    #[inline(always)]
    pub fn finish(&mut self) {
        self.at_once = usize::MAX;
        self.fetch();
    }
}

/// The operands of a block's product.
///
/// A row's left operand is `depth` values at each of `taps` (a matrix has one tap, a 3×3 convolution of an image with a
/// border has nine). The right operand is one panel or two: `taps.len() * depth` values for each of 32 columns, of which
/// [`OperandValue::GROUP`] are side by side. Each panel has sums of its own.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a, E> {
    /// The left operand.
    pub left: &'a [E],
    /// The beginning of the first row of each group.
    pub starts: [usize; 2],
    /// The number of rows of each group, up to 16. That of the second may be 0.
    pub rows: [usize; 2],
    /// The distance of two rows of a group.
    pub stride: usize,
    /// The beginnings of the values of a row, relative to the row.
    pub taps: &'a [usize],
    /// The values at each tap, a multiple of [`Multiplied::step`](super::Multiplied::step).
    pub depth: usize,
    /// The panels.
    pub panels: &'a [&'a [E]],
    /// Rows that are needed after the product, which are fetched meanwhile.
    pub ahead: &'a [FetchedRows],
}

impl<E: OperandValue> Block<'_, E> {
    /// The values that a row reaches over.
    fn reach(&self) -> usize {
        self.taps.iter().max().copied().unwrap_or(0) + self.depth
    }

    /// The rows of each group that can be read: all 16 wherever the left operand goes on, so that AMX, for which fewer rows
    /// save nothing, is seldom configured again. A second group without rows is not read at all.
    #[cfg(target_arch = "x86_64")]
    pub fn readable_rows(&self) -> [usize; 2] {
        let reach = self.reach();
        let mut readable = [GROUP_ROWS; 2];
        for ((readable, rows), start) in readable.iter_mut().zip(self.rows).zip(self.starts) {
            if rows > 0 && start + (GROUP_ROWS - 1) * self.stride + reach > self.left.len() {
                *readable = rows;
            }
        }
        readable
    }

    /// Panics if the product would read beyond an operand, if its depth is no multiple of `step`, or if panels and `sums` are not
    /// as many.
    pub fn check(&self, sums: usize, step: usize) {
        let furthest = self.reach();
        for (start, rows) in self.starts.into_iter().zip(self.rows) {
            assert!(rows <= GROUP_ROWS);
            assert!(rows == 0 || start + (rows - 1) * self.stride + furthest <= self.left.len());
        }
        assert!(self.rows[0] > 0);
        assert!(self.depth > 0 && !self.taps.is_empty() && self.depth.is_multiple_of(step));
        let len = self.taps.len() * self.depth * COLUMNS;
        assert!((1..=2).contains(&sums) && self.panels.len() == sums);
        assert!(self.panels.iter().all(|panel| len <= panel.len()));
    }
}
