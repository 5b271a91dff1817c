//! Spectrum: Han et al. 2026, "Adaptive Spectral Feature Forecasting for Diffusion Sampling Acceleration", arXiv
//! 2603.01623.
//!
//! Each value of the prediction is modeled as a function of time, a sum of Chebyshev polynomials whose coefficients are
//! fitted to the computed predictions by ridge regression. Skipped steps evaluate the fit and mix it with the line
//! through the last two computed predictions. The computed steps are fixed: the first `warmup`, then the last of every
//! `window`, which grows by `flex` each time, and all after the fraction `stop` of the run.
//!
//! Fit, mixture and windows are the authors' (github.com/hanjq17/Spectrum). They forecast the features before the last
//! layer; outside the graph only its output is available. Their code assumes a run of 50 steps; here time is relative
//! to the length of the run. `stop` is stable-diffusion.cpp's.

use super::{CacheMethod, CacheMethodEntry, CacheParameter, EvaluationPosition, StepCache};
use crate::denoise::RunInterval;

pub(super) const ENTRY: CacheMethodEntry = CacheMethodEntry {
    name: "spectrum",
    about: "Forecasts predictions by Chebyshev polynomials in time, fitted to the computed ones (arXiv 2603.01623).",
    depends_on_image: false,
    runs_shallow_layers: false,
    keys: &[
        CacheParameter::number("w", 0.5, 0.0, 1.0),
        CacheParameter::integer("m", 4, 1, 16),
        CacheParameter::number("lam", 0.1, 1e-6, 1e6),
        CacheParameter::integer("window", 2, 1, 1000),
        CacheParameter::number("flex", 0.75, 0.0, 1000.0),
        CacheParameter::integer("warmup", 5, 2, 1000),
        CacheParameter::number("stop", 0.9, 0.0, 1.0),
    ],
    build,
};

/// The maximum number of stored predictions per evaluation of a step: the authors' `K`.
const MAX_STORED: usize = 100;

#[derive(Debug)]
struct Spectrum {
    /// The weight of the Chebyshev fit in the mixture.
    fit_weight: f64,
    degree: usize,
    ridge: f64,
    range: RunInterval,
    warmup: usize,
    window: f64,
    flex: f64,
    skipped_in_a_row: usize,
    /// The computed predictions, for each evaluation of a step.
    computed: Vec<Vec<StepPrediction>>,
}

#[derive(Debug)]
struct StepPrediction {
    step: usize,
    prediction: Vec<f32>,
}

fn build(cache: &StepCache) -> Box<dyn CacheMethod> {
    Box::new(Spectrum {
        fit_weight: cache.number("w"),
        degree: cache.integer("m"),
        ridge: cache.number("lam"),
        range: RunInterval { start: 0.0, end: cache.number("stop") },
        warmup: cache.integer("warmup"),
        window: cache.integer("window") as f64,
        flex: cache.number("flex"),
        skipped_in_a_row: 0,
        computed: Vec::new(),
    })
}

impl CacheMethod for Spectrum {
    fn should_skip(&mut self, at: EvaluationPosition, _sample: &[f32]) -> bool {
        let is_known = self.computed.first().is_some_and(|computed| computed.len() >= 2);
        if at.step < self.warmup || !self.range.holds_part(at.step, at.steps) || !is_known {
            self.skipped_in_a_row = 0;
            return false;
        }
        if (self.skipped_in_a_row + 1) as f64 % self.window.floor() == 0.0 {
            self.window += self.flex;
            self.skipped_in_a_row = 0;
            return false;
        }
        self.skipped_in_a_row += 1;
        true
    }

    fn forecast(&self, at: EvaluationPosition, _sample: &[f32], prediction: &mut [f32]) -> bool {
        let Some([.., before, last]) = self.computed.get(at.evaluation).map(Vec::as_slice) else { return false };
        let computed = self.computed.get(at.evaluation).map(Vec::as_slice).unwrap_or_default();
        let time = |step: usize| 2.0 * step as f64 / at.steps.max(1) as f64 - 1.0;
        let times: Vec<f64> = computed.iter().map(|computed| time(computed.step)).collect();
        let mut weights = fit_weights(&times, time(at.step), self.degree, self.ridge);
        weights.iter_mut().for_each(|weight| *weight *= self.fit_weight);
        // The line through the last two predictions.
        let along = (at.step - last.step) as f64 / (last.step - before.step) as f64;
        if let [.., before_weight, last_weight] = weights.as_mut_slice() {
            *before_weight -= (1.0 - self.fit_weight) * along;
            *last_weight += (1.0 - self.fit_weight) * (1.0 + along);
        }
        prediction.fill(0.0);
        for (computed, &weight) in computed.iter().zip(&weights) {
            for (out, &value) in prediction.iter_mut().zip(&computed.prediction) {
                *out += weight as f32 * value;
            }
        }
        true
    }

    fn observe(&mut self, at: EvaluationPosition, _sample: &[f32], prediction: &[f32]) {
        if self.computed.len() <= at.evaluation {
            self.computed.resize_with(at.evaluation + 1, Vec::new);
        }
        let Some(computed) = self.computed.get_mut(at.evaluation) else { return };
        if computed.len() == MAX_STORED {
            computed.remove(0);
        }
        computed.push(StepPrediction { step: at.step, prediction: prediction.to_vec() });
    }

    fn clear(&mut self) {
        self.computed.clear();
        self.skipped_in_a_row = 0;
    }
}

/// Returns the weights of the predictions at `times` in their ridge regression by Chebyshev polynomials up to `degree`,
/// evaluated at `time`: `X (XᵀX + ridge I)⁻¹ x`, where the rows of `X` are the polynomials at each time and `x` those
/// at `time`.
fn fit_weights(times: &[f64], time: f64, degree: usize, ridge: f64) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = times.iter().map(|&time| chebyshev(time, degree)).collect();
    let size = degree + 1;
    let mut gram = vec![vec![0.0; size]; size];
    for (i, line) in gram.iter_mut().enumerate() {
        for (j, value) in line.iter_mut().enumerate() {
            *value = rows.iter().map(|row| row[i] * row[j]).sum::<f64>() + if i == j { ridge } else { 0.0 };
        }
    }
    let solved = solve(gram, chebyshev(time, degree));
    rows.iter().map(|row| row.iter().zip(&solved).map(|(a, b)| a * b).sum()).collect()
}

/// Evaluates the Chebyshev polynomials of the first kind up to `degree`, at least 1, at `x`.
fn chebyshev(x: f64, degree: usize) -> Vec<f64> {
    let mut values = vec![1.0, x];
    for k in 2..=degree {
        values.push(2.0 * x * values[k - 1] - values[k - 2]);
    }
    values
}

/// Solves `a x = b` for a symmetric positive definite `a`, by its Cholesky decomposition in place.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            a[i][j] = if i == j { (a[i][i] - sum).sqrt() } else { (a[i][j] - sum) / a[j][j] };
        }
        b[i] = (b[i] - (0..i).map(|k| a[i][k] * b[k]).sum::<f64>()) / a[i][i];
    }
    for i in (0..n).rev() {
        b[i] = (b[i] - (i + 1..n).map(|k| a[k][i] * b[k]).sum::<f64>()) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fit_with_hardly_any_ridge_reproduces_a_polynomial() {
        let cubic = |t: f64| 4.0 * t * t * t - 2.0 * t + 0.5;
        let times = [-1.0, -0.8, -0.5, -0.1, 0.0, 0.3];
        let weights = fit_weights(&times, 0.6, 3, 1e-9);
        let read: f64 = times.iter().zip(&weights).map(|(&t, w)| w * cubic(t)).sum();
        assert!((read - cubic(0.6)).abs() < 1e-5, "{read} {}", cubic(0.6));
    }

    #[test]
    fn polynomials_are_cosines_of_multiples() {
        let angle: f64 = 0.7;
        for (k, value) in chebyshev(angle.cos(), 8).into_iter().enumerate() {
            assert!((value - (k as f64 * angle).cos()).abs() < 1e-12);
        }
    }
}
