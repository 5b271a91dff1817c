//! Attention without the matrix of scores: keys are taken some hundreds at a time, and what was summed before is scaled
//! when a larger score appears (Dao et al. 2022, arXiv 2205.14135).
//!
//! Scores are computed transposed, keys as rows and queries as columns. So a query's maximum and sum are column by column,
//! and the weights of two keys pack into a panel for the product with the values without any shuffling.

use super::instruction_set::{InstructionSet, Work, vectorized};
use super::number::Number;
use super::softmax::{self, AttentionElement, Scores, Softmax};
use super::threads::{Parts, Threads};
use super::tile::{Accumulator, Block, TileUnit};
use super::tile_size::{COLUMNS, GROUP_ROWS, ROWS};

/// Bytes of scores, and of weights in float32, that are made at a time: those of some keys to 32 queries. They stay in the
/// first cache.
const SCORES_BYTES: usize = 32 << 10;
const KEYS: usize = SCORES_BYTES / COLUMNS / size_of::<f32>();

/// A matrix `[batch, rows, heads * width]` within a larger one.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a, E> {
    /// The values, from the first one of the first head on.
    pub values: &'a [E],
    /// ProductRows of a batch entry.
    pub rows: usize,
    /// The distance of two rows, `heads * width` or more.
    pub stride: usize,
}

impl<E: AttentionElement> Heads<'_, E> {
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

/// The lengths of a head's operands, padded.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Width of the rows of keys.
    key_width: usize,
    /// ProductRows of keys.
    keys: usize,
    /// Width of the rows of transposed values.
    value_width: usize,
    /// ProductRows of transposed values.
    values: usize,
}

impl<E: AttentionElement> Attention<'_, E> {
    fn sizes(&self) -> Sizes {
        Sizes {
            key_width: self.width.next_multiple_of(E::STEP),
            keys: self.keys.rows.next_multiple_of(GROUP_ROWS),
            value_width: self.keys.rows.next_multiple_of(E::STEP),
            values: self.width.next_multiple_of(GROUP_ROWS),
        }
    }

    /// Computes it into `out`, `[batch, queries, heads * width]`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        let sizes = self.sizes();
        assert_eq!(out.len(), self.batch * self.queries.rows * self.heads * self.width);
        assert_eq!(self.keys.rows, self.values.rows);
        let heads = self.batch * self.heads;
        let (key_len, value_len) = (sizes.keys * sizes.key_width, sizes.values * sizes.value_width);
        let mut keys = vec![E::default(); heads * key_len];
        let mut values = vec![E::default(); heads * value_len];
        let (all_keys, all_values) = (Parts::new(&mut keys), Parts::new(&mut values));
        threads.each(heads, &|head| {
            // SAFETY: each head has its own parts.
            let (keys, values) =
                unsafe { (all_keys.range(head * key_len, key_len), all_values.range(head * value_len, value_len)) };
            vectorized(set, Gather { attention: self, head, keys, values });
        });
        let blocks = self.queries.rows.div_ceil(COLUMNS);
        let out = Parts::new(out);
        threads.each(heads * blocks, &|task| {
            let (head, block) = (task / blocks, task % blocks);
            let keys = &keys[head * key_len..][..key_len];
            let values = &values[head * value_len..][..value_len];
            vectorized(set, Task { attention: self, set, head, block, keys, values, out: &out });
        });
    }
}

/// Brings a head's keys and values together: keys in padded rows, values transposed.
struct Gather<'t, 'a, E> {
    attention: &'t Attention<'a, E>,
    head: usize,
    keys: &'t mut [E],
    values: &'t mut [E],
}

impl<E: AttentionElement> Work for Gather<'_, '_, E> {
    #[inline(always)]
    fn run(self) {
        let Self { attention, head, keys, values } = self;
        let (sizes, width) = (attention.sizes(), attention.width);
        let (batch, head) = (head / attention.heads, head % attention.heads);
        for row in 0..attention.keys.rows {
            let to = &mut keys[row * sizes.key_width..][..width];
            to.copy_from_slice(attention.keys.row(batch, row, head, width));
        }
        // A few rows at a time, so that what is written is in the first cache.
        const AT_ONCE: usize = 32;
        for first in (0..attention.values.rows).step_by(AT_ONCE) {
            let count = AT_ONCE.min(attention.values.rows - first);
            let mut rows: [&[E]; AT_ONCE] = [&[]; AT_ONCE];
            for (number, row) in rows[..count].iter_mut().enumerate() {
                *row = attention.values.row(batch, first + number, head, width);
            }
            for at in 0..width {
                let to = &mut values[at * sizes.value_width + first..][..count];
                for (to, row) in to.iter_mut().zip(&rows) {
                    *to = row[at];
                }
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
    out: &'t Parts<'t, O>,
}

impl<E: AttentionElement, O: Number> Work for Task<'_, '_, E, O> {
    #[inline(always)]
    fn run(self) {
        let Self { attention, set, head, block, keys, values, out } = self;
        let (sizes, width) = (attention.sizes(), attention.width);
        let (batch, head) = (head / attention.heads, head % attention.heads);
        let first = block * COLUMNS;
        let count = COLUMNS.min(attention.queries.rows - first);
        let mut queries = vec![E::default(); sizes.key_width * COLUMNS];
        for query in 0..count {
            let row = attention.queries.row(batch, first + query, head, width);
            for (at, value) in row.iter().enumerate() {
                queries[(at / E::GROUP * COLUMNS + query) * E::GROUP + at % E::GROUP] = *value;
            }
        }

        let mut tiles = TileUnit::new::<E>(set);
        let mut state = Softmax::new();
        let scale = attention.scale * std::f32::consts::LOG2_E;
        let mut sums = vec![Accumulator::new(); sizes.values.div_ceil(ROWS)];
        let mut scores = vec![Accumulator::new(); KEYS.min(sizes.keys).div_ceil(ROWS)];
        let mut weights = vec![E::default(); KEYS.min(sizes.value_width) * COLUMNS];
        for from in (0..attention.keys.rows).step_by(KEYS) {
            let here = KEYS.min(attention.keys.rows - from);
            for (number, scores) in scores[..here.div_ceil(ROWS)].iter_mut().enumerate() {
                let at = from + number * ROWS;
                let groups = [at, at + GROUP_ROWS].map(|row| attention.keys.rows.saturating_sub(row).min(GROUP_ROWS));
                let block = Block {
                    left: keys,
                    starts: [at, at + GROUP_ROWS].map(|row| row.min(sizes.keys) * sizes.key_width),
                    rows: groups,
                    stride: sizes.key_width,
                    taps: &[0],
                    depth: sizes.key_width,
                    panel: &queries,
                };
                E::multiply(&mut tiles, &block, false, scores);
            }
            let depth = here.next_multiple_of(E::STEP);
            let seen = Scores { blocks: &scores, count: here, scale };
            let rescale = softmax::weights(set, &mut state, &seen, &mut weights[..depth * COLUMNS]);
            for (number, sums) in sums.iter_mut().enumerate() {
                if let Some(rescale) = rescale.filter(|_| from > 0) {
                    sums.rescale(&rescale);
                }
                let at = number * ROWS;
                let block = Block {
                    left: values,
                    starts: [at, at + GROUP_ROWS].map(|row| row.min(sizes.values) * sizes.value_width + from),
                    rows: [at, at + GROUP_ROWS].map(|row| width.saturating_sub(row).min(GROUP_ROWS)),
                    stride: sizes.value_width,
                    taps: &[0],
                    depth,
                    panel: &weights,
                };
                E::multiply(&mut tiles, &block, from > 0, sums);
            }
        }
        for query in 0..count {
            let inverse = 1.0 / state.total(query);
            let start = ((batch * attention.queries.rows + first + query) * attention.heads + head) * width;
            // SAFETY: these queries of this head are this task's.
            let out = unsafe { out.range(start, width) };
            for (at, out) in out.iter_mut().enumerate() {
                *out = O::from_f32(sums[at / ROWS].0[at % ROWS][query] * inverse);
            }
        }
    }
}
