//! Heun's method on the probability flow: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based
//! Generative Models", algorithm 1 as deterministic sampler.

use super::config::{Key, Settings, keys};
use super::discrete::{self, interleave};
use super::sample::{Prediction, blocks, clamp, estimate};
use super::{Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "heun",
    class: "HeunDiscreteScheduler",
    aliases: &[Alias::plain("k_heun")],
    order: 2,
    stochastic: false,
    inverse: false,
    accepts: Accepts::BOTH,
    about: "Heun's second-order method: two calls a step, each step corrected at its end.",
    keys: &keys::joined::<13>(
        &discrete::schedule_keys(
            0.00085,
            0.012,
            Key::choice("beta_schedule", "linear", &["linear", "scaled_linear", "squaredcos_cap_v2", "exp"]),
        ),
        &[
            keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
            Key::switch("clip_sample", false),
            Key::float("clip_sample_range", 1.0),
        ],
    ),
    build,
};

#[derive(Debug)]
struct Heun {
    timesteps: Vec<f64>,
    /// One a step of the user's, and the zero at the end.
    sigmas: Vec<f32>,
    initial: f32,
    prediction: Prediction,
    clip: Option<f32>,
    held_sample: Vec<f32>,
    derivative: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let schedule = discrete::schedule(settings, request, discrete::Karras::Plain)?;
    let later = schedule.timesteps.iter().skip(1).map(|t| (*t, *t));
    let clip = settings.switch("clip_sample")?.then(|| settings.float("clip_sample_range")).transpose()?;
    Ok(Box::new(Heun {
        timesteps: interleave(schedule.timesteps[0], later),
        sigmas: schedule.sigmas,
        initial: schedule.initial,
        prediction: Prediction::from_settings(settings)?,
        clip: clip.map(|range| range as f32),
        held_sample: Vec::new(),
        derivative: Vec::new(),
    }))
}

impl Scheduler for Heun {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        f64::from(self.initial)
    }

    fn order(&self) -> usize {
        2
    }

    fn scale_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        sigmas::scale_input(self.sigmas[step.div_ceil(2)], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let (sigma, next) = (self.sigmas[step / 2], self.sigmas[step / 2 + 1]);
        let change = next - sigma;
        let at = if step.is_multiple_of(2) { sigma } else { next };
        let image_of = sigmas::image_of(self.prediction, at, at);
        let (low, high) = self.clip.map_or((f32::NEG_INFINITY, f32::INFINITY), |range| (-range, range));
        if step.is_multiple_of(2) {
            self.held_sample.resize(x.len(), 0.0);
            self.derivative.resize(x.len(), 0.0);
            for block in blocks(x.len()) {
                let (x, model_output) = (&mut x[block.clone()], &model_output[block.clone()]);
                self.held_sample[block.clone()].copy_from_slice(x);
                for ((x, m), derivative) in x.iter_mut().zip(model_output).zip(&mut self.derivative[block]) {
                    *derivative = (*x - clamp(image_of(*x, *m), low, high)) / sigma;
                    *x += *derivative * change;
                }
            }
        } else {
            let held = self.held_sample.iter().zip(&self.derivative);
            for ((x, m), (held, first)) in x.iter_mut().zip(model_output).zip(held) {
                let second = (*x - clamp(image_of(*x, *m), low, high)) / next;
                *x = held + (first + second) / 2.0 * change;
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step.div_ceil(2)], x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.prediction, step, model_output, x, out);
    }
}
