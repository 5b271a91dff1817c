//! Improved PNDM: the linear multistep method of Liu et al. 2022 without a Runge-Kutta start, for models that take an
//! angle between x0 and noise instead of a timestep.

use super::config::keys;
use super::linspace::linspace_f32;
use super::sample::{History, PredictionType, blocks, mix, predict_x0};
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry};
use crate::elementary::{atan2, sin};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "ipndm",
    class: "IPNDMScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Linear multistep of order 4 for models that take an angle instead of a timestep.",
    keys: &[keys::NUM_TRAIN_TIMESTEPS, keys::TRAINED_BETAS],
    build,
};

#[derive(Debug)]
struct Ipndm {
    timesteps: Vec<f64>,
    /// The factor of x0 at each timestep, and at the end of the run.
    alphas: Vec<f32>,
    /// The factor of noise at each timestep, and at the end of the run.
    betas: Vec<f32>,
    ets: History,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let betas: Vec<f32> = match settings.maybe_floats("trained_betas")? {
        Some(trained) if trained.len() < 2 => {
            let problem = format!("expected at least 2 values, found {}", trained.len());
            return Err(settings.error("trained_betas", problem, "set one per step, and one for the end of the run"));
        }
        Some(trained) => trained.into_iter().map(|beta| beta as f32).collect(),
        None => linspace_f32(1.0, 0.0, request.steps + 1)
            .into_iter()
            .map(|level| {
                let angle = level * std::f32::consts::PI / 2.0;
                let sine = sin(f64::from(angle)) as f32;
                sine * sine
            })
            .collect(),
    };
    let alphas: Vec<f32> = betas.iter().map(|beta| (1.0 - beta * beta).sqrt()).collect();
    let angle = |(beta, alpha): (&f32, &f32)| {
        let angle = atan2(f64::from(*beta), f64::from(*alpha)) as f32;
        f64::from(angle / std::f32::consts::PI * 2.0)
    };
    Ok(Box::new(Ipndm {
        timesteps: betas.iter().zip(&alphas).map(angle).take(betas.len() - 1).collect(),
        alphas,
        betas,
        ets: History::new(4),
    }))
}

impl Scheduler for Ipndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let (alpha, sigma) = (self.alphas[step], self.betas[step]);
        let (next_alpha, next_sigma) = (self.alphas[step + 1], self.betas[step + 1]);
        let divisor = alpha.max(1e-8);
        let advance = |x: f32, direction: f32| {
            let denoised = (x - sigma * direction) / divisor;
            next_alpha * denoised + direction * next_sigma
        };
        let weight = (1.0 / 24.0) as f32;
        let (newest, older) = self.ets.advance_with_older(x.len());
        for block in blocks(x.len()) {
            let (x, d0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            mix(sigma, x, alpha, &model_output[block.clone()], d0);
            match older {
                [] => {
                    for (x, d0) in x.iter_mut().zip(d0) {
                        *x = advance(*x, *d0);
                    }
                }
                [d1] => {
                    for ((x, d0), d1) in x.iter_mut().zip(d0).zip(&d1[block]) {
                        *x = advance(*x, (3.0 * *d0 - d1) / 2.0);
                    }
                }
                [d1, d2] => {
                    for (((x, d0), d1), d2) in x.iter_mut().zip(d0).zip(&d1[block.clone()]).zip(&d2[block]) {
                        *x = advance(*x, (23.0 * *d0 - 16.0 * d1 + 5.0 * d2) / 12.0);
                    }
                }
                [d1, d2, d3, ..] => {
                    let older = d1[block.clone()].iter().zip(&d2[block.clone()]).zip(&d3[block]);
                    for ((x, d0), ((d1, d2), d3)) in x.iter_mut().zip(d0).zip(older) {
                        *x = advance(*x, weight * (55.0 * *d0 - 59.0 * d1 + 37.0 * d2 - 9.0 * d3));
                    }
                }
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        mix(self.alphas[step], x0, self.betas[step], noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, PredictionType::Velocity, step, model_output, x, out);
    }
}
