//! Weights from scores, with the best instructions.

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::scores::{Scores, Softmax};
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::lane::{HALVES, Lane};
use crate::kernels::tile::Element;
use crate::kernels::tile_size::{COLUMNS, ROWS};

/// A type of numbers that there is attention for.
pub trait AttentionElement: Element {
    /// Computes weights from scores and the largest of them. `weights` has room for one of each score.
    fn weigh(set: InstructionSet, softmax: &mut Softmax, scores: &Scores<'_>, weights: &mut [Self]);
}

impl AttentionElement for f32 {
    #[inline(always)]
    fn weigh(set: InstructionSet, softmax: &mut Softmax, scores: &Scores<'_>, weights: &mut [Self]) {
        match Self::supported(set) {
            // SAFETY: the processor has the instructions, and `weights` checked the lengths.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => unsafe { avx512::float32(softmax, scores, weights) },
            _ => softmax.weigh(scores, weights),
        }
    }
}

impl AttentionElement for bf16 {
    #[inline(always)]
    fn weigh(set: InstructionSet, softmax: &mut Softmax, scores: &Scores<'_>, weights: &mut [Self]) {
        match set.has_bf16() {
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            true => unsafe { avx512::bfloat16(softmax, scores, weights) },
            _ => softmax.weigh(scores, weights),
        }
    }
}

/// Turns scores into weights, a panel that is padded with zeros, and returns the factors of what was summed before; `None` if
/// they are all 1.
///
/// # Panics
/// If there are fewer scores than their count, or less room for weights.
#[inline(always)]
pub fn weights<E: AttentionElement>(
    set: InstructionSet,
    softmax: &mut Softmax,
    scores: &Scores<'_>,
    weights: &mut [E],
) -> Option<[Lane; HALVES]> {
    assert!(scores.count <= scores.blocks.len() * ROWS && scores.count * COLUMNS <= weights.len());
    assert!(weights.len().is_multiple_of(E::GROUP * COLUMNS));
    let rescale = softmax.raise::<E>(scores);
    E::weigh(set, softmax, scores, weights);
    rescale
}
