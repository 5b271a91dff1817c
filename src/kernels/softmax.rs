//! The weights of keys in attention, some keys at a time.

use super::lane::{HALVES, Lane};
use super::number::Number;
use super::tile::Accumulator;
use super::tile_size::{COLUMNS, LANES, ROWS};

/// The largest scores and the sums of weights of 32 queries. Scores are scaled so that their powers of two are the weights.
#[derive(Debug, Clone, Copy)]
pub struct Softmax<L> {
    /// The factor of the scores.
    scale: L,
    /// The largest score so far, which is what is subtracted.
    largest: [L; HALVES],
    /// The sum of the weights so far.
    total: [L; HALVES],
}

impl<L: Lane> Softmax<L> {
    /// The weights of nothing, of scores that are multiplied by `scale`.
    #[inline(always)]
    pub fn new(scale: f32) -> Self {
        Self { scale: L::all(scale), largest: [L::all(f32::NEG_INFINITY); HALVES], total: [L::zero(); HALVES] }
    }

    /// The sums of the weights, by query.
    #[inline(always)]
    pub fn totals(&self) -> [L; HALVES] {
        self.total
    }

    /// Takes the scores of `count` keys into account, and returns the factors of what was summed before; `None` if they are
    /// all 1.
    #[inline(always)]
    pub fn raise<'s, E: Number>(
        &mut self,
        scores: impl Iterator<Item = &'s Accumulator>,
        count: usize,
    ) -> Option<[L; HALVES]> {
        let mut largest = self.largest;
        for (number, scores) in scores.enumerate() {
            for key in 0..ROWS.min(count - number * ROWS) {
                for (half, largest) in largest.iter_mut().enumerate() {
                    *largest = largest.larger(scores.lane::<L>(key, half).times(self.scale));
                }
            }
        }
        let mut rescale = [L::zero(); HALVES];
        let mut is_same = true;
        for half in 0..HALVES {
            rescale[half] = self.largest[half].power_of_two::<E>(L::all(1.0), largest[half]);
            self.total[half] = self.total[half].times(rescale[half]);
            is_same &= self.largest[half].values() == largest[half].values();
        }
        self.largest = largest;
        (!is_same).then_some(rescale)
    }

    /// Writes the weights of a block's first `count` keys to a part of a panel; what is beyond them becomes zeros.
    ///
    /// [`Softmax::raise`] has taken the scores into account, or they are `BOUNDED`: all between -126 and 126, so that nothing
    /// has to be subtracted.
    #[inline(always)]
    pub fn weigh<E: Number, const BOUNDED: bool>(&mut self, scores: &Accumulator, count: usize, weights: &mut [E]) {
        let mut total = self.total;
        for (number, group) in weights.chunks_exact_mut(E::GROUP * COLUMNS).enumerate() {
            let first = number * E::GROUP;
            for half in 0..HALVES {
                let mut made = [L::zero(); 2];
                for (at, made) in made[..E::GROUP].iter_mut().enumerate() {
                    if first + at < count {
                        let score: L = scores.lane(first + at, half);
                        *made = match BOUNDED {
                            true => score.bounded_power_of_two::<E>(self.scale),
                            false => score.power_of_two::<E>(self.scale, self.largest[half]),
                        };
                        total[half] = total[half].plus(*made);
                    }
                }
                L::write_group(made, &mut group[half * E::GROUP * LANES..][..E::GROUP * LANES]);
            }
        }
        self.total = total;
    }
}
