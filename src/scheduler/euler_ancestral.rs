//! Ancestral Euler, k-diffusion's `sample_euler_ancestral`: each step goes down to `sigma_down`,
//! then adds noise of `sigma_up`.

use super::config::keys;
use super::sample::{PredictionType, predict_x0};
use super::settings::SchedulerSettings;
use super::{
    CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, betas, sigma_schedule,
    sigmas, spacing,
};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "euler-ancestral",
    class: "EulerAncestralDiscreteScheduler",
    aliases: &[SchedulerAlias::plain("Euler a"), SchedulerAlias::plain("k_euler_a")],
    order: 1,
    stochastic: true,
    inverse: false,
    custom_schedules: CustomScheduleSupport::BOTH,
    about: "Euler's method with fresh noise at every step; more steps keep changing the image.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        keys::prediction_type(&["epsilon", "v_prediction"]),
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        keys::RESCALE_BETAS_ZERO_SNR,
    ],
    build,
};

#[derive(Debug)]
struct EulerAncestral {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
    prediction_type: PredictionType,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let training = sigmas::training_sigmas(&betas::positive_alphas_cumprod(settings)?);
    let (timesteps, sigmas) = match sigma_schedule::custom_sigmas(request, &sigmas::log_sigmas(&training)) {
        Some(schedule) => schedule,
        None => {
            let timesteps = spacing::timesteps(settings, request, false)?;
            let mut sigmas: Vec<f32> = timesteps.iter().map(|t| sigmas::interpolate(*t, &training) as f32).collect();
            sigmas.push(0.0);
            (timesteps, sigmas)
        }
    };
    Ok(Box::new(EulerAncestral {
        timesteps,
        init_noise_sigma: sigma_schedule::init_noise_sigma(settings, &sigmas)?,
        sigmas,
        prediction_type: PredictionType::from_settings(settings)?,
        noise: Vec::new(),
    }))
}

impl Scheduler for EulerAncestral {
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
        let (from, to) = (self.sigmas[step], self.sigmas[step + 1]);
        let (sigma_down, sigma_up) = sigmas::ancestral_step(from, to);
        self.noise.resize(x.len(), 0.0);
        noise.fill(&mut self.noise);
        let predict_x0 = sigmas::x0_predictor(self.prediction_type, from, from);
        let dt = sigma_down - from;
        for ((x, m), noise) in x.iter_mut().zip(model_output).zip(&self.noise) {
            let derivative = (*x - predict_x0(*x, *m)) / from;
            *x = *x + derivative * dt + noise * sigma_up;
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.prediction_type, step, model_output, x, out);
    }
}
