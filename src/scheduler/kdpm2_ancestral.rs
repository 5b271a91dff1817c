//! k-diffusion's `sample_dpm_2_ancestral`: the midpoint method to below the target, and noise to reach it.

use super::config::{Settings, keys};
use super::discrete::{self, interleave};
use super::noise::{exp_f32, ln_f32};
use super::sample::{Prediction, blocks, estimate};
use super::{Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "kdpm2-ancestral",
    class: "KDPM2AncestralDiscreteScheduler",
    aliases: &[Alias::plain("DPM2 a"), Alias::plain("dpm_2_ancestral"), Alias::plain("kdpm_2_a")],
    order: 2,
    stochastic: true,
    inverse: false,
    accepts: Accepts::BOTH,
    about: "DPM-Solver-2 with fresh noise at every step.",
    keys: &keys::joined::<11>(
        &discrete::schedule_keys(0.00085, 0.012, keys::beta_schedule("linear")),
        &[keys::prediction_type(&["epsilon", "v_prediction"])],
    ),
    build,
};

/// The noise levels of one step of the user's.
#[derive(Debug, Clone, Copy)]
struct Level {
    sigma: f32,
    /// Where the first call leads to.
    middle: f32,
    /// Where the second call leads to.
    down: f32,
    /// How much noise comes on top.
    up: f32,
}

#[derive(Debug)]
struct Kdpm2Ancestral {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    initial: f32,
    prediction: Prediction,
    held_sample: Vec<f32>,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let schedule = discrete::schedule(settings, request, discrete::Karras::Whole)?;
    let last = schedule.sigmas.len() - 2;
    let levels: Vec<Level> = schedule
        .sigmas
        .windows(2)
        .enumerate()
        .map(|(i, pair)| {
            let (sigma, next) = (pair[0], pair[1]);
            let (down, up) = sigmas::ancestral(sigma, next);
            let (from, to) = (ln_f32(sigma), ln_f32(down));
            let middle = if i == last { 0.0 } else { exp_f32(to - (to - from) * 0.5) };
            Level { sigma, middle, down, up }
        })
        .collect();
    let pairs = levels.iter().zip(schedule.timesteps.iter().skip(1));
    let pairs = pairs.map(|(level, t)| (sigmas::timestep_of(f64::from(level.middle), &schedule.logs), *t));
    Ok(Box::new(Kdpm2Ancestral {
        timesteps: interleave(schedule.timesteps[0], pairs),
        levels,
        initial: schedule.initial,
        prediction: Prediction::from_settings(settings)?,
        held_sample: Vec::new(),
        drawn: Vec::new(),
    }))
}

impl Kdpm2Ancestral {
    /// The sigma of the sample that a call is given.
    fn sigma_at(&self, call: usize) -> f32 {
        let level = self.levels[call / 2];
        if call.is_multiple_of(2) { level.sigma } else { level.middle }
    }
}

impl Scheduler for Kdpm2Ancestral {
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

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Level { sigma, middle, down, up } = self.levels[step / 2];
        if step.is_multiple_of(2) {
            self.held_sample.resize(x.len(), 0.0);
            for block in blocks(x.len()) {
                let (x, model_output) = (&mut x[block.clone()], &model_output[block.clone()]);
                self.held_sample[block].copy_from_slice(x);
                sigmas::euler(self.prediction, sigma, sigma, middle - sigma, model_output, x);
            }
        } else {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
            let image_of = sigmas::image_of(self.prediction, middle, middle);
            let change = down - sigma;
            let held = self.held_sample.iter().zip(&self.drawn);
            for ((x, m), (held, drawn)) in x.iter_mut().zip(model_output).zip(held) {
                *x = held + (*x - image_of(*x, *m)) / middle * change + drawn * up;
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
