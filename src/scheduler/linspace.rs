//! Evenly spaced numbers, as numpy and torch compute them.

use crate::rng::fused;

/// Computes `numpy.linspace` in double precision.
pub(super) fn linspace(start: f64, end: f64, n: usize) -> Vec<f64> {
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f64;
    (0..n).map(|i| if i + 1 == n { end } else { i as f64 * step + start }).collect()
}

/// `torch.linspace` in float32, which fills from both ends and fuses multiplication and addition.
pub(super) fn linspace_f32(start: f32, end: f32, n: usize) -> Vec<f32> {
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f32;
    (0..n)
        .map(|i| if i < n / 2 { fused(step, i as f32, start) } else { fused(-step, (n - i - 1) as f32, end) })
        .collect()
}
