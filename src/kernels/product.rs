//! Matrix products and convolutions: rows of an image or matrix by packed columns, with what follows them.

use super::epilogue::{Epilogue, PanelEpilogue, StepRows};
use super::instruction_set::{InstructionSet, Work, vectorized};
use super::lane::Lane;
use super::number::Number;
use super::pack::PanelShape;
use super::threads::{Parts, Threads, units_of_part};
use super::tile::{Accumulator, Block, FetchedRows, Multiplied, TileUnit};
use super::tile_size::GROUP_ROWS;

/// The places of a left operand that a product reads, and the rows of the result.
///
/// Rows are in lines: of `lines` lines, `lines_per_image` belong to one image; a line has `line_rows` rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductRows {
    /// The number of lines of all images.
    pub lines: usize,
    /// The number of lines of an image.
    pub lines_per_image: usize,
    /// The rows of a line.
    pub line_rows: usize,
    /// The distance of two images in the left operand, in values.
    pub image_stride: usize,
    /// The distance of two lines of an image.
    pub line_stride: usize,
    /// The distance of two rows of a line.
    pub row_stride: usize,
    /// The beginning of each tap, relative to the row.
    pub taps: Vec<usize>,
    /// The place of the rows in the result.
    pub out: OutRows,
}

/// The place of rows in a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutRows {
    /// The first row.
    pub first: usize,
    /// The distance of the first rows of two lines, in rows.
    pub line_step: usize,
    /// The distance of two rows of a line.
    pub step: usize,
}

impl ProductRows {
    /// The rows of a matrix, `per_image` of which belong to one image.
    pub fn of_matrix(rows: usize, per_image: usize, width: usize) -> Self {
        let lines = rows.checked_div(per_image).unwrap_or(0);
        Self {
            lines,
            lines_per_image: 1,
            line_rows: per_image,
            image_stride: per_image * width,
            line_stride: 0,
            row_stride: width,
            taps: vec![0],
            out: OutRows { first: 0, line_step: per_image, step: 1 },
        }
    }

    fn groups_per_line(&self) -> usize {
        self.line_rows.div_ceil(GROUP_ROWS)
    }

    fn group(&self, group: usize) -> Group {
        let line = group / self.groups_per_line();
        let row = group % self.groups_per_line() * GROUP_ROWS;
        let (image, line_in_image) = (line / self.lines_per_image, line % self.lines_per_image);
        let start = image * self.image_stride + line_in_image * self.line_stride + row * self.row_stride;
        let first = self.out.first + line * self.out.line_step + row * self.out.step;
        let rows = StepRows { first, step: self.out.step, count: GROUP_ROWS.min(self.line_rows - row) };
        Group { start, image, rows }
    }
}

/// A product: a left operand, a packed right one, and what follows.
#[derive(Debug, Clone)]
pub struct Product<'a, E> {
    /// The left operand.
    pub left: &'a [E],
    /// The rows of it.
    pub rows: ProductRows,
    /// The right operand, as [`PanelShape::pack`] made it.
    pub packed: &'a [E],
    /// Its shape.
    pub shape: PanelShape,
    /// The operations after it.
    pub epilogue: Epilogue<'a>,
}

/// Bytes of the left operand that one task takes through all panels, so that they stay in the second cache.
const LEFT_BYTES: usize = 384 << 10;
/// Bytes of a left operand that is not divided: tasks are of panels then, each of which is read once.
const WHOLE_LEFT_BYTES: usize = 3 << 19;

impl<E: Multiplied> Product<'_, E> {
    /// Computes the product into `out`, rows of [`Epilogue::out_columns`] values.
    ///
    /// Each value is the same for any number of threads.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        self.check();
        let groups = self.rows.lines * self.rows.groups_per_line();
        let panels = self.shape.panels();
        let row_bytes = self.rows.row_stride.max(1) * size_of::<E>();
        let most = (LEFT_BYTES / row_bytes / GROUP_ROWS).clamp(4, 256);
        let wanted = 3 * threads.count();
        let part_of = |units: usize, most: usize| units_of_part(units, most, threads.count());
        // Reading all rows for each panel is then less than reading all panels for each part of the rows.
        let has_large_panels = self.shape.panel_len::<E>() * size_of::<E>() > LEFT_BYTES;
        let is_small = groups * GROUP_ROWS * row_bytes <= WHOLE_LEFT_BYTES;
        let is_whole = (is_small || has_large_panels) && panels >= wanted;
        let chunk = if is_whole { groups.next_multiple_of(2) } else { 2 * part_of(groups.div_ceil(2), most / 2) };
        let chunks = groups.div_ceil(chunk.max(1));
        // Few rows: the panels are divided as well, in pairs where there are enough.
        let per_part = match chunks {
            chunks if chunks >= wanted => panels,
            1 if self.has_pairs(set) && panels >= 2 * wanted => 2 * part_of(panels.div_ceil(2), panels),
            1 => part_of(panels, panels),
            chunks => panels.div_ceil(wanted.div_ceil(chunks)),
        }
        .max(1);
        let parts = panels.div_ceil(per_part);
        let out = Parts::new(out);
        threads.each(chunks * parts, &|task| {
            let (chunk_at, part) = (task / parts, task % parts);
            let groups = chunk_at * chunk..groups.min((chunk_at + 1) * chunk);
            let panels = part * per_part..panels.min((part + 1) * per_part);
            vectorized(set, Task { product: self, set, groups, panels, out: &out });
        });
    }

    /// True if panels are multiplied two at a time.
    fn has_pairs(&self, set: InstructionSet) -> bool {
        TileUnit::has_pairs::<E>(set, self.shape.panel_len::<E>())
    }

    fn check(&self) {
        let Self { shape, rows, epilogue, .. } = self;
        assert_eq!(shape.taps, rows.taps.len());
        assert!(self.packed.len() >= shape.packed_len::<E>());
        epilogue.check(shape.columns, rows.lines.div_ceil(rows.lines_per_image.max(1)));
    }
}

/// A part of the rows by a part of the panels.
struct Task<'t, 'a, E, O> {
    product: &'t Product<'a, E>,
    set: InstructionSet,
    groups: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    out: &'t Parts<'t, O>,
}

/// Memory and tiles that a task computes in.
struct TaskScratch {
    tiles: TileUnit,
    /// The sums of each panel.
    sums: [Accumulator; 2],
    /// Rows of the result.
    fetched: Vec<FetchedRows>,
}

/// Rows of a line that are computed together.
#[derive(Debug, Clone, Copy)]
struct Group {
    /// The beginning of the first row in the left operand.
    start: usize,
    image: usize,
    rows: StepRows,
}

impl Group {
    const NONE: Self = Self { start: 0, image: 0, rows: StepRows { first: 0, step: 0, count: 0 } };
}

impl<E: Multiplied, O: Number> Work for Task<'_, '_, E, O> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let sums = std::array::from_fn(|_| Accumulator::new());
        let mut scratch = TaskScratch { tiles: TileUnit::new::<E>(self.set), sums, fetched: Vec::new() };
        let mut groups: Vec<Group> = self.groups.clone().map(|group| self.product.rows.group(group)).collect();
        groups.resize(groups.len().next_multiple_of(2), Group::NONE);
        let mut panels = self.panels.clone();
        if self.product.has_pairs(self.set) {
            while panels.len() >= 2 {
                self.multiply::<L, 2>(&mut scratch, &groups, panels.start);
                panels.start += 2;
            }
        }
        for panel in panels {
            self.multiply::<L, 1>(&mut scratch, &groups, panel);
        }
    }
}

impl<E: Multiplied, O: Number> Task<'_, '_, E, O> {
    /// Computes all rows by `PANELS` panels from `first` on.
    #[inline(always)]
    fn multiply<L: Lane, const PANELS: usize>(&self, scratch: &mut TaskScratch, groups: &[Group], first: usize) {
        let Self { product, out, .. } = self;
        let TaskScratch { tiles, sums, fetched } = scratch;
        let panel_len = product.shape.panel_len::<E>();
        let panels: [_; PANELS] = std::array::from_fn(|at| &product.packed[(first + at) * panel_len..][..panel_len]);
        let epilogues = |image| -> [_; PANELS] {
            let new = |at| PanelEpilogue::<L>::new(product.epilogue, product.shape.columns, first + at, image);
            std::array::from_fn(new)
        };
        let (mut image, mut after) = (groups[0].image, epilogues(groups[0].image));
        for pair in groups.as_chunks::<2>().0 {
            fetched.clear();
            for group in pair {
                for after in &after {
                    after.fetched(group.rows, out, fetched);
                }
            }
            let block = Block {
                left: product.left,
                starts: [pair[0].start, pair[1].start],
                rows: [pair[0].rows.count, pair[1].rows.count],
                stride: product.rows.row_stride,
                taps: &product.rows.taps,
                depth: product.shape.padded_depth::<E>(),
                panels: &panels,
                ahead: fetched,
            };
            E::multiply(tiles, &block, false, &mut sums.each_mut()[..PANELS]);
            for (at, group) in pair.iter().enumerate() {
                if group.rows.count > 0 && group.image != image {
                    (image, after) = (group.image, epilogues(group.image));
                }
                for (after, sums) in after.iter().zip(sums.iter_mut()) {
                    let sums = &mut sums.0[at * GROUP_ROWS..(at + 1) * GROUP_ROWS];
                    // SAFETY: each row and panel of the result is written by one task.
                    unsafe { after.write(group.rows, sums, out) };
                }
            }
        }
    }
}
