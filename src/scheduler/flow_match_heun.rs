//! Heun's method on a rectified flow.

use super::churn::{self, Churn};
use super::config::{Key, Settings, keys};
use super::discrete::interleave;
use super::sample::{Prediction, blocks, estimate};
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry, flow};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "flow-match-heun",
    class: "FlowMatchHeunDiscreteScheduler",
    aliases: &[],
    order: 2,
    stochastic: false,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "Heun's second-order method for rectified flows: two calls a step.",
    keys: &keys::joined::<6>(&[keys::NUM_TRAIN_TIMESTEPS, Key::float("shift", 1.0)], &churn::KEYS),
    build,
};

#[derive(Debug)]
struct FlowMatchHeun {
    timesteps: Vec<f64>,
    /// One a step of the user's, and the zero at the end.
    sigmas: Vec<f32>,
    churn: Churn,
    /// From one sigma to the next, as the first call of a step found it.
    change: f32,
    held_sample: Vec<f32>,
    derivative: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")? as f32;
    let factor = settings.float("shift")?;
    let fractions = flow::fractions(settings, request.steps, true)?;
    let mut levels: Vec<f32> = fractions.into_iter().map(|s| flow::shift(factor, s) as f32).collect();
    let timesteps: Vec<f64> = levels.iter().map(|s| f64::from(s * train)).collect();
    levels.push(0.0);
    Ok(Box::new(FlowMatchHeun {
        timesteps: interleave(timesteps[0], timesteps.iter().skip(1).map(|t| (*t, *t))),
        churn: Churn::from_settings(settings, 2 * timesteps.len() - 1)?,
        change: 0.0,
        sigmas: levels,
        held_sample: Vec::new(),
        derivative: Vec::new(),
    }))
}

impl Scheduler for FlowMatchHeun {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn order(&self) -> usize {
        2
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let (sigma, next) = (self.sigmas[step / 2], self.sigmas[step / 2 + 1]);
        let raised = self.churn.raise(sigma, x, noise);
        // The model's answer is the derivative; it goes by way of the image to round as diffusers does.
        if step.is_multiple_of(2) {
            self.change = next - raised;
            self.held_sample.resize(x.len(), 0.0);
            self.derivative.resize(x.len(), 0.0);
            for block in blocks(x.len()) {
                let (x, model_output) = (&mut x[block.clone()], &model_output[block.clone()]);
                self.held_sample[block.clone()].copy_from_slice(x);
                for ((x, m), derivative) in x.iter_mut().zip(model_output).zip(&mut self.derivative[block]) {
                    let image = *x - m * sigma;
                    *derivative = (*x - image) / raised;
                    *x += *derivative * self.change;
                }
            }
        } else {
            let held = self.held_sample.iter().zip(&self.derivative);
            for ((x, m), (held, first)) in x.iter_mut().zip(model_output).zip(held) {
                let image = *x - m * next;
                let second = (*x - image) / next;
                *x = held + 0.5 * (first + second) * self.change;
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        flow::add_noise(self.sigmas[step.div_ceil(2)], x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, Prediction::Flow, step, model_output, x, out);
    }
}
