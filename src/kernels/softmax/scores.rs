//! Scores, and what is known of those so far.

use crate::kernels::lane::{HALVES, Lane};
use crate::kernels::number::Number;
use crate::kernels::tile::Accumulator;
use crate::kernels::tile_size::{COLUMNS, LANES, ROWS};

/// The largest scores and the sums of weights of 32 queries.
#[derive(Debug, Clone, Copy)]
pub struct Softmax {
    /// The largest score so far, as a power of two.
    pub largest: [Lane; HALVES],
    /// The sum of the weights so far.
    pub total: [Lane; HALVES],
}

/// Scores of keys, by row, to 32 queries.
#[derive(Debug, Clone, Copy)]
pub struct Scores<'a> {
    /// Blocks of 32 keys.
    pub blocks: &'a [Accumulator],
    /// The number of keys.
    pub count: usize,
    /// The factor of the scores, which are powers of two then.
    pub scale: f32,
}

impl Scores<'_> {
    #[inline(always)]
    fn lane(&self, key: usize, half: usize) -> Lane {
        self.blocks[key / ROWS].lane(key % ROWS, half)
    }
}

impl Softmax {
    /// The weights of nothing.
    pub fn new() -> Self {
        Self { largest: [Lane::all(f32::NEG_INFINITY); HALVES], total: [Lane::ZERO; HALVES] }
    }

    /// The sum of a query's weights.
    #[inline(always)]
    pub fn total(&self, query: usize) -> f32 {
        self.total[query / LANES].0[query % LANES]
    }

    /// Takes scores into account, and returns the factors of what was summed before; `None` if they are all 1.
    #[inline(always)]
    pub fn raise<E: Number>(&mut self, scores: &Scores<'_>) -> Option<[Lane; HALVES]> {
        let mut largest = self.largest;
        for key in 0..scores.count {
            for (half, largest) in largest.iter_mut().enumerate() {
                *largest = largest.larger(&scores.lane(key, half).times(scores.scale));
            }
        }
        let mut rescale = [Lane::ZERO; HALVES];
        for half in 0..HALVES {
            rescale[half] = self.largest[half].minus(&largest[half]).power_of_two::<E>();
            self.total[half] = self.total[half].times_each(&rescale[half]);
        }
        let is_same = (0..HALVES).all(|half| self.largest[half].0 == largest[half].0);
        self.largest = largest;
        (!is_same).then_some(rescale)
    }

    /// Computes weights from scores and the largest of them.
    #[inline(always)]
    pub fn weigh<E: Number>(&mut self, scores: &Scores<'_>, weights: &mut [E]) {
        let Self { largest, mut total } = *self;
        for (number, group) in weights.chunks_exact_mut(E::GROUP * COLUMNS).enumerate() {
            let first = number * E::GROUP;
            for half in 0..HALVES {
                let mut made = [Lane::ZERO; 2];
                let count = E::GROUP.min(scores.count.saturating_sub(first));
                for (at, made) in made[..count].iter_mut().enumerate() {
                    let score = Lane::ZERO.minus(&largest[half]);
                    *made = score.plus_times(&scores.lane(first + at, half), scores.scale).power_of_two::<E>();
                    total[half] = total[half].plus(made);
                }
                E::write_group(&[made[0].0, made[1].0], &mut group[half * E::GROUP * LANES..][..E::GROUP * LANES]);
            }
        }
        self.total = total;
    }
}
