//! Some queries of a head.

use super::operands::{Attention, HeadSizes, KEYS, larger_or_nan, square};
use crate::kernels::instruction_set::{InstructionSet, Work};
use crate::kernels::lane::{HALVES, Lane};
use crate::kernels::number::Number;
use crate::kernels::softmax::Softmax;
use crate::kernels::threads::Parts;
use crate::kernels::tile::{Accumulator, Block, Element, TileUnit};
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS, LANES, ROWS};

/// The largest bound of scores, as exponents of two and with the logarithm of the number of keys, for which nothing is subtracted
/// from them: sums of weights times values up to 2^37 stay finite, and products of values from 2^-36 on are not flushed to zero.
const NEAREST: f32 = 90.0;

/// Queries of a task: two panels, so that keys and values are read from the second cache once for both.
pub const QUERIES: usize = 2 * COLUMNS;
/// Blocks of keys whose scores are kept.
const SCORES: usize = KEYS / ROWS;

/// The accumulators of a task, of heads of some width.
pub fn accumulators(width: usize) -> usize {
    2 * (SCORES + width.div_ceil(ROWS))
}

/// The attention of some queries of a head.
pub struct Queries<'t, 'a, E, O> {
    /// The attention.
    pub attention: &'t Attention<'a, E>,
    /// The instructions.
    pub set: InstructionSet,
    /// The head, of all batch entries.
    pub head: usize,
    /// The first of up to [`QUERIES`] queries.
    pub first: usize,
    /// The keys of the head.
    pub keys: &'t [E],
    /// The values.
    pub values: &'t [E],
    /// The largest square of a key's norm.
    pub norm: f32,
    /// Room for panels of the queries and of weights.
    pub panels: &'t mut [E],
    /// Room for [`accumulators`].
    pub sums: &'t mut [Accumulator],
    /// The whole result.
    pub out: &'t Parts<'t, O>,
}

/// The memory and tiles in which a task computes the weights of some keys.
struct Weighing<'w, L, E, const PANELS: usize> {
    tiles: TileUnit,
    softmax: [Softmax<L>; PANELS],
    queries: [&'w [E]; PANELS],
    /// The scores of blocks of keys.
    scores: &'w mut [[Accumulator; PANELS]],
    weights: [&'w mut [E]; PANELS],
    /// True if all scores are near 0.
    is_near: bool,
}

impl<E: Element, O: Number> Work for Queries<'_, '_, E, O> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        if self.attention.queries.rows - self.first > COLUMNS {
            self.attend::<L, 2>();
        } else {
            self.attend::<L, 1>();
        }
    }
}

/// The queries of a task, and their keys and values.
impl<E: Element, O: Number> Queries<'_, '_, E, O> {
    /// Computes the attention of `PANELS` panels of queries.
    #[inline(always)]
    fn attend<L: Lane, const PANELS: usize>(mut self) {
        let HeadSizes { key_width, .. } = self.attention.sizes(self.set);
        let (queries, weights) = std::mem::take(&mut self.panels).split_at_mut(key_width * COLUMNS * PANELS);
        let (sums, _) = std::mem::take(&mut self.sums).as_chunks_mut::<PANELS>();
        let (scores, sums) = sums.split_at_mut(SCORES);
        let sums = &mut sums[..self.attention.width.div_ceil(ROWS)];
        let mut is_near = self.attention.mask.is_none();
        for (panel, queries) in queries.chunks_exact_mut(key_width * COLUMNS).enumerate() {
            is_near &= self.pack_queries::<L>(panel, queries);
        }
        let mut weights = weights.chunks_exact_mut(KEYS * COLUMNS);
        let mut weighing = Weighing {
            tiles: TileUnit::new::<E>(self.set),
            softmax: [Softmax::<L>::new(self.scale()); PANELS],
            queries: std::array::from_fn(|panel| &queries[panel * key_width * COLUMNS..][..key_width * COLUMNS]),
            scores,
            weights: std::array::from_fn(|_| weights.next().expect("room for all panels")),
            is_near,
        };
        for from in (0..self.attention.keys.rows).step_by(KEYS) {
            let count = KEYS.min(self.attention.keys.rows - from);
            let rescale = self.weigh(&mut weighing, from, count);
            for (panel, rescale) in rescale.iter().enumerate() {
                if let Some(rescale) = rescale {
                    sums.iter_mut().for_each(|sums| sums[panel].rescale(rescale));
                }
            }
            self.sum(&mut weighing, (from, count), sums);
        }
        for (panel, softmax) in weighing.softmax.iter().enumerate() {
            self.write(panel, softmax, sums);
        }
    }

    /// The factor of scores whose powers of two are the weights.
    #[inline(always)]
    fn scale(&self) -> f32 {
        self.attention.scale * std::f32::consts::LOG2_E
    }

    /// The number of a panel's first query, and how many there are.
    #[inline(always)]
    fn queries(&self, panel: usize) -> (usize, usize) {
        let first = self.first + panel * COLUMNS;
        (first, COLUMNS.min(self.attention.queries.rows - first))
    }

    #[inline(always)]
    fn batch_and_head(&self) -> (usize, usize) {
        (self.head / self.attention.heads, self.head % self.attention.heads)
    }

    /// Writes the queries of a panel, and returns true if all their scores are near 0.
    #[inline(always)]
    fn pack_queries<L: Lane>(&self, panel: usize, to: &mut [E]) -> bool {
        let ((first, count), (batch, head)) = (self.queries(panel), self.batch_and_head());
        let width = self.attention.width;
        let whole = width / E::GROUP * E::GROUP;
        to[if count < COLUMNS { 0 } else { whole * COLUMNS }..].fill(E::default());
        let mut norm = 0.0;
        for query in 0..count {
            let row = self.attention.queries.row(batch, first + query, head, width);
            for (group, values) in to.chunks_exact_mut(E::GROUP * COLUMNS).zip(row.chunks_exact(E::GROUP)) {
                for (to, value) in group[query * E::GROUP..][..E::GROUP].iter_mut().zip(values) {
                    *to = *value;
                }
            }
            for (at, value) in row[whole..].iter().enumerate() {
                to[whole * COLUMNS + query * E::GROUP + at] = *value;
            }
            norm = larger_or_nan(norm, square::<L, E>(row));
        }
        let bound = norm.sqrt() * self.norm.sqrt() * self.scale().abs();
        bound + (self.attention.keys.rows as f32).log2() <= NEAREST
    }

    /// Masks the scores of some keys.
    #[inline(always)]
    fn mask<L: Lane>(&self, scores: &mut [Accumulator], from: usize, count: usize) {
        let Some(mask) = &self.attention.mask else { return };
        // Larger ones would leave the difference of two scores no digits.
        const LEAST: f32 = -65536.0 * std::f32::consts::LN_2;
        let (batch, head) = self.batch_and_head();
        let numbers = &mask.row(batch, head, self.attention.keys.rows)[from..from + count];
        for scores in scores {
            scores.add_to_rows::<L>(
                numbers.iter().map(|&number| if number < LEAST { LEAST } else { number } / self.attention.scale),
            );
        }
    }

    /// Computes the weights of `count` keys, and returns the factors of what was summed before, if they are not 1.
    #[inline(always)]
    fn weigh<L: Lane, const PANELS: usize>(
        &self,
        weighing: &mut Weighing<'_, L, E, PANELS>,
        from: usize,
        count: usize,
    ) -> [Option<[L; HALVES]>; PANELS] {
        let Weighing { tiles, softmax, queries, scores, weights, is_near } = weighing;
        let key_width = self.attention.sizes(self.set).key_width;
        let blocks = count.div_ceil(ROWS);
        let keys_of = |number: usize| ROWS.min(count - number * ROWS);
        let rows = count.next_multiple_of(E::step(self.set));
        let part = |number: usize| number * ROWS * COLUMNS..((number + 1) * ROWS).min(rows) * COLUMNS;
        // The scores of one panel are computed while the other's are weighed, if they take no less time together.
        let at_once = if TileUnit::has_pairs::<E>(self.set, key_width * COLUMNS) { PANELS } else { 1 };
        // Two blocks alternate where one is weighed while the next is multiplied.
        let place = |number: usize| if *is_near { number % 2 } else { number };
        for number in 0..blocks {
            let (first, keys) = (from + number * ROWS, keys_of(number));
            let block = Block {
                left: self.keys,
                starts: [first * key_width, if keys > GROUP_ROWS { (first + GROUP_ROWS) * key_width } else { 0 }],
                rows: [keys.min(GROUP_ROWS), keys.saturating_sub(GROUP_ROWS)],
                stride: key_width,
                taps: &[0],
                depth: key_width,
                panels: &[],
                ahead: &[],
            };
            for first in (0..PANELS).step_by(at_once) {
                let block = Block { panels: &queries[first..first + at_once], ..block };
                E::multiply(tiles, &block, false, &mut scores[place(number)].each_mut()[first..first + at_once]);
                self.mask::<L>(&mut scores[place(number)][first..first + at_once], from + number * ROWS, keys);
                for panel in first..first + at_once {
                    if *is_near && number > 0 {
                        let scores = &scores[place(number - 1)][panel];
                        softmax[panel].weigh::<E, true>(scores, ROWS, &mut weights[panel][part(number - 1)]);
                    }
                }
            }
        }
        let mut rescale = [None; PANELS];
        for (panel, (softmax, weights)) in softmax.iter_mut().zip(weights).enumerate() {
            let last = blocks - 1;
            if *is_near {
                softmax.weigh::<E, true>(&scores[place(last)][panel], keys_of(last), &mut weights[part(last)]);
                continue;
            }
            rescale[panel] = softmax.raise::<E>(scores[..blocks].iter().map(|scores| &scores[panel]), count);
            for (number, scores) in scores[..blocks].iter().enumerate() {
                softmax.weigh::<E, false>(&scores[panel], keys_of(number), &mut weights[part(number)]);
            }
        }
        rescale
    }

    /// Adds the weighted values of `count` keys.
    #[inline(always)]
    fn sum<L, const PANELS: usize>(
        &self,
        weighing: &mut Weighing<'_, L, E, PANELS>,
        (from, count): (usize, usize),
        sums: &mut [[Accumulator; PANELS]],
    ) {
        let (HeadSizes { value_rows, piece, .. }, width) = (self.attention.sizes(self.set), self.attention.width);
        let depth = count.next_multiple_of(E::step(self.set));
        let mut taps = [0; KEYS];
        let pieces = depth.div_ceil(piece);
        taps[..pieces].iter_mut().enumerate().for_each(|(number, tap)| *tap = number * value_rows * piece);
        let weights = weighing.weights.each_ref().map(|weights| &**weights);
        for (number, sums) in sums.iter_mut().enumerate() {
            let first = number * ROWS;
            let start = (from / piece * value_rows + first) * piece;
            let rows = width - first;
            let block = Block {
                left: self.values,
                starts: [start, if rows > GROUP_ROWS { start + GROUP_ROWS * piece } else { 0 }],
                rows: [rows.min(GROUP_ROWS), rows.saturating_sub(GROUP_ROWS).min(GROUP_ROWS)],
                stride: piece,
                taps: &taps[..pieces],
                depth: piece.min(depth),
                panels: &weights,
                ahead: &[],
            };
            E::multiply(&mut weighing.tiles, &block, from > 0, &mut sums.each_mut());
        }
    }

    /// Writes the weighted means of the values.
    #[inline(always)]
    fn write<L: Lane, const PANELS: usize>(&self, panel: usize, softmax: &Softmax<L>, sums: &[[Accumulator; PANELS]]) {
        let ((first, count), (batch, head)) = (self.queries(panel), self.batch_and_head());
        let Attention { queries, heads, width, .. } = *self.attention;
        let totals = softmax.totals().map(L::values);
        for (number, sums) in sums.iter().flat_map(|sums| sums[panel].0.as_chunks::<LANES>().0).enumerate() {
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
