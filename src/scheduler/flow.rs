//! Sigmas of rectified flows: fractions of noise in [0, 1], shifted towards noise.

use super::linspace::linspace;
use super::settings::SchedulerSettings;
use crate::error::Result;

/// Returns the sigmas of `steps` steps before resolution-dependent shifting, from the largest to the smallest training
/// sigma. The training sigmas are shifted once by `shift` if `shifts_training`.
///
/// # Errors
/// A value of the wrong type.
pub(super) fn training_range_sigmas(
    settings: &SchedulerSettings,
    steps: usize,
    shifts_training: bool,
) -> Result<Vec<f64>> {
    let train = settings.count("num_train_timesteps")? as f32;
    let factor = if shifts_training { settings.float("shift")? } else { 1.0 };
    let training = |t: f32| shift_f32(factor as f32, (factor - 1.0) as f32, t / train);
    let end = |t: f32| f64::from(training(t)) * f64::from(train);
    Ok(linspace(end(train), end(1.0), steps).into_iter().map(|t| t / f64::from(train)).collect())
}

/// Computes `shift s / (1 + (shift - 1) s)`: Esser et al. 2024, "Scaling Rectified Flow Transformers for
/// High-Resolution Image Synthesis", equation 23.
pub(super) fn shift(factor: f64, sigma: f64) -> f64 {
    factor * sigma / (1.0 + (factor - 1.0) * sigma)
}

fn shift_f32(factor: f32, factor_minus_one: f32, sigma: f32) -> f32 {
    factor * sigma / (1.0 + factor_minus_one * sigma)
}

/// Writes `sigma noise + (1 - sigma) x0` to `out`.
pub(super) fn add_noise(sigma: f32, x0: &[f32], noise: &[f32], out: &mut [f32]) {
    let signal = 1.0 - sigma;
    for ((out, x0), noise) in out.iter_mut().zip(x0).zip(noise) {
        *out = sigma * noise + signal * x0;
    }
}
