//! Linear layers in int8 of operands in a wider type.

use super::epilogue::Epilogue;
use super::instruction_set::{InstructionSet, Work, vectorized};
use super::int8::{HEADER, LARGEST, strip};
use super::lane::Lane;
use super::number::{Number, OperandValue};
use super::pack::PanelShape;
use super::product::{Product, ProductRows};
use super::scratch::with_scratch;
use super::threads::{Parts, Threads};

/// A linear layer in int8.
#[derive(Debug, Clone, Copy)]
pub struct Int8Product<'a, E> {
    /// The left operand, rows of [`PanelShape::depth`].
    pub left: &'a [E],
    /// The rows of an image.
    pub rows_per_image: usize,
    /// The right operand, as [`pack_int8`](super::pack_int8) made it.
    pub packed: &'a [u8],
    /// Its shape.
    pub shape: PanelShape,
    /// The operations after it.
    pub epilogue: Epilogue<'a>,
}

impl<E: Number> Int8Product<'_, E> {
    /// Computes the product into `out`, rows of [`Epilogue::out_columns`] values.
    ///
    /// Each value is the same for any number of threads.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        let &Self { left, rows_per_image, packed, shape, epilogue } = self;
        let (rows, padded) = (left.len() / shape.depth, u8::padded(shape.depth));
        with_scratch::<u8, _>(rows * padded, |bytes| {
            self.write_rows(set, threads, bytes);
            let rows = ProductRows::of_matrix(rows, rows_per_image, padded);
            Product { left: bytes, rows, packed, shape, epilogue }.run(set, threads, out);
        });
    }

    /// Writes the left operand to `out`.
    fn write_rows(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [u8]) {
        const AT_ONCE: usize = 32;
        let (out, depth) = (Parts::new(out), self.shape.depth);
        let (padded, at_once) = (u8::padded(depth), AT_ONCE * depth);
        threads.each(self.left.len().div_ceil(at_once), &|task| {
            let rows = &self.left[task * at_once..self.left.len().min((task + 1) * at_once)];
            // SAFETY: each task has rows of its own.
            let out = unsafe { out.range(task * AT_ONCE * padded, rows.len() / depth * padded) };
            vectorized(set, WriteRows { rows, depth, out });
        });
    }
}

/// Some rows, and the place of their operand.
struct WriteRows<'a, E> {
    rows: &'a [E],
    depth: usize,
    out: &'a mut [u8],
}

impl<E: Number> Work for WriteRows<'_, E> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let padded = u8::padded(self.depth);
        let strip = strip(padded);
        for (row, out) in self.rows.chunks_exact(self.depth).zip(self.out.chunks_exact_mut(padded)) {
            let mut row = row.chunks(strip - HEADER);
            for out in out.chunks_exact_mut(strip) {
                write_strip(row.next().unwrap_or_default(), out);
            }
        }
    }
}

/// Writes a strip of a row. Numbers that are not finite make the scale so, and with it the result.
#[inline(always)]
fn write_strip<E: Number>(values: &[E], out: &mut [u8]) {
    const MAGNITUDE: u32 = 0x7fff_ffff;
    // Its lowest bits are those of the nearest whole number that is added to it, here plus 128.
    const ROUNDS: f32 = (3 << 22) as f32 + 128.0;
    // The bits of magnitudes are in the order of these, and whole numbers have a vectorized maximum.
    let largest = values.iter().fold(0, |largest, x| (x.to_f32().to_bits() & MAGNITUDE).max(largest));
    let largest = f32::from_bits(largest);
    let factor = if largest > 0.0 { LARGEST / largest } else { 0.0 };
    let (header, out) = out.split_at_mut(HEADER);
    header.fill(0);
    header[..4].copy_from_slice(&(largest / LARGEST).to_ne_bytes());
    let (written, rest) = out.split_at_mut(values.len());
    for (out, x) in written.iter_mut().zip(values) {
        *out = (x.to_f32() * factor + ROUNDS).to_bits() as u8;
    }
    rest.fill(128);
}
