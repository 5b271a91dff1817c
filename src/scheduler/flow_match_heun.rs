//! Heun's method on a rectified flow.

use super::churn::{self, Churn};
use super::config::{SchedulerKey, keys};
use super::sample::{PredictionType, blocks, predict_x0};
use super::settings::SchedulerSettings;
use super::sigma_schedule::interleave;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry, flow};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "flow-match-heun",
    class: "FlowMatchHeunDiscreteScheduler",
    aliases: &[],
    order: 2,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Heun's second-order method for rectified flows: two evaluations per step.",
    keys: &keys::joined::<6>(&[keys::NUM_TRAIN_TIMESTEPS, SchedulerKey::float("shift", 1.0)], &churn::KEYS),
    build,
};

#[derive(Debug)]
struct FlowMatchHeun {
    timesteps: Vec<f64>,
    /// One per step, and a zero at the end.
    sigmas: Vec<f32>,
    churn: Churn,
    /// The `dt` of the current step, set by its first evaluation.
    dt: f32,
    sample: Vec<f32>,
    derivative: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")? as f32;
    let factor = settings.float("shift")?;
    let unshifted = flow::training_range_sigmas(settings, request.steps, true)?;
    let mut sigmas: Vec<f32> = unshifted.into_iter().map(|s| flow::shift(factor, s) as f32).collect();
    let timesteps: Vec<f64> = sigmas.iter().map(|s| f64::from(s * train)).collect();
    sigmas.push(0.0);
    Ok(Box::new(FlowMatchHeun {
        timesteps: interleave(timesteps[0], timesteps.iter().skip(1).map(|t| (*t, *t))),
        churn: Churn::from_settings(settings, 2 * timesteps.len() - 1)?,
        dt: 0.0,
        sigmas,
        sample: Vec::new(),
        derivative: Vec::new(),
    }))
}

impl Scheduler for FlowMatchHeun {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn order(&self) -> usize {
        2
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let (sigma, next) = (self.sigmas[step / 2], self.sigmas[step / 2 + 1]);
        let sigma_hat = self.churn.add_noise(sigma, x, noise);
        // The model output is the derivative; computing it by way of x0 rounds as diffusers does.
        if step.is_multiple_of(2) {
            self.dt = next - sigma_hat;
            self.sample.resize(x.len(), 0.0);
            self.derivative.resize(x.len(), 0.0);
            for block in blocks(x.len()) {
                let (x, model_output) = (&mut x[block.clone()], &model_output[block.clone()]);
                self.sample[block.clone()].copy_from_slice(x);
                for ((x, m), derivative) in x.iter_mut().zip(model_output).zip(&mut self.derivative[block]) {
                    let denoised = *x - m * sigma;
                    *derivative = (*x - denoised) / sigma_hat;
                    *x += *derivative * self.dt;
                }
            }
        } else {
            let saved = self.sample.iter().zip(&self.derivative);
            for ((x, m), (sample, first)) in x.iter_mut().zip(model_output).zip(saved) {
                let denoised = *x - m * next;
                let second = (*x - denoised) / next;
                *x = sample + 0.5 * (first + second) * self.dt;
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        flow::add_noise(self.sigmas[step.div_ceil(2)], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, PredictionType::Flow, step, model_output, x, out);
    }
}
