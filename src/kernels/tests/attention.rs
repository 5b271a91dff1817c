//! Attention.

use super::*;
use crate::kernels::scratch::with_scratch;

/// A mask of `[batch, heads, keys]`, whose first keys, and every third, are masked.
fn mask(batch: usize, heads: usize, keys: usize, least: f32) -> Vec<f32> {
    let is_masked = |key: usize| key + 1 < keys && (key < 300 || key.is_multiple_of(3));
    let of = |row: usize| (0..keys).map(move |key| if is_masked(key) { least } else { -0.5 * (row + key % 2) as f32 });
    (0..batch * heads).flat_map(of).collect()
}

fn attention<E: Element>(queries: usize, keys: usize, heads: usize, width: usize, scale: f64) {
    attention_with::<E>(queries, keys, heads, width, scale, None);
}

fn attention_with<E: Element>(
    queries: usize,
    keys: usize,
    heads: usize,
    width: usize,
    scale: f64,
    mask: Option<KeyMask<'_>>,
) {
    let batch = 2;
    let wide = heads * width;
    let of = |rows: usize, seed: u64| operands::<E>(batch * rows * wide, seed);
    let (q, k, v) = (of(queries, 1), of(keys, 2), of(keys, 3));
    let at = |values: &[E], rows: usize, n: usize, row: usize, at: usize| {
        f64::from(values[(n * rows + row) * wide + at].to_f32())
    };
    let mut wanted = vec![0.0; batch * queries * wide];
    for (n, row, head) in places(batch, queries, heads) {
        let score = |key: usize| {
            (0..width)
                .map(|c| at(&q, queries, n, row, head * width + c) * at(&k, keys, n, key, head * width + c))
                .sum::<f64>()
                * scale
                + mask.map_or(0.0, |mask| f64::from(mask.row(n, head, keys)[key]))
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let largest = scores.iter().fold(f64::MIN, |largest, score| largest.max(*score));
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for c in 0..width {
            let sum: f64 = weights.iter().enumerate().map(|(key, w)| w * at(&v, keys, n, key, head * width + c)).sum();
            wanted[(n * queries + row) * wide + head * width + c] = sum / total;
        }
    }
    let attention = Attention {
        queries: Heads { values: &q, rows: queries, stride: wide },
        keys: Heads { values: &k, rows: keys, stride: wide },
        values: Heads { values: &v, rows: keys, stride: wide },
        mask,
        batch,
        heads,
        width,
        scale: scale as f32,
    };
    // The weights of the values are rounded to the operands' type; float32's scores round in proportion to their size.
    let bound = if E::TYPE == OperandType::Bf16 { 6e-3 } else { 3e-6 * scale.max(1.0) };
    let what = format!("attention {queries}x{keys}, {heads}x{width}, {scale}");
    everywhere::<E>(&what, bound, &wanted, |set, threads, out| attention.run(set, threads, out));
}

#[test]
fn attentions() {
    for (queries, keys, heads, width) in
        [(1, 1, 1, 8), (5, 77, 2, 40), (40, 33, 3, 16), (33, 600, 1, 72), (16, 1030, 1, 32), (70, 300, 2, 40)]
    {
        // The second scale gives bounds of scores from which the largest one has to be subtracted.
        for scale in [0.3, 12.0] {
            attention::<f32>(queries, keys, heads, width, scale);
            attention::<bf16>(queries, keys, heads, width, scale);
        }
    }
}

#[test]
fn masked_attentions() {
    for (queries, keys, heads, width) in [(5, 77, 2, 40), (40, 600, 3, 16), (33, 1030, 1, 72)] {
        for (batches, all_heads) in [(2, heads), (2, 1), (1, 1)] {
            for least in [-10000.0, f32::MIN, f32::NEG_INFINITY] {
                let values = mask(batches, all_heads, keys, least);
                let mask = KeyMask { values: &values, batch: batches, heads: all_heads };
                attention_with::<f32>(queries, keys, heads, width, 0.3, Some(mask));
                attention_with::<bf16>(queries, keys, heads, width, 0.3, Some(mask));
            }
        }
    }
}

/// Scores that overflow the exponential function, and one that is much larger than those before it.
#[test]
fn attention_to_large_scores() {
    let (queries, keys) = (vec![100.0f32; 8], [vec![-1.0f32; 8 * 700], vec![1.0; 8]].concat());
    let values: Vec<f32> = (0..701 * 8).map(|at| (at / 8) as f32).collect();
    let heads = |values, rows| Heads { values, rows, stride: 8 };
    let attention = Attention {
        queries: heads(&queries[..], 1),
        keys: heads(&keys[..], 701),
        values: heads(&values[..], 701),
        mask: None,
        batch: 1,
        heads: 1,
        width: 8,
        scale: 1.0,
    };
    everywhere::<f32>("large scores", 1e-6, &[700.0; 8], |set, threads, out| attention.run(set, threads, out));
}

/// A query that is not a number gives no number, in either type.
#[test]
fn attention_keeps_nan() {
    fn outputs<E: Element>() -> Vec<Vec<f32>> {
        let (queries, others) = (vec![E::from_f32(f32::NAN); 8], operands::<E>(8 * 40, 1));
        let attention = Attention {
            queries: Heads { values: &queries, rows: 1, stride: 8 },
            keys: Heads { values: &others, rows: 40, stride: 8 },
            values: Heads { values: &others, rows: 40, stride: 8 },
            mask: None,
            batch: 1,
            heads: 1,
            width: 8,
            scale: 1.0,
        };
        let of = |set| {
            let mut out = vec![0.0f32; 8];
            attention.run(set, &OneThread, &mut out);
            out
        };
        sets().map(of).collect()
    }
    for out in outputs::<f32>().into_iter().chain(outputs::<bf16>()) {
        assert!(out.iter().all(|x| x.is_nan()), "{out:?}");
    }
}

/// Numbers that another operator left in the memory that it uses do not matter.
#[test]
fn attention_after_nan() {
    fn check<E: Element>() {
        with_scratch(1 << 16, |one: &mut [E]| {
            with_scratch(1 << 16, |other: &mut [E]| {
                with_scratch(1 << 16, |third: &mut [E]| {
                    for values in [one, other, third] {
                        values.fill(E::from_f32(f32::NAN));
                    }
                });
            });
        });
        attention::<E>(5, 77, 2, 40, 0.3);
    }
    check::<f32>();
    check::<bf16>();
}
