//! The product with sums in registers: some rows and columns at a time, over a strip of the depth.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::block::{Accumulator, Block, Fetcher};
use crate::kernels::number::OperandValue;
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS};

/// Bytes of the strips of all panels, which stay in the first cache together with what is fetched meanwhile.
const STRIP_BYTES: usize = 24 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Registers of an instruction set, of sums and of values that are multiplied. All functions need the instructions, and
/// addresses that can be read or written.
pub trait Vectors {
    /// The values that are multiplied.
    type Of: OperandValue;
    /// Sums, one for each of some columns.
    type Sums: Copy;
    /// The values at a group of depths, for each of these columns.
    type Values: Copy;
    /// What the header of a row, or of some columns, has for the sums of the strip after it.
    type Factor: Copy;
    /// Columns side by side.
    const LANES: usize;
    /// Rows at a time, of one panel.
    const ROWS: usize;
    /// Groups of depths in front of each strip whose values are not multiplied.
    const HEADER: usize = 0;

    /// The groups of a strip of `panels`, with its header: a multiple of `step` that divides all `groups` evenly.
    fn strip(groups: usize, panels: usize, step: usize) -> usize;

    /// The sums before a strip whose columns begin at `column`: of the first one nothing, else maybe those so far.
    unsafe fn begin(is_first: bool, from: *const f32, column: *const Self::Of) -> Self::Sums;
    /// The factor of a row, by its first value in the strip.
    unsafe fn row_factor(row: *const Self::Of) -> Self::Factor;
    /// The factors of columns, by the first value of the first of them in the strip.
    unsafe fn column_factor(column: *const Self::Of) -> Self::Factor;
    /// Writes the sums after a strip, together with those so far if it is not the first and did not begin with them.
    unsafe fn end(is_first: bool, sums: Self::Sums, factors: [Self::Factor; 2], to: *mut f32);
    /// Reads the values of a panel.
    unsafe fn read(from: *const Self::Of) -> Self::Values;
    /// Reads the values of a row, and repeats them for each column.
    unsafe fn repeat(from: *const Self::Of) -> Self::Values;
    /// Adds the products of two groups of values.
    unsafe fn add(sums: Self::Sums, one: Self::Values, other: Self::Values) -> Self::Sums;
}

/// Divides a depth into strips of `panels`, each a multiple of `step`.
#[inline(always)]
pub fn even_strip<E: OperandValue>(groups: usize, panels: usize, step: usize) -> usize {
    let strips = groups.div_ceil(STRIP_BYTES / panels / (COLUMNS * E::GROUP * size_of::<E>()));
    groups.div_ceil(strips).next_multiple_of(step)
}

/// The same for strips whose sums begin at zero and are then added, which rounds less than one long sum. They are the same for one
/// panel and for two, so that the results are.
#[inline(always)]
pub fn even_strip_of_sums<E: OperandValue>(groups: usize) -> usize {
    /// A multiple of the [`Form::CHUNK`] of one panel and of that of two.
    const STEP: usize = 24;
    even_strip::<E>(groups, 2, STEP)
}

/// Some rows over one strip of `P` panels.
#[derive(Debug, Clone, Copy)]
struct Strip<E, const P: usize> {
    /// The first value of the first row, after its header.
    left: *const E,
    /// The distance of two rows.
    stride: usize,
    /// The first column of each panel's strip, after its header. Rows of the panel are [`COLUMNS`] groups apart.
    panels: [*const E; P],
    /// The depth of the strip in groups.
    groups: usize,
    /// The first sum of each panel; rows of sums are [`COLUMNS`] apart.
    sums: [*mut f32; P],
    /// True if there are no sums so far.
    is_first: bool,
    /// The row of the panels from which on rows are fetched meanwhile. They may be beyond the panel.
    ahead: usize,
}

impl<E: OperandValue, const P: usize> Strip<E, P> {
    /// The first value of a column.
    #[inline(always)]
    fn column(&self, (panel, column): (usize, usize)) -> *const E {
        self.panels[panel].wrapping_add(column * E::GROUP)
    }

    /// The place of sums.
    #[inline(always)]
    fn sum(&self, row: usize, (panel, column): (usize, usize)) -> *mut f32 {
        self.sums[panel].wrapping_add(row * COLUMNS + column)
    }
}

/// A form of the product: `C` vectors of columns of `P` panels at a time.
struct Form<T, const C: usize, const P: usize>(std::marker::PhantomData<T>);

impl<T: Vectors, const C: usize, const P: usize> Form<T, C, P> {
    /// Rows at a time: with more columns fewer.
    const ROWS: usize = if P == 1 { T::ROWS } else { T::ROWS * 3 / 4 };
    /// Columns of a panel at a time.
    const WIDTH: usize = C / P * T::LANES;
    /// The parts of 32 rows by all columns, which together fetch the next strip.
    const PARTS: usize = COLUMNS / Self::WIDTH * 2 * GROUP_ROWS.div_ceil(Self::ROWS);
    /// Groups of depths after which something is fetched.
    const CHUNK: usize = if Self::PARTS < 6 { 2 * Self::PARTS } else { Self::PARTS };
    /// Values of a row of a panel.
    const ROW: usize = COLUMNS * T::Of::GROUP;

    /// Computes the product of panels, added to `sums` if it `accumulates`.
    ///
    /// # Safety
    /// The processor has the instructions, and the operands are as long as [`Block::check`] wants them.
    #[inline(always)]
    unsafe fn multiply(
        block: &Block<'_, T::Of>,
        panels: [*const T::Of; P],
        accumulates: bool,
        sums: [*mut f32; P],
        fetcher: &mut Fetcher<'_>,
    ) {
        let groups = block.depth / T::Of::GROUP;
        let strip = T::strip(groups, P, Self::CHUNK);
        for (tap, &offset) in block.taps.iter().enumerate() {
            for at in (0..groups).step_by(strip) {
                let place = (tap * groups + at + T::HEADER) * Self::ROW;
                let groups = strip.min(groups - at) - T::HEADER;
                let mut ahead = groups;
                for (column, group) in (0..COLUMNS).step_by(Self::WIDTH).flat_map(|column| [(column, 0), (column, 1)]) {
                    let mut first = 0;
                    while first < block.rows[group] {
                        let left = block.rows[group] - first;
                        let count = left.div_ceil(left.div_ceil(Self::ROWS));
                        let start =
                            block.starts[group] + first * block.stride + offset + (at + T::HEADER) * T::Of::GROUP;
                        let sum = (group * GROUP_ROWS + first) * COLUMNS + column;
                        let part = Strip {
                            left: block.left.as_ptr().wrapping_add(start),
                            stride: block.stride,
                            panels: panels.map(|panel| panel.wrapping_add(place + column * T::Of::GROUP)),
                            groups,
                            sums: sums.map(|sums| sums.wrapping_add(sum)),
                            is_first: !accumulates && tap == 0 && at == 0,
                            ahead,
                        };
                        ahead += groups / Self::PARTS;
                        // SAFETY: within the operands, as the caller checked.
                        unsafe { Self::some_rows(count, part, fetcher) };
                        first += count;
                    }
                }
            }
        }
    }

    /// The number of times that a block fetches something.
    #[inline(always)]
    fn times(block: &Block<'_, T::Of>) -> usize {
        let rows: usize = block.rows.iter().map(|rows| rows.div_ceil(Self::ROWS)).sum();
        block.taps.len() * (COLUMNS / Self::WIDTH) * rows * (block.depth / T::Of::GROUP / Self::CHUNK)
    }

    /// Adds the products of `count` rows to their sums.
    ///
    /// # Safety
    /// As [`Form::rows`].
    #[inline(always)]
    unsafe fn some_rows(count: usize, strip: Strip<T::Of, P>, fetcher: &mut Fetcher<'_>) {
        // SAFETY: as the caller promises.
        unsafe {
            match count {
                8 if Self::ROWS >= 8 => Self::rows::<8>(strip, fetcher),
                7 if Self::ROWS >= 7 => Self::rows::<7>(strip, fetcher),
                6 => Self::rows::<6>(strip, fetcher),
                5 => Self::rows::<5>(strip, fetcher),
                4 => Self::rows::<4>(strip, fetcher),
                3 => Self::rows::<3>(strip, fetcher),
                2 => Self::rows::<2>(strip, fetcher),
                _ => Self::rows::<1>(strip, fetcher),
            }
        }
    }

    /// Adds the products of `R` rows to their sums.
    ///
    /// # Safety
    /// The processor has the instructions, and the strip is within the operands.
    #[inline(always)]
    unsafe fn rows<const R: usize>(strip: Strip<T::Of, P>, fetcher: &mut Fetcher<'_>) {
        // SAFETY: as the caller promises; a prefetch accesses no memory that could not be there.
        unsafe {
            let mut sums = [[T::begin(true, strip.sum(0, (0, 0)), strip.column((0, 0))); C]; R];
            for (row, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    let place = Self::place(vector);
                    *sum = T::begin(strip.is_first, strip.sum(row, place), strip.column(place));
                }
            }
            let whole = strip.groups / Self::CHUNK * Self::CHUNK;
            for first in (0..whole).step_by(Self::CHUNK) {
                let rows = Self::CHUNK / Self::PARTS;
                for panel in strip.panels {
                    let from = panel.wrapping_add((strip.ahead + first / Self::PARTS) * Self::ROW).cast::<i8>();
                    for at in (0..rows * Self::ROW * size_of::<T::Of>()).step_by(LINE) {
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at));
                    }
                }
                fetcher.fetch();
                for group in first..first + Self::CHUNK {
                    Self::add(&mut sums, &strip, group);
                }
            }
            for group in whole..strip.groups {
                Self::add(&mut sums, &strip, group);
            }
            let mut factors = [T::column_factor(strip.column((0, 0))); C];
            for (vector, factor) in factors.iter_mut().enumerate().skip(1) {
                *factor = T::column_factor(strip.column(Self::place(vector)));
            }
            for (row, sums) in sums.iter().enumerate() {
                let factor = T::row_factor(strip.left.wrapping_add(row * strip.stride));
                for (vector, sum) in sums.iter().enumerate() {
                    T::end(strip.is_first, *sum, [factor, factors[vector]], strip.sum(row, Self::place(vector)));
                }
            }
        }
    }

    /// Adds the products at a group of depths.
    ///
    /// # Safety
    /// As [`Form::rows`].
    #[inline(always)]
    unsafe fn add<const R: usize>(sums: &mut [[T::Sums; C]; R], strip: &Strip<T::Of, P>, group: usize) {
        // SAFETY: as the caller promises. Loops and no closures, which would not have the instructions.
        unsafe {
            let mut columns = [T::read(strip.column((0, 0)).add(group * Self::ROW)); C];
            for (vector, columns) in columns.iter_mut().enumerate().skip(1) {
                *columns = T::read(strip.column(Self::place(vector)).add(group * Self::ROW));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let values = T::repeat(strip.left.add(row * strip.stride + group * T::Of::GROUP));
                for (sum, columns) in sums.iter_mut().zip(columns) {
                    *sum = T::add(*sum, values, columns);
                }
            }
        }
    }

    /// The panel and the first column of a vector.
    #[inline(always)]
    fn place(vector: usize) -> (usize, usize) {
        (vector / (C / P), vector % (C / P) * T::LANES)
    }
}

/// Computes the product of the block's panels one by one, `C` vectors of columns at a time, added to `sums` if it
/// `accumulates`.
///
/// # Safety
/// The processor has the instructions, and the operands are as long as [`Block::check`] wants them.
#[inline(always)]
pub unsafe fn multiply_each<T: Vectors, const C: usize>(
    block: &Block<'_, T::Of>,
    accumulates: bool,
    sums: &mut [&mut Accumulator],
) {
    // In the first half, so that the last rows are there in time.
    let mut fetcher = Fetcher::new(block.ahead, sums.len() * Form::<T, C, 1>::times(block) / 2);
    for (panel, sums) in block.panels.iter().zip(sums) {
        let sums = sums.0.as_mut_ptr().cast();
        // SAFETY: as the caller promises.
        unsafe { Form::<T, C, 1>::multiply(block, [panel.as_ptr()], accumulates, [sums], &mut fetcher) };
    }
    fetcher.finish();
}

/// Computes the product of two panels together, two vectors of columns of each at a time: to eight rows by two vectors, 16
/// products take ten loads; to six rows by four, 24 do.
///
/// # Safety
/// As [`multiply_each`], and the block has two panels.
#[inline(always)]
pub unsafe fn multiply_pair<T: Vectors>(block: &Block<'_, T::Of>, accumulates: bool, sums: &mut [&mut Accumulator]) {
    let panels = std::array::from_fn(|at| block.panels[at].as_ptr());
    let sums = std::array::from_fn(|at| sums[at].0.as_mut_ptr().cast());
    let mut fetcher = Fetcher::new(block.ahead, Form::<T, 4, 2>::times(block) / 2);
    // SAFETY: as the caller promises.
    unsafe { Form::<T, 4, 2>::multiply(block, panels, accumulates, sums, &mut fetcher) };
    fetcher.finish();
}
