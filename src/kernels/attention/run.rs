//! The computation: keys and values by head, then the queries.

use super::operands::{Attention, HeadSizes, KEYS, larger_or_nan, square};
use super::queries::{QUERIES, Queries, accumulators};
use crate::kernels::instruction_set::{InstructionSet, Work, vectorized};
use crate::kernels::lane::Lane;
use crate::kernels::number::Number;
use crate::kernels::scratch::with_scratch;
use crate::kernels::threads::{Parts, Threads};
use crate::kernels::tile::{Accumulator, Element};

impl<E: Element> Attention<'_, E> {
    /// Computes it into `out`, `[batch, queries, heads * width]`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        assert_eq!(out.len(), self.batch * self.queries.rows * self.heads * self.width);
        assert_eq!(self.keys.rows, self.values.rows);
        let HeadSizes { key_width, keys_len, values_len, .. } = self.sizes(set);
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
                    vectorized(set, Gather { attention: self, set, head, keys, values, norm: &mut norm[0] });
                });
                let blocks = self.queries.rows.div_ceil(QUERIES);
                let out = Parts::new(out);
                threads.each(heads * blocks, &|task| {
                    let (head, first) = (task / blocks, task % blocks * QUERIES);
                    let keys = &keys[head * keys_len..][..keys_len];
                    let values = &values[head * values_len..][..values_len];
                    with_scratch((key_width + KEYS) * QUERIES, |panels: &mut [E]| {
                        with_scratch(accumulators(self.width), |sums: &mut [Accumulator]| {
                            let (norm, out) = (norms[head], &out);
                            let queries =
                                Queries { attention: self, set, head, first, keys, values, norm, panels, sums, out };
                            vectorized(set, queries);
                        });
                    });
                });
            });
        });
    }
}

/// Brings a head's keys and values together.
struct Gather<'t, 'a, E> {
    attention: &'t Attention<'a, E>,
    set: InstructionSet,
    head: usize,
    keys: &'t mut [E],
    values: &'t mut [E],
    /// The largest square of a key's norm.
    norm: &'t mut f32,
}

impl<E: Element> Work for Gather<'_, '_, E> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { attention, set, head, keys, values, norm } = self;
        let (HeadSizes { key_width, value_rows, piece, .. }, width) = (attention.sizes(set), attention.width);
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
