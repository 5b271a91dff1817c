//! What the samplers of Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", share:
//! its schedules, and the scalings around the network of its table 1.

use super::config::{Key, Kind, Settings, keys};
use super::noise::{exp_f32, linspace_f32, ln_f32};
use super::sample::Prediction;
use super::sigmas;
use crate::error::Result;

/// The keys both classes begin with.
pub(super) const KEYS: [Key; 8] = [
    Key::float("sigma_min", 0.002),
    Key::float("sigma_max", 80.0),
    Key::float("sigma_data", 0.5),
    Key::choice("sigma_schedule", "karras", &["karras", "exponential"]),
    keys::NUM_TRAIN_TIMESTEPS,
    Key::new("prediction_type", Kind::Choice { default: "epsilon", valid: &["epsilon", "v_prediction"], foreign: &[] }),
    Key::float("rho", 7.0),
    keys::FINAL_SIGMAS_TYPE,
];

/// The sigmas of `steps` steps, falling, in float32. `double` computes Karras ones in double precision.
///
/// # Errors
/// A schedule that nobody knows.
pub(super) fn sigmas(settings: &Settings, steps: usize, double: bool) -> Result<Vec<f32>> {
    let (min, max) = (settings.float("sigma_min")?, settings.float("sigma_max")?);
    if settings.choice("sigma_schedule")? == "exponential" {
        let logs = linspace_f32(min.ln() as f32, max.ln() as f32, steps);
        return Ok(logs.into_iter().rev().map(exp_f32).collect());
    }
    let rho = settings.float("rho")?;
    if double {
        return Ok(sigmas::karras(min, max, steps, rho).into_iter().map(|sigma| sigma as f32).collect());
    }
    let (low, high) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    let (span, high, rho) = ((low - high) as f32, high as f32, rho as f32);
    Ok(linspace_f32(0.0, 1.0, steps)
        .into_iter()
        .map(|ramp| f64::from(high + ramp * span).powf(f64::from(rho)) as f32)
        .collect())
}

/// What the network is told of a noise level.
pub(super) fn timesteps(sigmas: &[f32]) -> Vec<f64> {
    sigmas.iter().map(|sigma| f64::from(0.25 * ln_f32(*sigma))).collect()
}

/// What unit normal noise is multiplied by.
///
/// # Errors
/// An end of the schedule is not a number.
pub(super) fn initial(settings: &Settings) -> Result<f64> {
    let max = settings.float("sigma_max")?;
    Ok((max * max + 1.0).sqrt())
}

/// The scalings around a network trained on data of the deviation `sigma_data`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalings {
    data2: f32,
    data: f32,
    prediction: Prediction,
}

impl Scalings {
    /// Reads `sigma_data` and `prediction_type`.
    ///
    /// # Errors
    /// A prediction that nobody knows.
    pub(super) fn from_settings(settings: &Settings) -> Result<Self> {
        let data = settings.float("sigma_data")?;
        let prediction = Prediction::from_settings(settings)?;
        Ok(Self { data2: (data * data) as f32, data: data as f32, prediction })
    }

    /// Writes the sample scaled to unit deviation to `out`.
    pub(super) fn scale_input(&self, sigma: f32, x: &[f32], out: &mut [f32]) {
        let factor = 1.0 / (sigma * sigma + self.data2).sqrt();
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * factor;
        }
    }

    /// Writes the image that the network's answer stands for, given the sample, to `out`.
    pub(super) fn estimate(&self, sigma: f32, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        let image_of = self.image_of(sigma);
        for ((out, m), x) in out.iter_mut().zip(model_output).zip(x) {
            *out = image_of(*x, *m);
        }
    }

    /// The image that the network's answer stands for, given the sample.
    pub(super) fn image_of(&self, sigma: f32) -> impl Fn(f32, f32) -> f32 + Copy {
        let variance = sigma * sigma + self.data2;
        let skip = self.data2 / variance;
        let out = sigma * self.data / variance.sqrt();
        let out = if self.prediction == Prediction::Velocity { -out } else { out };
        move |x, m| skip * x + out * m
    }
}
