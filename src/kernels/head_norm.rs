//! Queries and keys on their way to attention: each head is normalized by its root mean square (RMS) and turned by rotary
//! position embeddings (Su et al. 2021, arXiv 2104.09864), and two sequences become one.

use super::instruction_set::{InstructionSet, Work, vectorized};
use super::lane::Lane;
use super::number::Number;
use super::rotary_pairs::RotaryPairs;
use super::row_norm::squares;
use super::scratch::with_scratch;
use super::threads::{Parts, Threads};
use super::tile_size::LANES;

/// Rotary position embedding: a pair `(x, y)` becomes `(x · cos - y · sin, y · cos + x · sin)`.
///
/// Cosines and sines are `[rows, width]` or `[batch, rows, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Rotary<'a> {
    /// The cosines.
    pub cosines: &'a [f32],
    /// The sines.
    pub sines: &'a [f32],
    /// The pairs.
    pub pairs: RotaryPairs,
    /// True if cosines and sines have half of the width: one number a pair.
    pub is_by_pair: bool,
}

/// Rows `[batch, rows, heads, width]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadRows<'a> {
    /// The numbers.
    pub values: &'a [f32],
    /// The rows of a batch entry.
    pub rows: usize,
    /// A factor for each number of a head.
    pub scale: Option<&'a [f32]>,
}

/// Normalization of each head of one sequence, or of two of which the second follows the first, and rotary embedding of the
/// whole.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm<'a> {
    /// The sequences. The second may be empty.
    pub sequences: [HeadRows<'a>; 2],
    /// The batch size.
    pub batch: usize,
    /// The number of heads.
    pub heads: usize,
    /// The width of a head.
    pub width: usize,
    /// Added to the mean of squares; `None` if heads are not normalized.
    pub epsilon: Option<f32>,
    /// The rotary embedding.
    pub rotary: Option<Rotary<'a>>,
}

impl HeadNorm<'_> {
    /// Computes it into `out`, `[batch, rows of both, heads * width]`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says, or the width is odd and there is a rotary embedding.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        const AT_ONCE: usize = 8;
        let row_len = self.heads * self.width;
        let rows = self.batch * self.rows();
        assert_eq!(out.len(), rows * row_len);
        assert!(self.rotary.is_none() || self.width.is_multiple_of(2));
        let out = Parts::new(out);
        threads.each(rows.div_ceil(AT_ONCE), &|task| {
            let first = task * AT_ONCE;
            let count = AT_ONCE.min(rows - first);
            // SAFETY: these rows are this task's.
            let out = unsafe { out.range(first * row_len, count * row_len) };
            with_scratch(3 * self.width, |factors: &mut [f32]| {
                vectorized(set, Rows { norm: self, first, out, factors });
            });
        });
    }

    /// The rows of a batch entry.
    fn rows(&self) -> usize {
        self.sequences[0].rows + self.sequences[1].rows
    }

    /// Writes the cosines of a row, and its sines with the signs that they have in the sums.
    #[inline(always)]
    fn rotary_of(&self, rotary: &Rotary<'_>, row: usize, cosines: &mut [f32], sines: &mut [f32]) {
        let width = self.width;
        let own = if rotary.is_by_pair { width / 2 } else { width };
        let row = if rotary.cosines.len() == self.rows() * own { row % self.rows() } else { row };
        let (from_cosines, from_sines) = (&rotary.cosines[row * own..][..own], &rotary.sines[row * own..][..own]);
        for at in 0..width {
            let (from, is_first) = match rotary.pairs {
                RotaryPairs::Adjacent => (at / 2, at % 2 == 0),
                RotaryPairs::Halves => (at % (width / 2), at < width / 2),
            };
            let from = if rotary.is_by_pair { from } else { at };
            cosines[at] = from_cosines[from];
            sines[at] = if is_first { -from_sines[from] } else { from_sines[from] };
        }
    }
}

/// Some rows of the result.
struct Rows<'t, 'a, O> {
    norm: &'t HeadNorm<'a>,
    first: usize,
    out: &'t mut [O],
    /// Room for the scale, the cosines and the sines of a row.
    factors: &'t mut [f32],
}

impl<O: Number> Work for Rows<'_, '_, O> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { norm, first, out, factors } = self;
        let (width, row_len) = (norm.width, norm.heads * norm.width);
        let (scale, rotary) = factors.split_at_mut(width);
        let (cosines, sines) = rotary.split_at_mut(width);
        for (number, out) in out.chunks_exact_mut(row_len).enumerate() {
            let (image, row) = ((first + number) / norm.rows(), (first + number) % norm.rows());
            let before = norm.sequences[0].rows;
            let (sequence, row_of_it) = if row < before { (0, row) } else { (1, row - before) };
            let HeadRows { values, rows, scale: given } = norm.sequences[sequence];
            let values = &values[(image * rows + row_of_it) * row_len..][..row_len];
            match given {
                Some(given) => scale.copy_from_slice(given),
                None => scale.fill(1.0),
            }
            if let Some(rotary) = &norm.rotary {
                norm.rotary_of(rotary, first + number, cosines, sines);
            }
            for (head, out) in values.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                let inverse = match norm.epsilon {
                    Some(epsilon) => 1.0 / (squares::<L>(head, 0.0) / width as f32 + epsilon).sqrt(),
                    None => 1.0,
                };
                match norm.rotary.map(|rotary| rotary.pairs) {
                    None => write_plain::<L, O>(head, inverse, scale, out),
                    Some(RotaryPairs::Adjacent) => write_adjacent::<L, O>(head, inverse, scale, cosines, sines, out),
                    Some(RotaryPairs::Halves) => write_halves::<L, O>(head, inverse, scale, cosines, sines, out),
                }
            }
        }
    }
}

/// Up to 16 normalized numbers of a head.
#[inline(always)]
fn normalized<L: Lane>(head: &[f32], inverse: f32, scale: &[f32]) -> L {
    L::read(head).times(L::all(inverse)).times(L::read(scale))
}

#[inline(always)]
fn write_plain<L: Lane, O: Number>(head: &[f32], inverse: f32, scale: &[f32], out: &mut [O]) {
    for ((head, scale), out) in head.chunks(LANES).zip(scale.chunks(LANES)).zip(out.chunks_mut(LANES)) {
        normalized::<L>(head, inverse, scale).write(out);
    }
}

#[inline(always)]
fn write_adjacent<L: Lane, O: Number>(
    head: &[f32],
    inverse: f32,
    scale: &[f32],
    cosines: &[f32],
    sines: &[f32],
    out: &mut [O],
) {
    for at in (0..head.len()).step_by(LANES) {
        let part = at..head.len().min(at + LANES);
        let own = normalized::<L>(&head[part.clone()], inverse, &scale[part.clone()]);
        let turned = own.times(L::read(&cosines[part.clone()]));
        turned.plus_times(own.pairs_swapped(), L::read(&sines[part.clone()])).write(&mut out[part]);
    }
}

#[inline(always)]
fn write_halves<L: Lane, O: Number>(
    head: &[f32],
    inverse: f32,
    scale: &[f32],
    cosines: &[f32],
    sines: &[f32],
    out: &mut [O],
) {
    let half = head.len() / 2;
    for at in (0..half).step_by(LANES) {
        let of_first = at..half.min(at + LANES);
        let of_second = of_first.start + half..of_first.end + half;
        let first = normalized::<L>(&head[of_first.clone()], inverse, &scale[of_first.clone()]);
        let second = normalized::<L>(&head[of_second.clone()], inverse, &scale[of_second.clone()]);
        for (part, own, other) in [(of_first, first, second), (of_second, second, first)] {
            let turned = own.times(L::read(&cosines[part.clone()]));
            turned.plus_times(other, L::read(&sines[part.clone()])).write(&mut out[part]);
        }
    }
}
