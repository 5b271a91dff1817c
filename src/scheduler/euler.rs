//! Euler's method on the probability flow, with optional churn: Karras et al. 2022, "Elucidating the Design Space of
//! Diffusion-Based Generative Models", algorithm 2 without its second-order correction.

use super::betas::exp_f32;
use super::churn::{self, Churn};
use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::linspace::linspace_f32;
use super::sample::{PredictionType, predict_x0};
use super::settings::SchedulerSettings;
use super::sigmas::{self, Ramp};
use super::{
    CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, betas, sigma_schedule,
    spacing,
};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "euler",
    class: "EulerDiscreteScheduler",
    aliases: &[SchedulerAlias::plain("k_euler")],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::BOTH,
    about: "Euler's method on the probability flow; a good default.",
    keys: &keys::joined::<21>(
        &[
            keys::NUM_TRAIN_TIMESTEPS,
            keys::beta_start(0.0001),
            keys::beta_end(0.02),
            keys::beta_schedule("linear"),
            keys::TRAINED_BETAS,
            keys::prediction_type(&["epsilon", "sample", "original_sample", "v_prediction"]),
            SchedulerKey::choice("interpolation_type", "linear", &["linear", "log_linear"]),
            keys::USE_KARRAS_SIGMAS,
            keys::USE_EXPONENTIAL_SIGMAS,
            keys::USE_BETA_SIGMAS,
            SchedulerKey::new("sigma_min", SchedulerKeyKind::MaybeFloat),
            SchedulerKey::new("sigma_max", SchedulerKeyKind::MaybeFloat),
            keys::timestep_spacing("linspace"),
            SchedulerKey::choice("timestep_type", "discrete", &["discrete", "continuous"]),
            keys::STEPS_OFFSET,
            keys::RESCALE_BETAS_ZERO_SNR,
            keys::FINAL_SIGMAS_TYPE,
        ],
        &churn::KEYS,
    ),
    build,
};

#[derive(Debug)]
struct Euler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
    prediction_type: PredictionType,
    churn: Churn,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let prediction_type = PredictionType::from_settings(settings)?;
    let training = sigmas::training_sigmas(&betas::positive_alphas_cumprod(settings)?);
    let logs = sigmas::log_sigmas(&training);
    let (mut timesteps, sigmas) = match sigma_schedule::custom_sigmas(request, &logs) {
        Some(schedule) => schedule,
        None => space_sigmas(settings, request, &training, &logs)?,
    };
    if settings.choice("timestep_type")? == "continuous" && prediction_type == PredictionType::Velocity {
        timesteps = sigmas[..sigmas.len() - 1].iter().map(|sigma| f64::from(0.25 * betas::ln_f32(*sigma))).collect();
    }
    Ok(Box::new(Euler {
        timesteps: timesteps.into_iter().map(|t| f64::from(t as f32)).collect(),
        init_noise_sigma: sigma_schedule::init_noise_sigma(settings, &sigmas)?,
        prediction_type,
        churn: Churn::from_settings(settings, sigmas.len() - 1)?,
        sigmas,
    }))
}

/// Returns the configured timesteps and their sigmas, with the final sigma.
fn space_sigmas(
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    training: &[f32],
    logs: &[f32],
) -> Result<(Vec<f64>, Vec<f32>)> {
    let steps = request.steps;
    let mut timesteps = spacing::timesteps(settings, request, false)?;
    let mut sigmas: Vec<f64> = if settings.choice("interpolation_type")? == "log_linear" {
        linspace_f32(logs[logs.len() - 1], logs[0], steps + 1).into_iter().map(|l| f64::from(exp_f32(l))).collect()
    } else {
        timesteps.iter().map(|t| sigmas::interpolate(*t, training)).collect()
    };
    if let Some(ramp) = Ramp::from_settings(settings)? {
        sigmas = ramp.sigmas(settings, sigmas[sigmas.len() - 1], sigmas[0], steps)?;
        timesteps = sigmas.iter().map(|sigma| sigmas::sigma_to_t(*sigma, logs)).collect();
    }
    sigmas.push(if settings.choice("final_sigmas_type")? == "sigma_min" { f64::from(training[0]) } else { 0.0 });
    Ok((timesteps, sigmas.into_iter().map(|sigma| sigma as f32).collect()))
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        f64::from(self.init_noise_sigma)
    }

    fn scale_model_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        sigmas::scale_model_input(self.sigmas[step], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let sigma = self.sigmas[step];
        let sigma_hat = self.churn.add_noise(sigma, x, noise);
        let dt = self.sigmas[step + 1] - sigma_hat;
        sigmas::euler(self.prediction_type, sigma, sigma_hat, dt, model_output, x);
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.prediction_type, step, model_output, x, out);
    }
}
