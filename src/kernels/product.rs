//! Matrix products and convolutions: rows of an image or matrix by packed columns, with what follows them.

use super::epilogue::{Epilogue, PanelEpilogue};
use super::instruction_set::{InstructionSet, Work, vectorized};
use super::number::Number;
use super::pack::PanelShape;
use super::threads::{Parts, Threads};
use super::tile::{Accumulator, Block, Element, TileUnit};
use super::tile_size::GROUP_ROWS;

/// The places of a left operand that a product reads, and the rows of the result.
///
/// ProductRows are in lines: of `lines` lines, `lines_per_image` belong to one image; a line has `line_rows` rows.
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

    /// The row of the result.
    #[inline(always)]
    fn out_row(&self, line: usize, row: usize) -> usize {
        self.out.first + line * self.out.line_step + row * self.out.step
    }

    fn groups_per_line(&self) -> usize {
        self.line_rows.div_ceil(GROUP_ROWS)
    }

    /// The line of a group of rows, the number of its first row in that, and its rows.
    #[inline(always)]
    fn group(&self, group: usize) -> (usize, usize, usize) {
        let line = group / self.groups_per_line();
        let first = group % self.groups_per_line() * GROUP_ROWS;
        (line, first, GROUP_ROWS.min(self.line_rows - first))
    }

    #[inline(always)]
    fn start(&self, line: usize, row: usize) -> usize {
        let (image, line) = (line / self.lines_per_image, line % self.lines_per_image);
        image * self.image_stride + line * self.line_stride + row * self.row_stride
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

impl<E: Element> Product<'_, E> {
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
        let is_whole = groups * GROUP_ROWS * row_bytes <= WHOLE_LEFT_BYTES && panels >= wanted;
        let chunk = if is_whole { groups } else { groups.div_ceil(wanted).clamp(2, most) }.next_multiple_of(2);
        let chunks = groups.div_ceil(chunk);
        // Few rows: the panels are divided as well.
        let parts = wanted.div_ceil(chunks.max(1)).clamp(1, panels.max(1));
        let per_part = panels.div_ceil(parts);
        let out = Parts::new(out);
        threads.each(chunks * parts, &|task| {
            let (chunk_at, part) = (task / parts, task % parts);
            let groups = chunk_at * chunk..groups.min((chunk_at + 1) * chunk);
            let panels = part * per_part..panels.min((part + 1) * per_part);
            vectorized(set, Task { product: self, set, groups, panels, out: &out });
        });
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

impl<E: Element, O: Number> Work for Task<'_, '_, E, O> {
    #[inline(always)]
    fn run(self) {
        let Self { product, set, groups, panels, out } = self;
        let mut tiles = TileUnit::new::<E>(set);
        let mut sums = Accumulator::new();
        let panel_len = product.shape.panel_len::<E>();
        let depth = product.shape.padded_depth::<E>();
        for panel in panels {
            for first in groups.clone().step_by(2) {
                let pair = [first, first + 1]
                    .map(|group| if group < groups.end { product.rows.group(group) } else { (0, 0, 0) });
                let block = Block {
                    left: product.left,
                    starts: pair.map(|(line, row, _)| product.rows.start(line, row)),
                    rows: pair.map(|(_, _, rows)| rows),
                    stride: product.rows.row_stride,
                    taps: &product.rows.taps,
                    depth,
                    panel: &product.packed[panel * panel_len..][..panel_len],
                };
                E::multiply(&mut tiles, &block, false, &mut sums);
                for ((line, first, rows), sums) in pair.into_iter().zip(sums.0.chunks_exact(GROUP_ROWS)) {
                    if rows == 0 {
                        continue;
                    }
                    let image = line / product.rows.lines_per_image;
                    let after = PanelEpilogue::new(product.epilogue, product.shape.columns, panel, image);
                    for (row, sums) in (first..first + rows).zip(sums) {
                        // SAFETY: each row and panel of the result is written by one task.
                        unsafe { after.write(product.rows.out_row(line, row), sums, out) };
                    }
                }
            }
        }
    }
}
