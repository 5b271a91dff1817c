//! Euler's method for networks with EDM's scalings: Karras et al. 2022, algorithm 2 without its second-order
//! correction.

use super::churn::{self, Churn};
use super::config::keys;
use super::edm::{self, Scalings};
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "edm-euler",
    class: "EDMEulerScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Euler's method for networks with EDM's scalings.",
    keys: &keys::joined::<12>(&edm::KEYS, &churn::KEYS),
    build,
};

#[derive(Debug)]
struct EdmEuler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f64,
    scalings: Scalings,
    churn: Churn,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let mut sigmas = edm::sigmas(settings, request.steps, true)?;
    let timesteps = edm::timesteps(&sigmas);
    let last = if settings.choice("final_sigmas_type")? == "zero" { 0.0 } else { sigmas[sigmas.len() - 1] };
    sigmas.push(last);
    Ok(Box::new(EdmEuler {
        timesteps,
        init_noise_sigma: edm::init_noise_sigma(settings)?,
        scalings: Scalings::from_settings(settings)?,
        churn: Churn::from_settings(settings, sigmas.len() - 1)?,
        sigmas,
    }))
}

impl Scheduler for EdmEuler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_model_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        self.scalings.scale_model_input(self.sigmas[step], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let sigma = self.sigmas[step];
        let sigma_hat = self.churn.add_noise(sigma, x, noise);
        let predict_x0 = self.scalings.x0_predictor(sigma_hat);
        let dt = self.sigmas[step + 1] - sigma_hat;
        for (x, m) in x.iter_mut().zip(model_output) {
            let derivative = (*x - predict_x0(*x, *m)) / sigma_hat;
            *x += derivative * dt;
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        self.scalings.predict_x0(self.sigmas[step], model_output, x, out);
    }
}
