//! Noise levels in the variance-exploding image, `sigma = sqrt((1 - alpha) / alpha)`, and the ways to space them.

use super::config::Settings;
use super::sample::Prediction;
use super::spacing::linspace;
use crate::error::Result;

/// The sigma of every training timestep, rising.
pub(super) fn training_sigmas(alphas_cumprod: &[f32]) -> Vec<f32> {
    alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// `numpy.interp` of a table whose abscissae are 0, 1, 2 ...; constant beyond its ends.
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

/// The logarithms of [`training_sigmas`], in float32 as numpy computes them.
pub(super) fn log_sigmas(sigmas: &[f32]) -> Vec<f32> {
    sigmas.iter().map(|sigma| super::noise::numpy_ln_f32(*sigma)).collect()
}

/// The training timestep, a fraction of one included, at which the noise is `sigma`.
pub(super) fn timestep_of(sigma: f64, log_sigmas: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let below = log_sigmas.iter().rposition(|log| log_sigma - f64::from(*log) >= 0.0).unwrap_or(0);
    if log_sigmas.len() < 2 {
        return 0.0;
    }
    let low_index = below.min(log_sigmas.len() - 2);
    let (low, high) = (log_sigmas[low_index], log_sigmas[low_index + 1]);
    let weight = ((f64::from(low) - log_sigma) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - weight) * low_index as f64 + weight * (low_index + 1) as f64
}

/// As [`timestep_of`] for a noise level in float32, in whose arithmetic diffusers then looks it up.
pub(super) fn timestep_of_f32(sigma: f32, log_sigmas: &[f32]) -> f64 {
    let log_sigma = super::noise::numpy_ln_f32(sigma.max(1e-10));
    let below = log_sigmas.iter().rposition(|log| log_sigma - log >= 0.0).unwrap_or(0);
    if log_sigmas.len() < 2 {
        return 0.0;
    }
    let low_index = below.min(log_sigmas.len() - 2);
    let (low, high) = (log_sigmas[low_index], log_sigmas[low_index + 1]);
    let weight = ((low - log_sigma) / (low - high)).clamp(0.0, 1.0);
    f64::from(1.0 - weight) * low_index as f64 + f64::from(weight) * (low_index + 1) as f64
}

/// Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", equation 5.
pub(super) fn karras(min: f64, max: f64, n: usize, rho: f64) -> Vec<f64> {
    let (low, high) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    linspace(0.0, 1.0, n).into_iter().map(|ramp| (high + ramp * (low - high)).powf(rho)).collect()
}

/// Equal ratios from one noise level to the next.
pub(super) fn exponential(min: f64, max: f64, n: usize) -> Vec<f64> {
    linspace(max.ln(), min.ln(), n).into_iter().map(f64::exp).collect()
}

/// Lee et al. 2024, "Beta Sampling is All You Need": quantiles of the Beta(0.6, 0.6) distribution.
pub(super) fn beta(min: f64, max: f64, n: usize) -> Vec<f64> {
    linspace(0.0, 1.0, n)
        .into_iter()
        .map(|ramp| min + super::beta_quantile::beta_quantile(1.0 - ramp, 0.6, 0.6) * (max - min))
        .collect()
}

/// A way to space sigmas between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ramp {
    Karras,
    Exponential,
    Beta,
}

impl Ramp {
    /// The ramp the switches `use_*_sigmas` choose, if any.
    ///
    /// # Errors
    /// More than one of them is on.
    pub(super) fn from_settings(settings: &Settings) -> Result<Option<Self>> {
        let all = [
            ("use_karras_sigmas", Self::Karras),
            ("use_exponential_sigmas", Self::Exponential),
            ("use_beta_sigmas", Self::Beta),
        ];
        let mut chosen: Option<(&str, Self)> = None;
        for (name, ramp) in all {
            if settings.switch(name)? {
                if let Some((other, _)) = chosen {
                    return Err(settings.error(name, format!("{other} is on too"), "turn on one of them at most"));
                }
                chosen = Some((name, ramp));
            }
        }
        Ok(chosen.map(|(_, ramp)| ramp))
    }

    /// `n` sigmas falling from `max` to `min`; `sigma_min` and `sigma_max` of the configuration go before both.
    ///
    /// # Errors
    /// An end of the configuration is not a number.
    pub(super) fn sigmas(self, settings: &Settings, min: f64, max: f64, n: usize) -> Result<Vec<f64>> {
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

/// Writes `x / sqrt(sigma² + 1)` to `out`: what a model trained on samples of unit variance is given.
pub(super) fn scale_input(sigma: f32, x: &[f32], out: &mut [f32]) {
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

/// How far an ancestral step from one noise level to another goes down, and how much noise then comes on top.
pub(super) fn ancestral(from: f32, to: f32) -> (f32, f32) {
    let (from2, to2) = (from * from, to * to);
    let up = (to2 * (from2 - to2) / from2).sqrt();
    ((to2 - up * up).sqrt(), up)
}

/// The image that the model's answer `m` on the sample `x` stands for. `raised` is the sample's noise level, `sigma`
/// the one the model was told.
pub(super) fn image_of(prediction: Prediction, sigma: f32, raised: f32) -> impl Fn(f32, f32) -> f32 + Copy {
    let variance = sigma * sigma + 1.0;
    let slope = -sigma / variance.sqrt();
    move |x, m| match prediction {
        Prediction::Sample => m,
        Prediction::Velocity => m * slope + x / variance,
        Prediction::Epsilon | Prediction::Flow => x - raised * m,
    }
}

/// Moves `x` by `change` in sigma along the line to the image that the model sees.
pub(super) fn euler(prediction: Prediction, sigma: f32, raised: f32, change: f32, model_output: &[f32], x: &mut [f32]) {
    let image_of = image_of(prediction, sigma, raised);
    for (x, m) in x.iter_mut().zip(model_output) {
        let derivative = (*x - image_of(*x, *m)) / raised;
        *x += derivative * change;
    }
}
