//! Normalization of rows.

use super::instruction_set::{InstructionSet, Work, vectorized};
use super::lane::Lane;
use super::number::Number;
use super::threads::{Parts, Threads};
use super::tile_size::LANES;

/// Normalization of the rows of a matrix: `(x - mean) / sqrt(variance + epsilon) · scale + shift`, or without the mean
/// (RMS). Scale and shift may differ from image to image, as adaptive normalization has them.
#[derive(Debug, Clone, Copy)]
pub struct RowNorm<'a> {
    /// The matrix.
    pub rows: &'a [f32],
    /// Its width.
    pub width: usize,
    /// The rows that belong to one image.
    pub rows_per_image: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// True if the mean is subtracted.
    pub centers: bool,
    /// Factors: one row, or one for each image.
    pub scale: Option<&'a [f32]>,
    /// Offsets: one row, or one for each image.
    pub shift: Option<&'a [f32]>,
}

impl RowNorm<'_> {
    /// Computes it into `out`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        const AT_ONCE: usize = 16;
        assert_eq!(self.rows.len(), out.len());
        let count = self.rows.len() / self.width.max(1);
        let out = Parts::new(out);
        threads.each(count.div_ceil(AT_ONCE), &|task| {
            let first = task * AT_ONCE;
            let rows = first..count.min(first + AT_ONCE);
            // SAFETY: these rows are this task's.
            let out = unsafe { out.range(first * self.width, rows.len() * self.width) };
            vectorized(set, NormRows { norm: self, first, out });
        });
    }

    /// The row of factors or offsets of an image.
    #[inline(always)]
    fn of_image<'v>(&self, values: Option<&'v [f32]>, image: usize) -> Option<&'v [f32]> {
        let start = |values: &[f32]| if values.len() == self.width { 0 } else { image * self.width };
        values.map(|values| &values[start(values)..][..self.width])
    }
}

struct NormRows<'t, 'a, O> {
    norm: &'t RowNorm<'a>,
    first: usize,
    out: &'t mut [O],
}

impl<O: Number> Work for NormRows<'_, '_, O> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { norm, first, out } = self;
        let width = norm.width;
        for (number, out) in out.chunks_exact_mut(width).enumerate() {
            let row = &norm.rows[(first + number) * width..][..width];
            let image = (first + number) / norm.rows_per_image;
            let mean = if norm.centers { total::<L>(row) / width as f32 } else { 0.0 };
            let variance = squares::<L>(row, mean) / width as f32;
            let inverse = L::all(1.0 / (variance + norm.epsilon).sqrt());
            let mean = L::all(mean);
            let (scale, shift) = (norm.of_image(norm.scale, image), norm.of_image(norm.shift, image));
            for at in (0..width).step_by(LANES) {
                let part = at..width.min(at + LANES);
                let mut made = L::read(&row[part.clone()]).minus(mean).times(inverse);
                if let Some(scale) = scale {
                    made = made.times(L::read(&scale[part.clone()]));
                }
                if let Some(shift) = shift {
                    made = made.plus(L::read(&shift[part.clone()]));
                }
                made.write(&mut out[part]);
            }
        }
    }
}

/// The sum of a row.
#[inline(always)]
fn total<L: Lane>(row: &[f32]) -> f32 {
    let mut sum = L::zero();
    for part in row.chunks(LANES) {
        sum = sum.plus(L::read(part));
    }
    sum.values().iter().sum()
}

/// The sum of the squared differences of a row from a number.
#[inline(always)]
pub fn squares<L: Lane>(row: &[f32], from: f32) -> f32 {
    let (whole, rest) = row.as_chunks::<LANES>();
    let (mut sum, wide) = (L::zero(), L::all(from));
    for part in whole {
        let difference = L::read(part).minus(wide);
        sum = sum.plus_times(difference, difference);
    }
    let mut of_rest = 0.0;
    for x in rest {
        of_rest += (x - from) * (x - from);
    }
    sum.values().iter().sum::<f32>() + of_rest
}
