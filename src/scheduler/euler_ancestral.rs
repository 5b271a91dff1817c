//! Ancestral Euler, k-diffusion's `sample_euler_ancestral`: each step goes below its target and adds noise to reach it.

use super::config::{Settings, keys};
use super::sample::{Prediction, estimate};
use super::{
    Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, custom, discrete, noise, sigmas, spacing,
};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "euler-ancestral",
    class: "EulerAncestralDiscreteScheduler",
    aliases: &[Alias::plain("Euler a"), Alias::plain("k_euler_a")],
    order: 1,
    stochastic: true,
    inverse: false,
    accepts: Accepts::BOTH,
    about: "Euler's method with fresh noise at every step; never settles on one image as steps grow.",
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
    initial: f32,
    prediction: Prediction,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let training = sigmas::training_sigmas(&noise::positive_alphas_cumprod(settings)?);
    let (timesteps, levels) = match custom::levels(request, &sigmas::log_sigmas(&training)) {
        Some(given) => given,
        None => {
            let timesteps = spacing::timesteps(settings, request, false)?;
            let mut levels: Vec<f32> = timesteps.iter().map(|t| sigmas::interpolate(*t, &training) as f32).collect();
            levels.push(0.0);
            (timesteps, levels)
        }
    };
    Ok(Box::new(EulerAncestral {
        timesteps,
        initial: discrete::initial(settings, &levels)?,
        sigmas: levels,
        prediction: Prediction::from_settings(settings)?,
        drawn: Vec::new(),
    }))
}

impl Scheduler for EulerAncestral {
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
        let (from, to) = (self.sigmas[step], self.sigmas[step + 1]);
        let (down, up) = sigmas::ancestral(from, to);
        self.drawn.resize(x.len(), 0.0);
        noise.fill(&mut self.drawn);
        let image_of = sigmas::image_of(self.prediction, from, from);
        let change = down - from;
        for ((x, m), drawn) in x.iter_mut().zip(model_output).zip(&self.drawn) {
            let derivative = (*x - image_of(*x, *m)) / from;
            *x = *x + derivative * change + drawn * up;
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.prediction, step, model_output, x, out);
    }
}
