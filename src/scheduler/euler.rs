//! Euler's method on the probability flow, with optional churn: Karras et al. 2022, "Elucidating the Design Space of
//! Diffusion-Based Generative Models", algorithm 2 without its second-order correction.

use super::churn::{self, Churn};
use super::config::{Key, Kind, Settings, keys};
use super::noise::exp_f32;
use super::sample::{Prediction, estimate};
use super::sigmas::{self, Ramp};
use super::{Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, custom, discrete, noise, spacing};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "euler",
    class: "EulerDiscreteScheduler",
    aliases: &[Alias::plain("k_euler")],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::BOTH,
    about: "Euler's method on the probability flow; a good default.",
    keys: &keys::joined::<21>(
        &[
            keys::NUM_TRAIN_TIMESTEPS,
            keys::beta_start(0.0001),
            keys::beta_end(0.02),
            keys::beta_schedule("linear"),
            keys::TRAINED_BETAS,
            keys::prediction_type(&["epsilon", "sample", "original_sample", "v_prediction"]),
            Key::choice("interpolation_type", "linear", &["linear", "log_linear"]),
            keys::USE_KARRAS_SIGMAS,
            keys::USE_EXPONENTIAL_SIGMAS,
            keys::USE_BETA_SIGMAS,
            Key::new("sigma_min", Kind::MaybeFloat),
            Key::new("sigma_max", Kind::MaybeFloat),
            keys::timestep_spacing("linspace"),
            Key::choice("timestep_type", "discrete", &["discrete", "continuous"]),
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
    initial: f32,
    prediction: Prediction,
    churn: Churn,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let prediction = Prediction::from_settings(settings)?;
    let training = sigmas::training_sigmas(&noise::positive_alphas_cumprod(settings)?);
    let logs = sigmas::log_sigmas(&training);
    let (mut timesteps, levels) = match custom::levels(request, &logs) {
        Some(given) => given,
        None => spaced(settings, request, &training, &logs)?,
    };
    if settings.choice("timestep_type")? == "continuous" && prediction == Prediction::Velocity {
        timesteps = levels[..levels.len() - 1].iter().map(|sigma| f64::from(0.25 * noise::ln_f32(*sigma))).collect();
    }
    Ok(Box::new(Euler {
        timesteps: timesteps.into_iter().map(|t| f64::from(t as f32)).collect(),
        initial: discrete::initial(settings, &levels)?,
        prediction,
        churn: Churn::from_settings(settings, levels.len() - 1)?,
        sigmas: levels,
    }))
}

/// The timesteps that the configuration asks for and their noise levels, with the end of the last step.
fn spaced(
    settings: &Settings,
    request: &ScheduleRequest,
    training: &[f32],
    logs: &[f32],
) -> Result<(Vec<f64>, Vec<f32>)> {
    let steps = request.steps;
    let mut timesteps = spacing::timesteps(settings, request, false)?;
    let mut levels: Vec<f64> = if settings.choice("interpolation_type")? == "log_linear" {
        noise::linspace_f32(logs[logs.len() - 1], logs[0], steps + 1)
            .into_iter()
            .map(|l| f64::from(exp_f32(l)))
            .collect()
    } else {
        timesteps.iter().map(|t| sigmas::interpolate(*t, training)).collect()
    };
    if let Some(ramp) = Ramp::from_settings(settings)? {
        levels = ramp.sigmas(settings, levels[levels.len() - 1], levels[0], steps)?;
        timesteps = levels.iter().map(|sigma| sigmas::timestep_of(*sigma, logs)).collect();
    }
    levels.push(if settings.choice("final_sigmas_type")? == "sigma_min" { f64::from(training[0]) } else { 0.0 });
    Ok((timesteps, levels.into_iter().map(|sigma| sigma as f32).collect()))
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        f64::from(self.initial)
    }

    fn scale_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        sigmas::scale_input(self.sigmas[step], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let sigma = self.sigmas[step];
        let raised = self.churn.raise(sigma, x, noise);
        let change = self.sigmas[step + 1] - raised;
        sigmas::euler(self.prediction, sigma, raised, change, model_output, x);
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.prediction, step, model_output, x, out);
    }
}
