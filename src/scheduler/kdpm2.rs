//! k-diffusion's `sample_dpm_2`: the midpoint method with the midpoint taken on the logarithm of sigma.

use super::config::{Settings, keys};
use super::discrete::{self, interleave};
use super::noise::{exp_f32, ln_f32};
use super::sample::{Prediction, blocks, estimate};
use super::{Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "kdpm2",
    class: "KDPM2DiscreteScheduler",
    aliases: &[Alias::plain("DPM2"), Alias::plain("dpm_2")],
    order: 2,
    stochastic: false,
    inverse: false,
    accepts: Accepts::BOTH,
    about: "DPM-Solver-2 as k-diffusion has it: two calls a step, the first to its middle.",
    keys: &keys::joined::<11>(
        &discrete::schedule_keys(0.00085, 0.012, keys::beta_schedule("linear")),
        &[keys::prediction_type(&["epsilon", "v_prediction"])],
    ),
    build,
};

#[derive(Debug)]
struct Kdpm2 {
    timesteps: Vec<f64>,
    /// One a step of the user's, and the zero at the end.
    sigmas: Vec<f32>,
    /// The sigma in the middle of each step.
    middles: Vec<f32>,
    initial: f32,
    prediction: Prediction,
    held_sample: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let schedule = discrete::schedule(settings, request, discrete::Karras::Whole)?;
    let middles: Vec<f32> = schedule
        .sigmas
        .windows(2)
        .map(|pair| {
            let (from, to) = (ln_f32(pair[0]), ln_f32(pair[1]));
            exp_f32(from - (from - to) * 0.5)
        })
        .collect();
    let pairs = middles.iter().zip(schedule.timesteps.iter().skip(1));
    let pairs = pairs.map(|(sigma, t)| (sigmas::timestep_of(f64::from(*sigma), &schedule.logs), *t));
    Ok(Box::new(Kdpm2 {
        timesteps: interleave(schedule.timesteps[0], pairs),
        sigmas: schedule.sigmas,
        middles,
        initial: schedule.initial,
        prediction: Prediction::from_settings(settings)?,
        held_sample: Vec::new(),
    }))
}

impl Kdpm2 {
    /// The sigma of the sample that a call is given.
    fn sigma_at(&self, call: usize) -> f32 {
        let levels = if call.is_multiple_of(2) { &self.sigmas } else { &self.middles };
        levels[call / 2]
    }
}

impl Scheduler for Kdpm2 {
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
        sigmas::scale_input(self.sigma_at(step), x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let (sigma, middle, next) = (self.sigmas[step / 2], self.middles[step / 2], self.sigmas[step / 2 + 1]);
        if step.is_multiple_of(2) {
            self.held_sample.resize(x.len(), 0.0);
            for block in blocks(x.len()) {
                let (x, model_output) = (&mut x[block.clone()], &model_output[block.clone()]);
                self.held_sample[block].copy_from_slice(x);
                sigmas::euler(self.prediction, sigma, sigma, middle - sigma, model_output, x);
            }
        } else {
            let image_of = sigmas::image_of(self.prediction, middle, middle);
            let change = next - sigma;
            for ((x, m), held) in x.iter_mut().zip(model_output).zip(&self.held_sample) {
                *x = held + (*x - image_of(*x, *m)) / middle * change;
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigma_at(step), x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.prediction, step, model_output, x, out);
    }
}
