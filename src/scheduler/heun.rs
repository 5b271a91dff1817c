//! Heun's method on the probability flow: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based
//! Generative Models", algorithm 1, deterministic.

use super::config::{SchedulerKey, keys};
use super::sample::{PredictionType, blocks, clamp, predict_x0};
use super::settings::SchedulerSettings;
use super::sigma_schedule::{self, interleave};
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "heun",
    class: "HeunDiscreteScheduler",
    aliases: &[SchedulerAlias::plain("k_heun")],
    order: 2,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::BOTH,
    about: "Heun's second-order method: two evaluations per step, each step corrected at its end.",
    keys: &keys::joined::<13>(
        &sigma_schedule::schedule_keys(
            0.00085,
            0.012,
            SchedulerKey::choice("beta_schedule", "linear", &["linear", "scaled_linear", "squaredcos_cap_v2", "exp"]),
        ),
        &[
            keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
            SchedulerKey::switch("clip_sample", false),
            SchedulerKey::float("clip_sample_range", 1.0),
        ],
    ),
    build,
};

#[derive(Debug)]
struct Heun {
    timesteps: Vec<f64>,
    /// One per step, and a zero at the end.
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
    prediction_type: PredictionType,
    clip: Option<f32>,
    sample: Vec<f32>,
    derivative: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let schedule = sigma_schedule::build_schedule(settings, request, sigma_schedule::KarrasVariant::Plain)?;
    let later = schedule.timesteps.iter().skip(1).map(|t| (*t, *t));
    let clip = settings.switch("clip_sample")?.then(|| settings.float("clip_sample_range")).transpose()?;
    Ok(Box::new(Heun {
        timesteps: interleave(schedule.timesteps[0], later),
        sigmas: schedule.sigmas,
        init_noise_sigma: schedule.init_noise_sigma,
        prediction_type: PredictionType::from_settings(settings)?,
        clip: clip.map(|range| range as f32),
        sample: Vec::new(),
        derivative: Vec::new(),
    }))
}

impl Scheduler for Heun {
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
        sigmas::scale_model_input(self.sigmas[step.div_ceil(2)], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let (sigma, next) = (self.sigmas[step / 2], self.sigmas[step / 2 + 1]);
        let dt = next - sigma;
        let sigma_at = if step.is_multiple_of(2) { sigma } else { next };
        let predict_x0 = sigmas::x0_predictor(self.prediction_type, sigma_at, sigma_at);
        let (low, high) = self.clip.map_or((f32::NEG_INFINITY, f32::INFINITY), |range| (-range, range));
        if step.is_multiple_of(2) {
            self.sample.resize(x.len(), 0.0);
            self.derivative.resize(x.len(), 0.0);
            for block in blocks(x.len()) {
                let (x, model_output) = (&mut x[block.clone()], &model_output[block.clone()]);
                self.sample[block.clone()].copy_from_slice(x);
                for ((x, m), derivative) in x.iter_mut().zip(model_output).zip(&mut self.derivative[block]) {
                    *derivative = (*x - clamp(predict_x0(*x, *m), low, high)) / sigma;
                    *x += *derivative * dt;
                }
            }
        } else {
            let saved = self.sample.iter().zip(&self.derivative);
            for ((x, m), (sample, first)) in x.iter_mut().zip(model_output).zip(saved) {
                let second = (*x - clamp(predict_x0(*x, *m), low, high)) / next;
                *x = sample + (first + second) / 2.0 * dt;
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step.div_ceil(2)], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.prediction_type, step, model_output, x, out);
    }
}
