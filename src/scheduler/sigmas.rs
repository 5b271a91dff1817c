//! Sigmas in the variance-exploding form, `sigma = sqrt((1 - alpha) / alpha)`, and their spacings.

use super::linspace::linspace;
use super::sample::PredictionType;
use super::settings::SchedulerSettings;
use crate::elementary::{exp, ln, pow};
use crate::error::Result;

/// Returns the sigma of every training timestep, rising.
pub(super) fn training_sigmas(alphas_cumprod: &[f32]) -> Vec<f32> {
    alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// Interpolates as `numpy.interp` does in a table over 0, 1, 2 ...; constant beyond its ends.
pub(super) fn interpolate(at: f64, table: &[f32]) -> f64 {
    let last = table.len() - 1;
    if at <= 0.0 {
        return f64::from(table[0]);
    }
    if at >= last as f64 {
        return f64::from(table[last]);
    }
    let below = at.floor();
    let (low, high) = (f64::from(table[below as usize]), f64::from(table[below as usize + 1]));
    (high - low) * (at - below) + low
}

/// Returns the logarithms of [`training_sigmas`], in float32 as numpy computes them.
pub(super) fn log_sigmas(sigmas: &[f32]) -> Vec<f32> {
    sigmas.iter().map(|sigma| super::betas::numpy_ln_f32(*sigma)).collect()
}

/// Returns the fractional training timestep of a sigma: diffusers' `_sigma_to_t`.
pub(super) fn sigma_to_t(sigma: f64, log_sigmas: &[f32]) -> f64 {
    let log_sigma = ln(sigma.max(1e-10));
    let below = log_sigmas.iter().rposition(|log| log_sigma - f64::from(*log) >= 0.0).unwrap_or(0);
    if log_sigmas.len() < 2 {
        return 0.0;
    }
    let low_index = below.min(log_sigmas.len() - 2);
    let (low, high) = (log_sigmas[low_index], log_sigmas[low_index + 1]);
    let weight = ((f64::from(low) - log_sigma) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - weight) * low_index as f64 + weight * (low_index + 1) as f64
}

/// Returns the fractional training timestep of a float32 sigma, in float32 arithmetic as in diffusers.
pub(super) fn sigma_to_t_f32(sigma: f32, log_sigmas: &[f32]) -> f64 {
    let log_sigma = super::betas::numpy_ln_f32(sigma.max(1e-10));
    let below = log_sigmas.iter().rposition(|log| log_sigma - log >= 0.0).unwrap_or(0);
    if log_sigmas.len() < 2 {
        return 0.0;
    }
    let low_index = below.min(log_sigmas.len() - 2);
    let (low, high) = (log_sigmas[low_index], log_sigmas[low_index + 1]);
    let weight = ((low - log_sigma) / (low - high)).clamp(0.0, 1.0);
    f64::from(1.0 - weight) * low_index as f64 + f64::from(weight) * (low_index + 1) as f64
}

/// Returns `n` sigmas from `max` to `min`: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based
/// Generative Models", equation 5.
pub(super) fn karras(min: f64, max: f64, n: usize, rho: f64) -> Vec<f64> {
    let (low, high) = (pow(min, 1.0 / rho), pow(max, 1.0 / rho));
    linspace(0.0, 1.0, n).into_iter().map(|ramp| pow(high + ramp * (low - high), rho)).collect()
}

/// Returns `n` sigmas from `max` to `min` with a constant ratio.
pub(super) fn exponential(min: f64, max: f64, n: usize) -> Vec<f64> {
    linspace(ln(max), ln(min), n).into_iter().map(exp).collect()
}

/// Returns `n` sigmas from `max` to `min` at quantiles of the Beta(0.6, 0.6) distribution: Lee et al. 2024, "Beta
/// Sampling is All You Need".
pub(super) fn beta(min: f64, max: f64, n: usize) -> Vec<f64> {
    linspace(0.0, 1.0, n)
        .into_iter()
        .map(|ramp| min + super::beta_quantile::beta_quantile(1.0 - ramp, 0.6, 0.6) * (max - min))
        .collect()
}

/// A spacing of sigmas between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ramp {
    Karras,
    Exponential,
    Beta,
}

impl Ramp {
    /// Reads the switches `use_*_sigmas`.
    ///
    /// # Errors
    /// More than one switch is on.
    pub(super) fn from_settings(settings: &SchedulerSettings) -> Result<Option<Self>> {
        let all = [
            ("use_karras_sigmas", Self::Karras),
            ("use_exponential_sigmas", Self::Exponential),
            ("use_beta_sigmas", Self::Beta),
        ];
        let mut chosen: Option<(&str, Self)> = None;
        for (name, ramp) in all {
            if settings.switch(name)? {
                if let Some((other, _)) = chosen {
                    return Err(settings.error(name, format!("{other} is on too"), "turn on only one of them"));
                }
                chosen = Some((name, ramp));
            }
        }
        Ok(chosen.map(|(_, ramp)| ramp))
    }

    /// Returns `n` sigmas falling from `max` to `min`; the configuration's `sigma_min` and `sigma_max` override both.
    ///
    /// # Errors
    /// `sigma_min` or `sigma_max` is not a number.
    pub(super) fn sigmas(self, settings: &SchedulerSettings, min: f64, max: f64, n: usize) -> Result<Vec<f64>> {
        let end = |name| {
            if settings.has(name) { settings.maybe_float(name) } else { Ok(settings.undeclared_float(name)) }
        };
        let (min, max) = (end("sigma_min")?.unwrap_or(min), end("sigma_max")?.unwrap_or(max));
        Ok(match self {
            Self::Karras => karras(min, max, n, 7.0),
            Self::Exponential => exponential(min, max, n),
            Self::Beta => beta(min, max, n),
        })
    }
}

/// Writes `x / sqrt(sigma² + 1)` to `out`, the input of a model trained on samples of unit variance.
pub(super) fn scale_model_input(sigma: f32, x: &[f32], out: &mut [f32]) {
    let divisor = (sigma * sigma + 1.0).sqrt();
    for (out, x) in out.iter_mut().zip(x) {
        *out = x / divisor;
    }
}

/// Writes `x0 + sigma noise` to `out`.
pub(super) fn add_noise(sigma: f32, x0: &[f32], noise: &[f32], out: &mut [f32]) {
    for ((out, x0), noise) in out.iter_mut().zip(x0).zip(noise) {
        *out = x0 + noise * sigma;
    }
}

/// Returns `sigma_down` and `sigma_up` of an ancestral step: k-diffusion's `get_ancestral_step`.
pub(super) fn ancestral_step(from: f32, to: f32) -> (f32, f32) {
    let (from2, to2) = (from * from, to * to);
    let sigma_up = (to2 * (from2 - to2) / from2).sqrt();
    ((to2 - sigma_up * sigma_up).sqrt(), sigma_up)
}

/// Returns a function of the sample `x` and the model output `m` that computes the predicted original sample. `sigma`
/// is the sigma that the model received, `sigma_hat` the sample's.
pub(super) fn x0_predictor(
    prediction_type: PredictionType,
    sigma: f32,
    sigma_hat: f32,
) -> impl Fn(f32, f32) -> f32 + Copy {
    let variance = sigma * sigma + 1.0;
    let slope = -sigma / variance.sqrt();
    move |x, m| match prediction_type {
        PredictionType::Sample => m,
        PredictionType::Velocity => m * slope + x / variance,
        PredictionType::Epsilon | PredictionType::Flow => x - sigma_hat * m,
    }
}

/// Moves `x` by `dt` in sigma with Euler's method.
pub(super) fn euler(
    prediction_type: PredictionType,
    sigma: f32,
    sigma_hat: f32,
    dt: f32,
    model_output: &[f32],
    x: &mut [f32],
) {
    let predict_x0 = x0_predictor(prediction_type, sigma, sigma_hat);
    for (x, m) in x.iter_mut().zip(model_output) {
        let derivative = (*x - predict_x0(*x, *m)) / sigma_hat;
        *x += derivative * dt;
    }
}
