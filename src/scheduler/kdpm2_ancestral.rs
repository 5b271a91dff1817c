//! k-diffusion's `sample_dpm_2_ancestral`: the midpoint method down to `sigma_down`, then
//! noise of `sigma_up`.

use super::betas::{exp_f32, ln_f32};
use super::config::keys;
use super::sample::{PredictionType, blocks, predict_x0};
use super::settings::SchedulerSettings;
use super::sigma_schedule::{self, interleave};
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "kdpm2-ancestral",
    class: "KDPM2AncestralDiscreteScheduler",
    aliases: &[
        SchedulerAlias::plain("DPM2 a"),
        SchedulerAlias::plain("dpm_2_ancestral"),
        SchedulerAlias::plain("kdpm_2_a"),
    ],
    order: 2,
    stochastic: true,
    inverse: false,
    custom_schedules: CustomScheduleSupport::BOTH,
    about: "DPM-Solver-2 with fresh noise at every step.",
    keys: &keys::joined::<11>(
        &sigma_schedule::schedule_keys(0.00085, 0.012, keys::beta_schedule("linear")),
        &[keys::prediction_type(&["epsilon", "v_prediction"])],
    ),
    build,
};

/// The sigmas of one step.
#[derive(Debug, Clone, Copy)]
struct Kdpm2AncestralStep {
    sigma: f32,
    /// The sigma after the first evaluation.
    sigma_interpol: f32,
    /// The sigma after the second evaluation, before noise is added.
    sigma_down: f32,
    /// The standard deviation of the added noise.
    sigma_up: f32,
}

#[derive(Debug)]
struct Kdpm2Ancestral {
    timesteps: Vec<f64>,
    steps: Vec<Kdpm2AncestralStep>,
    init_noise_sigma: f32,
    prediction_type: PredictionType,
    sample: Vec<f32>,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let schedule = sigma_schedule::build_schedule(settings, request, sigma_schedule::KarrasVariant::Whole)?;
    let last = schedule.sigmas.len() - 2;
    let steps: Vec<Kdpm2AncestralStep> = schedule
        .sigmas
        .windows(2)
        .enumerate()
        .map(|(i, pair)| {
            let (sigma, next) = (pair[0], pair[1]);
            let (sigma_down, sigma_up) = sigmas::ancestral_step(sigma, next);
            let (from, to) = (ln_f32(sigma), ln_f32(sigma_down));
            let sigma_interpol = if i == last { 0.0 } else { exp_f32(to - (to - from) * 0.5) };
            Kdpm2AncestralStep { sigma, sigma_interpol, sigma_down, sigma_up }
        })
        .collect();
    let pairs = steps.iter().zip(schedule.timesteps.iter().skip(1));
    let pairs = pairs.map(|(step, t)| (sigmas::sigma_to_t(f64::from(step.sigma_interpol), &schedule.logs), *t));
    Ok(Box::new(Kdpm2Ancestral {
        timesteps: interleave(schedule.timesteps[0], pairs),
        steps,
        init_noise_sigma: schedule.init_noise_sigma,
        prediction_type: PredictionType::from_settings(settings)?,
        sample: Vec::new(),
        noise: Vec::new(),
    }))
}

impl Kdpm2Ancestral {
    /// Returns the sigma of the sample at an evaluation.
    fn sigma_at(&self, evaluation: usize) -> f32 {
        let step = self.steps[evaluation / 2];
        if evaluation.is_multiple_of(2) { step.sigma } else { step.sigma_interpol }
    }
}

impl Scheduler for Kdpm2Ancestral {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        f64::from(self.init_noise_sigma)
    }

    fn order(&self) -> usize {
        2
    }

    fn scale_model_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        sigmas::scale_model_input(self.sigma_at(step), x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Kdpm2AncestralStep { sigma, sigma_interpol, sigma_down, sigma_up } = self.steps[step / 2];
        if step.is_multiple_of(2) {
            self.sample.resize(x.len(), 0.0);
            for block in blocks(x.len()) {
                let (x, model_output) = (&mut x[block.clone()], &model_output[block.clone()]);
                self.sample[block].copy_from_slice(x);
                sigmas::euler(self.prediction_type, sigma, sigma, sigma_interpol - sigma, model_output, x);
            }
        } else {
            self.noise.resize(x.len(), 0.0);
            noise.fill(&mut self.noise);
            let predict_x0 = sigmas::x0_predictor(self.prediction_type, sigma_interpol, sigma_interpol);
            let dt = sigma_down - sigma;
            let saved = self.sample.iter().zip(&self.noise);
            for ((x, m), (sample, noise)) in x.iter_mut().zip(model_output).zip(saved) {
                *x = sample + (*x - predict_x0(*x, *m)) / sigma_interpol * dt + noise * sigma_up;
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigma_at(step), x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.prediction_type, step, model_output, x, out);
    }
}
