//! Rows or images in the operands' type, padded.

use super::instruction_set::{InstructionSet, Work, vectorized};
use super::lane::Lane;
use super::number::Number;
use super::threads::{Parts, Threads};

/// Rows of float32 numbers that become an operand.
#[derive(Debug, Clone, Copy)]
pub struct OperandCopy<'a> {
    /// The rows.
    pub rows: &'a [f32],
    /// The numbers of a row.
    pub depth: usize,
    /// The numbers of a row of the operand, of which the last are zeros.
    pub padded: usize,
    /// The number of rows, or with a border the number of lines of all images.
    pub lines: usize,
    /// The height and width of the images that get a border of one pixel of zeros.
    pub border: Option<(usize, usize)>,
}

impl OperandCopy<'_> {
    /// Writes the operand to `out`.
    ///
    /// # Panics
    /// If the rows or `out` are shorter than the operand says.
    pub fn write<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        const AT_ONCE: usize = 64;
        let out = Parts::new(out);
        let lines = if self.border.is_some() { 1 } else { AT_ONCE };
        threads.each(self.lines.div_ceil(lines), &|task| {
            vectorized(
                set,
                Task { operand: self, first: task * lines, lines: lines.min(self.lines - task * lines), out: &out },
            );
        });
    }
}

/// Some rows, or a line of an image.
struct Task<'t, 'a, O> {
    operand: &'t OperandCopy<'a>,
    first: usize,
    lines: usize,
    out: &'t Parts<'t, O>,
}

impl<O: Number> Work for Task<'_, '_, O> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { operand, first, lines, out } = self;
        let &OperandCopy { rows, depth, padded, border, .. } = operand;
        let (count, to) = match border {
            None => (lines, first * padded),
            Some((height, width)) => {
                let line = (width + 2) * padded;
                let start = (first / height * (height + 2) + first % height + 1) * line;
                // SAFETY: this line, and the border above or below it, is this task's.
                unsafe {
                    if first.is_multiple_of(height) {
                        out.range(start - line, line).fill(O::default());
                    }
                    if (first + 1).is_multiple_of(height) {
                        out.range(start + line, line).fill(O::default());
                    }
                    out.range(start, padded).fill(O::default());
                    out.range(start + line - padded, padded).fill(O::default());
                }
                (width, start + padded)
            }
        };
        let from = if border.is_some() { first * count } else { first };
        // SAFETY: as above.
        let out = unsafe { out.range(to, count * padded) };
        for (row, out) in rows[from * depth..].chunks_exact(depth).zip(out.chunks_exact_mut(padded)) {
            out[..depth].iter_mut().zip(row).for_each(|(out, x)| *out = O::from_f32(*x));
            out[depth..].fill(O::default());
        }
    }
}
