//! EDM's schedules and the scalings around its network, shared by the EDM schedulers: Karras et al. 2022, "Elucidating
//! the Design Space of Diffusion-Based Generative Models", table 1.

use super::betas::{exp_f32, ln_f32};
use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::linspace::linspace_f32;
use super::sample::PredictionType;
use super::settings::SchedulerSettings;
use super::sigmas;
use crate::elementary::{ln, pow};
use crate::error::Result;

/// The configuration keys that both classes share.
pub(super) const KEYS: [SchedulerKey; 8] = [
    SchedulerKey::float("sigma_min", 0.002),
    SchedulerKey::float("sigma_max", 80.0),
    SchedulerKey::float("sigma_data", 0.5),
    SchedulerKey::choice("sigma_schedule", "karras", &["karras", "exponential"]),
    keys::NUM_TRAIN_TIMESTEPS,
    SchedulerKey::new(
        "prediction_type",
        SchedulerKeyKind::Choice { default: "epsilon", valid: &["epsilon", "v_prediction"], foreign: &[] },
    ),
    SchedulerKey::float("rho", 7.0),
    keys::FINAL_SIGMAS_TYPE,
];

/// Returns the sigmas of `steps` steps, falling, in float32. `double` computes Karras sigmas in double precision.
///
/// # Errors
/// An unknown schedule.
pub(super) fn sigmas(settings: &SchedulerSettings, steps: usize, double: bool) -> Result<Vec<f32>> {
    let (min, max) = (settings.float("sigma_min")?, settings.float("sigma_max")?);
    if settings.choice("sigma_schedule")? == "exponential" {
        let logs = linspace_f32(ln(min) as f32, ln(max) as f32, steps);
        return Ok(logs.into_iter().rev().map(exp_f32).collect());
    }
    let rho = settings.float("rho")?;
    if double {
        return Ok(sigmas::karras(min, max, steps, rho).into_iter().map(|sigma| sigma as f32).collect());
    }
    let (low, high) = (pow(min, 1.0 / rho), pow(max, 1.0 / rho));
    let (span, high, rho) = ((low - high) as f32, high as f32, rho as f32);
    Ok(linspace_f32(0.0, 1.0, steps)
        .into_iter()
        .map(|ramp| pow(f64::from(high + ramp * span), f64::from(rho)) as f32)
        .collect())
}

/// Returns the network's timestep for each sigma, `ln(sigma) / 4`.
pub(super) fn timesteps(sigmas: &[f32]) -> Vec<f64> {
    sigmas.iter().map(|sigma| f64::from(0.25 * ln_f32(*sigma))).collect()
}

/// Returns the factor that scales unit normal noise to the first sample.
///
/// # Errors
/// `sigma_max` is not a number.
pub(super) fn init_noise_sigma(settings: &SchedulerSettings) -> Result<f64> {
    let max = settings.float("sigma_max")?;
    Ok((max * max + 1.0).sqrt())
}

/// The scalings around a network trained on data with the standard deviation `sigma_data`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalings {
    sigma_data2: f32,
    sigma_data: f32,
    prediction_type: PredictionType,
}

impl Scalings {
    /// Reads `sigma_data` and `prediction_type`.
    ///
    /// # Errors
    /// An unknown prediction type.
    pub(super) fn from_settings(settings: &SchedulerSettings) -> Result<Self> {
        let sigma_data = settings.float("sigma_data")?;
        let prediction_type = PredictionType::from_settings(settings)?;
        Ok(Self { sigma_data2: (sigma_data * sigma_data) as f32, sigma_data: sigma_data as f32, prediction_type })
    }

    /// Scales the sample to unit variance, by `c_in`, and writes it to `out`.
    pub(super) fn scale_model_input(&self, sigma: f32, x: &[f32], out: &mut [f32]) {
        let c_in = 1.0 / (sigma * sigma + self.sigma_data2).sqrt();
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * c_in;
        }
    }

    /// Writes the predicted original sample to `out`, given the model output and the sample.
    pub(super) fn predict_x0(&self, sigma: f32, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        let predict_x0 = self.x0_predictor(sigma);
        for ((out, m), x) in out.iter_mut().zip(model_output).zip(x) {
            *out = predict_x0(*x, *m);
        }
    }

    /// Returns a function of sample and model output that computes the predicted original sample.
    pub(super) fn x0_predictor(&self, sigma: f32) -> impl Fn(f32, f32) -> f32 + Copy {
        let variance = sigma * sigma + self.sigma_data2;
        let c_skip = self.sigma_data2 / variance;
        let c_out = sigma * self.sigma_data / variance.sqrt();
        let c_out = if self.prediction_type == PredictionType::Velocity { -c_out } else { c_out };
        move |x, m| c_skip * x + c_out * m
    }
}
