//! Attention without the matrix of scores: keys are taken some hundreds at a time, and what was summed before is scaled
//! when a larger score appears (Dao et al. 2022, arXiv 2205.14135).
//!
//! Scores are computed transposed, keys as rows and queries as columns. So a query's maximum and sum are column by column,
//! and the weights of two keys pack into a panel for the product with the values without any shuffling.
//!
//! A score is at most the product of the norms of its query and its key. Where that bound is small enough for float32's
//! exponents, no largest score is looked for, and the weights of 32 keys are made while the next scores are computed.

use super::instruction_set::{InstructionSet, Work, vectorized};
use super::lane::{HALVES, Lane};
use super::number::Number;
use super::scratch::with_scratch;
use super::softmax::Softmax;
use super::threads::{Parts, Threads};
use super::tile::{Accumulator, Block, Element, TileUnit};
use super::tile_size::{COLUMNS, GROUP_ROWS, LANES, ROWS};

/// Keys whose weights are made before they are multiplied with the values.
const KEYS: usize = 256;
/// The largest bound of scores, as exponents of two and with the logarithm of the number of keys, for which nothing is subtracted
/// from them: sums of weights times values up to 2^37 stay finite, and products of values from 2^-36 on are not flushed to zero.
const NEAREST: f32 = 90.0;

/// A matrix `[batch, rows, heads * width]` within a larger one.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a, E> {
    /// The values, from the first one of the first head on.
    pub values: &'a [E],
    /// The rows of a batch entry.
    pub rows: usize,
    /// The distance of two rows, `heads * width` or more.
    pub stride: usize,
}

impl<E: Element> Heads<'_, E> {
    /// Returns the row of a head.
    #[inline(always)]
    fn row(&self, batch: usize, row: usize, head: usize, width: usize) -> &[E] {
        &self.values[(batch * self.rows + row) * self.stride + head * width..][..width]
    }
}

/// Attention of `queries` to `keys`, and its weights times `values`.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a, E> {
    /// The queries.
    pub queries: Heads<'a, E>,
    /// The keys.
    pub keys: Heads<'a, E>,
    /// The values, one for each key.
    pub values: Heads<'a, E>,
    /// The batch size.
    pub batch: usize,
    /// The number of heads.
    pub heads: usize,
    /// The width of a head.
    pub width: usize,
    /// The factor of the scores.
    pub scale: f32,
}

/// A head's operands: keys in padded rows, and transposed values in pieces of some keys, `[pieces, rows, keys of a piece]`.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Width of the rows of keys.
    key_width: usize,
    /// Numbers of the keys.
    keys_len: usize,
    /// Rows of transposed values.
    value_rows: usize,
    /// Keys of a piece of the values. Tiles of AMX are contiguous then.
    piece: usize,
    /// Numbers of the values.
    values_len: usize,
}

impl<E: Element> Attention<'_, E> {
    fn sizes(&self) -> Sizes {
        let (key_width, rows) = (self.width.next_multiple_of(E::STEP), self.keys.rows);
        let piece = if E::STEP > 1 { E::STEP } else { KEYS };
        let value_rows = self.width.next_multiple_of(GROUP_ROWS);
        let keys_len = rows.next_multiple_of(GROUP_ROWS) * key_width;
        Sizes { key_width, keys_len, value_rows, piece, values_len: rows.next_multiple_of(piece) * value_rows }
    }

    /// Computes it into `out`, `[batch, queries, heads * width]`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        assert_eq!(out.len(), self.batch * self.queries.rows * self.heads * self.width);
        assert_eq!(self.keys.rows, self.values.rows);
        let Sizes { key_width, keys_len, values_len, .. } = self.sizes();
        let heads = self.batch * self.heads;
        let mut norms = vec![0.0f32; heads];
        with_scratch(heads * keys_len, |keys: &mut [E]| {
            with_scratch(heads * values_len, |values: &mut [E]| {
                let (all_keys, all_values) = (Parts::new(keys), Parts::new(values));
                let all_norms = Parts::new(&mut norms);
                threads.each(heads, &|head| {
                    // SAFETY: each head has its own parts.
                    let (keys, values, norm) = unsafe {
                        let keys = all_keys.range(head * keys_len, keys_len);
                        (keys, all_values.range(head * values_len, values_len), all_norms.range(head, 1))
                    };
                    vectorized(set, Gather { attention: self, head, keys, values, norm: &mut norm[0] });
                });
                let blocks = self.queries.rows.div_ceil(COLUMNS);
                let out = Parts::new(out);
                threads.each(heads * blocks, &|task| {
                    let (head, block) = (task / blocks, task % blocks);
                    let keys = &keys[head * keys_len..][..keys_len];
                    let values = &values[head * values_len..][..values_len];
                    with_scratch((key_width + KEYS) * COLUMNS, |panels: &mut [E]| {
                        let (norm, out) = (norms[head], &out);
                        vectorized(set, Task { attention: self, set, head, block, keys, values, norm, panels, out });
                    });
                });
            });
        });
    }
}

/// The square of a row's norm.
#[inline(always)]
fn square<L: Lane, E: Number>(row: &[E]) -> f32 {
    let mut squares = L::zero();
    for part in row.chunks(LANES) {
        let part = L::read(part);
        squares = squares.plus_times(part, part);
    }
    squares.values().iter().sum()
}

/// The larger of two numbers, or NaN if one of them is.
#[inline(always)]
fn larger_or_nan(one: f32, other: f32) -> f32 {
    if one.is_nan() || one > other { one } else { other }
}

/// Brings a head's keys and values together.
struct Gather<'t, 'a, E> {
    attention: &'t Attention<'a, E>,
    head: usize,
    keys: &'t mut [E],
    values: &'t mut [E],
    /// The largest square of a key's norm.
    norm: &'t mut f32,
}

impl<E: Element> Work for Gather<'_, '_, E> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { attention, head, keys, values, norm } = self;
        let (Sizes { key_width, value_rows, piece, .. }, width) = (attention.sizes(), attention.width);
        let (batch, head) = (head / attention.heads, head % attention.heads);
        for (number, to) in keys.chunks_exact_mut(key_width).take(attention.keys.rows).enumerate() {
            let row = attention.keys.row(batch, number, head, width);
            to[..width].copy_from_slice(row);
            to[width..].fill(E::default());
            *norm = larger_or_nan(*norm, square::<L, E>(row));
        }
        // A few rows at a time, so that what is written is in the first cache.
        const AT_ONCE: usize = 32;
        let rows = attention.values.rows;
        for first in (0..rows).step_by(AT_ONCE) {
            let count = AT_ONCE.min(rows - first);
            let mut from: [&[E]; AT_ONCE] = [&[]; AT_ONCE];
            for (number, row) in from[..count].iter_mut().enumerate() {
                *row = attention.values.row(batch, first + number, head, width);
            }
            for at in 0..width {
                let to = &mut values[(first / piece * value_rows + at) * piece + first % piece..][..AT_ONCE];
                for (to, row) in to.iter_mut().zip(&from[..count]) {
                    *to = row[at];
                }
                to[count..].fill(E::default());
            }
        }
    }
}

/// 32 queries of a head.
struct Task<'t, 'a, E, O> {
    attention: &'t Attention<'a, E>,
    set: InstructionSet,
    head: usize,
    block: usize,
    keys: &'t [E],
    values: &'t [E],
    /// The largest square of a key's norm.
    norm: f32,
    /// Room for panels of the queries and of weights.
    panels: &'t mut [E],
    out: &'t Parts<'t, O>,
}

impl<E: Element, O: Number> Work for Task<'_, '_, E, O> {
    #[inline(always)]
    fn run<L: Lane>(mut self) {
        let Sizes { key_width, value_rows, .. } = self.attention.sizes();
        let (queries, weights) = std::mem::take(&mut self.panels).split_at_mut(key_width * COLUMNS);
        let is_near = self.pack_queries::<L>(queries);
        let mut softmax = Softmax::<L>::new(self.scale());
        let mut sums = vec![Accumulator::new(); value_rows.div_ceil(ROWS)];
        // Scores of one block and the one before, or of all blocks whose largest score is looked for.
        let blocks = if is_near { 2 } else { KEYS.min(self.attention.keys.rows).div_ceil(ROWS) };
        let mut scores = vec![Accumulator::new(); blocks];
        let mut tiles = TileUnit::new::<E>(self.set);
        for from in (0..self.attention.keys.rows).step_by(KEYS) {
            let count = KEYS.min(self.attention.keys.rows - from);
            let weights = &mut weights[..count.next_multiple_of(E::STEP) * COLUMNS];
            let rescale = self.weigh(&mut tiles, (from, count, is_near), queries, &mut scores, &mut softmax, weights);
            if let Some(rescale) = rescale {
                for sums in &mut sums {
                    sums.rescale(&rescale);
                }
            }
            self.sum(&mut tiles, from, weights, &mut sums);
        }
        self.write(&softmax, &sums);
    }
}

/// The queries of a task, and their keys and values.
impl<E: Element, O: Number> Task<'_, '_, E, O> {
    /// The factor of scores whose powers of two are the weights.
    #[inline(always)]
    fn scale(&self) -> f32 {
        self.attention.scale * std::f32::consts::LOG2_E
    }

    /// The number of the first query, and how many there are.
    #[inline(always)]
    fn queries(&self) -> (usize, usize) {
        let first = self.block * COLUMNS;
        (first, COLUMNS.min(self.attention.queries.rows - first))
    }

    #[inline(always)]
    fn batch_and_head(&self) -> (usize, usize) {
        (self.head / self.attention.heads, self.head % self.attention.heads)
    }

    /// Writes the queries to a panel, and returns true if all their scores are near 0.
    #[inline(always)]
    fn pack_queries<L: Lane>(&self, panel: &mut [E]) -> bool {
        let ((first, count), (batch, head)) = (self.queries(), self.batch_and_head());
        let width = self.attention.width;
        let whole = width / E::GROUP * E::GROUP;
        panel[if count < COLUMNS { 0 } else { whole * COLUMNS }..].fill(E::default());
        let mut norm = 0.0;
        for query in 0..count {
            let row = self.attention.queries.row(batch, first + query, head, width);
            for (group, values) in panel.chunks_exact_mut(E::GROUP * COLUMNS).zip(row.chunks_exact(E::GROUP)) {
                for (to, value) in group[query * E::GROUP..][..E::GROUP].iter_mut().zip(values) {
                    *to = *value;
                }
            }
            for (at, value) in row[whole..].iter().enumerate() {
                panel[whole * COLUMNS + query * E::GROUP + at] = *value;
            }
            norm = larger_or_nan(norm, square::<L, E>(row));
        }
        let bound = norm.sqrt() * self.norm.sqrt() * self.scale().abs();
        bound + (self.attention.keys.rows as f32).log2() <= NEAREST
    }

    /// Computes the weights of `count` keys and returns the factors of what was summed before, if they are not 1.
    #[inline(always)]
    fn weigh<L: Lane>(
        &self,
        tiles: &mut TileUnit,
        (from, count, is_near): (usize, usize, bool),
        queries: &[E],
        scores: &mut [Accumulator],
        softmax: &mut Softmax<L>,
        weights: &mut [E],
    ) -> Option<[L; HALVES]> {
        let key_width = self.attention.sizes().key_width;
        let blocks = count.div_ceil(ROWS);
        let keys_of = |number: usize| ROWS.min(count - number * ROWS);
        let part =
            |number: usize| number * ROWS * COLUMNS..((number + 1) * ROWS).min(weights_rows::<E>(count)) * COLUMNS;
        for number in 0..blocks {
            let (first, keys) = (from + number * ROWS, keys_of(number));
            let block = Block {
                left: self.keys,
                starts: [first * key_width, if keys > GROUP_ROWS { (first + GROUP_ROWS) * key_width } else { 0 }],
                rows: [keys.min(GROUP_ROWS), keys.saturating_sub(GROUP_ROWS)],
                stride: key_width,
                taps: &[0],
                depth: key_width,
                panels: &[queries],
                ahead: &[],
            };
            let at = number % scores.len();
            E::multiply(tiles, &block, false, &mut [&mut scores[at]]);
            if is_near && number > 0 {
                softmax.weigh::<E, true>(&scores[1 - at], ROWS, &mut weights[part(number - 1)]);
            }
        }
        if is_near {
            softmax.weigh::<E, true>(
                &scores[(blocks - 1) % scores.len()],
                keys_of(blocks - 1),
                &mut weights[part(blocks - 1)],
            );
            return None;
        }
        let rescale = softmax.raise::<E>(scores, count);
        for number in 0..blocks {
            softmax.weigh::<E, false>(&scores[number], keys_of(number), &mut weights[part(number)]);
        }
        rescale
    }

    /// Adds the weighted values of the keys `from` on.
    #[inline(always)]
    fn sum(&self, tiles: &mut TileUnit, from: usize, weights: &[E], sums: &mut [Accumulator]) {
        let (Sizes { value_rows, piece, .. }, width) = (self.attention.sizes(), self.attention.width);
        let depth = weights.len() / COLUMNS;
        let mut taps = [0; KEYS];
        let pieces = depth.div_ceil(piece);
        taps[..pieces].iter_mut().enumerate().for_each(|(number, tap)| *tap = number * value_rows * piece);
        for (number, sums) in sums.iter_mut().enumerate() {
            let first = number * ROWS;
            let start = (from / piece * value_rows + first) * piece;
            let rows = width.saturating_sub(first);
            let block = Block {
                left: self.values,
                starts: [start, if rows > GROUP_ROWS { start + GROUP_ROWS * piece } else { 0 }],
                rows: [rows.min(GROUP_ROWS), rows.saturating_sub(GROUP_ROWS).min(GROUP_ROWS)],
                stride: piece,
                taps: &taps[..pieces],
                depth: piece.min(depth),
                panels: &[weights],
                ahead: &[],
            };
            E::multiply(tiles, &block, from > 0, &mut [sums]);
        }
    }

    /// Writes the weighted means of the values.
    #[inline(always)]
    fn write<L: Lane>(&self, softmax: &Softmax<L>, sums: &[Accumulator]) {
        let ((first, count), (batch, head)) = (self.queries(), self.batch_and_head());
        let Attention { queries, heads, width, .. } = *self.attention;
        let totals = softmax.totals().map(L::values);
        for (number, sums) in sums.iter().flat_map(|sums| sums.0.as_chunks::<LANES>().0).enumerate() {
            let at = number * LANES;
            if at >= width {
                break;
            }
            let mut by_query = [[0.0; LANES]; COLUMNS];
            for (row, sums) in sums.iter().enumerate() {
                for (values, sum) in by_query.iter_mut().zip(sums) {
                    values[row] = *sum;
                }
            }
            for (query, values) in by_query[..count].iter().enumerate() {
                let inverse = L::all(1.0 / totals[query / LANES][query % LANES]);
                let start = ((batch * queries.rows + first + query) * heads + head) * width + at;
                // SAFETY: these queries of this head are this task's.
                L::of(*values).times(inverse).write(unsafe { self.out.range(start, LANES.min(width - at)) });
            }
        }
    }
}

/// The rows of a panel that has the weights of `count` keys.
#[inline(always)]
fn weights_rows<E: Number>(count: usize) -> usize {
    count.next_multiple_of(E::STEP)
}
