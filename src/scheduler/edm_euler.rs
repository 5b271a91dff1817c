//! Euler's method for EDM's networks: Karras et al. 2022, algorithm 2 without its second-order correction.

use super::churn::{self, Churn};
use super::config::{Settings, keys};
use super::edm::{self, Scalings};
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "edm-euler",
    class: "EDMEulerScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "Euler's method for networks with EDM's scalings.",
    keys: &keys::joined::<12>(&edm::KEYS, &churn::KEYS),
    build,
};

#[derive(Debug)]
struct EdmEuler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    initial: f64,
    scalings: Scalings,
    churn: Churn,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let mut levels = edm::sigmas(settings, request.steps, true)?;
    let timesteps = edm::timesteps(&levels);
    let last = if settings.choice("final_sigmas_type")? == "zero" { 0.0 } else { levels[levels.len() - 1] };
    levels.push(last);
    Ok(Box::new(EdmEuler {
        timesteps,
        initial: edm::initial(settings)?,
        scalings: Scalings::from_settings(settings)?,
        churn: Churn::from_settings(settings, levels.len() - 1)?,
        sigmas: levels,
    }))
}

impl Scheduler for EdmEuler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        self.initial
    }

    fn scale_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        self.scalings.scale_input(self.sigmas[step], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let sigma = self.sigmas[step];
        let raised = self.churn.raise(sigma, x, noise);
        let image_of = self.scalings.image_of(raised);
        let change = self.sigmas[step + 1] - raised;
        for (x, m) in x.iter_mut().zip(model_output) {
            let derivative = (*x - image_of(*x, *m)) / raised;
            *x += derivative * change;
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        self.scalings.estimate(self.sigmas[step], model_output, x, out);
    }
}
