//! Weights with AVX-512, where rounding to a whole number and scaling by a power of two are one instruction each.

use std::arch::x86_64::{
    __m512, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps,
    _mm512_fmsub_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps, _mm512_permutexvar_epi16,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_ps,
};
use std::mem::transmute;

use half::bf16;

use super::scores::{Scores, Softmax};
use crate::kernels::functions::{EXP2, EXP2_BF16};
use crate::kernels::lane::HALVES;
use crate::kernels::tile_size::{COLUMNS, LANES, ROWS};

/// The address of a key's scores.
///
/// # Safety
/// There are scores of that key.
#[inline(always)]
unsafe fn row(scores: &Scores<'_>, key: usize) -> *const f32 {
    // SAFETY: as above.
    unsafe { scores.blocks.as_ptr().add(key / ROWS).cast::<f32>().add(key % ROWS * COLUMNS) }
}

/// `2^(score · scale - largest)` by a polynomial whose highest factor is first. NaN stays NaN: it is the second operand of
/// the maximum.
///
/// # Safety
/// The processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn power_of_two(score: __m512, scale: __m512, largest: __m512, polynomial: &[f32]) -> __m512 {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    let x = _mm512_max_ps(_mm512_set1_ps(-126.0), _mm512_fmsub_ps(score, scale, largest));
    let whole = _mm512_roundscale_ps::<NEAREST>(x);
    let rest = _mm512_sub_ps(x, whole);
    let mut sum = _mm512_set1_ps(polynomial[0]);
    for factor in &polynomial[1..] {
        sum = _mm512_fmadd_ps(rest, sum, _mm512_set1_ps(*factor));
    }
    _mm512_scalef_ps(sum, whole)
}

/// # Safety
/// The processor has AVX-512 F, there are as many scores as their count, and `weights` has room for as many rows.
#[target_feature(enable = "avx512f")]
pub unsafe fn float32(softmax: &mut Softmax, scores: &Scores<'_>, weights: &mut [f32]) {
    // SAFETY: the scores and weights are there, as the caller promises.
    unsafe {
        let scale = _mm512_set1_ps(scores.scale);
        for half in 0..HALVES {
            let largest = _mm512_loadu_ps(softmax.largest[half].0.as_ptr());
            // Two sums, so that one is added to while the other one is.
            let mut totals = [_mm512_loadu_ps(softmax.total[half].0.as_ptr()), _mm512_setzero_ps()];
            let mut to = weights.as_mut_ptr().add(half * LANES);
            for key in 0..scores.count {
                let made = power_of_two(_mm512_loadu_ps(row(scores, key).add(half * LANES)), scale, largest, &EXP2);
                totals[key % 2] = _mm512_add_ps(totals[key % 2], made);
                _mm512_storeu_ps(to, made);
                to = to.add(COLUMNS);
            }
            _mm512_storeu_ps(softmax.total[half].0.as_mut_ptr(), _mm512_add_ps(totals[0], totals[1]));
        }
    }
    weights[scores.count * COLUMNS..].fill(0.0);
}

/// The places of two keys' weights side by side, of those of one key after those of the other.
const SIDE_BY_SIDE: [u16; 2 * LANES] = {
    let mut places = [0; 2 * LANES];
    let mut at = 0;
    while at < places.len() {
        places[at] = (at / 2 + at % 2 * LANES) as u16;
        at += 1;
    }
    places
};

/// # Safety
/// As [`float32`], and the processor has AVX-512 BW and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn bfloat16(softmax: &mut Softmax, scores: &Scores<'_>, weights: &mut [bf16]) {
    let pairs = scores.count.div_ceil(2);
    // SAFETY: the scores and weights are there, as the caller promises.
    unsafe {
        let scale = _mm512_set1_ps(scores.scale);
        let places = _mm512_loadu_si512(SIDE_BY_SIDE.as_ptr().cast());
        for half in 0..HALVES {
            let largest = _mm512_loadu_ps(softmax.largest[half].0.as_ptr());
            let mut totals = [_mm512_loadu_ps(softmax.total[half].0.as_ptr()), _mm512_setzero_ps()];
            let mut to = weights.as_mut_ptr().add(2 * half * LANES);
            for key in (0..2 * pairs).step_by(2) {
                let mut made = [_mm512_setzero_ps(); 2];
                for at in 0..2 {
                    if key + at < scores.count {
                        let score = _mm512_loadu_ps(row(scores, key + at).add(half * LANES));
                        made[at] = power_of_two(score, scale, largest, &EXP2_BF16);
                        totals[at] = _mm512_add_ps(totals[at], made[at]);
                    }
                }
                let packed: __m512i = transmute(_mm512_cvtne2ps_pbh(made[1], made[0]));
                _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(places, packed));
                to = to.add(2 * COLUMNS);
            }
            _mm512_storeu_ps(softmax.total[half].0.as_mut_ptr(), _mm512_add_ps(totals[0], totals[1]));
        }
    }
    weights[2 * pairs * COLUMNS..].fill(bf16::ZERO);
}
