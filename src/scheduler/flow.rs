//! What the samplers of rectified flows share: a schedule of noise fractions, shifted towards noise.

use super::config::Settings;
use super::spacing::linspace;
use crate::error::Result;

/// The noise fractions of `steps` steps before any other shaping: from the largest to the smallest of training, each
/// of which the class has already shifted once unless `shifts_training` is off.
///
/// # Errors
/// A value of the wrong type.
pub(super) fn fractions(settings: &Settings, steps: usize, shifts_training: bool) -> Result<Vec<f64>> {
    let train = settings.count("num_train_timesteps")? as f32;
    let factor = if shifts_training { settings.float("shift")? } else { 1.0 };
    let training = |t: f32| shift_f32(factor as f32, (factor - 1.0) as f32, t / train);
    let end = |t: f32| f64::from(training(t)) * f64::from(train);
    Ok(linspace(end(train), end(1.0), steps).into_iter().map(|t| t / f64::from(train)).collect())
}

/// `shift s / (1 + (shift - 1) s)`: Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image
/// Synthesis", equation 23.
pub(super) fn shift(factor: f64, fraction: f64) -> f64 {
    factor * fraction / (1.0 + (factor - 1.0) * fraction)
}

fn shift_f32(factor: f32, less_one: f32, fraction: f32) -> f32 {
    factor * fraction / (1.0 + less_one * fraction)
}

/// Writes `sigma noise + (1 - sigma) x0` to `out`.
pub(super) fn add_noise(sigma: f32, x0: &[f32], noise: &[f32], out: &mut [f32]) {
    let keep = 1.0 - sigma;
    for ((out, x0), noise) in out.iter_mut().zip(x0).zip(noise) {
        *out = sigma * noise + keep * x0;
    }
}
