//! Improved PNDM, the linear multistep of Liu et al. 2022 over angles between image and noise, without a
//! Runge-Kutta start.

use super::config::{Settings, keys};
use super::noise::linspace_f32;
use super::sample::{History, Prediction, blocks, estimate, mix};
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "ipndm",
    class: "IPNDMScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "Linear multistep of order 4 for models told an angle in place of a timestep.",
    keys: &[keys::NUM_TRAIN_TIMESTEPS, keys::TRAINED_BETAS],
    build,
};

#[derive(Debug)]
struct Ipndm {
    timesteps: Vec<f64>,
    /// How much of the image a level holds; one entry more than there are calls.
    alphas: Vec<f32>,
    /// How much noise a level holds.
    betas: Vec<f32>,
    directions: History,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let betas: Vec<f32> = match settings.maybe_floats("trained_betas")? {
        Some(trained) if trained.len() < 2 => {
            let problem = format!("too few values ({})", trained.len());
            return Err(settings.error("trained_betas", problem, "give one a call and one for the end"));
        }
        Some(trained) => trained.into_iter().map(|beta| beta as f32).collect(),
        None => linspace_f32(1.0, 0.0, request.steps + 1)
            .into_iter()
            .map(|level| {
                let angle = level * std::f32::consts::PI / 2.0;
                let sine = f64::from(angle).sin() as f32;
                sine * sine
            })
            .collect(),
    };
    let alphas: Vec<f32> = betas.iter().map(|beta| (1.0 - beta * beta).sqrt()).collect();
    let angle = |(beta, alpha): (&f32, &f32)| {
        let angle = f64::from(*beta).atan2(f64::from(*alpha)) as f32;
        f64::from(angle / std::f32::consts::PI * 2.0)
    };
    Ok(Box::new(Ipndm {
        timesteps: betas.iter().zip(&alphas).map(angle).take(betas.len() - 1).collect(),
        alphas,
        betas,
        directions: History::new(4),
    }))
}

impl Scheduler for Ipndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let (alpha, sigma) = (self.alphas[step], self.betas[step]);
        let (next_alpha, next_sigma) = (self.alphas[step + 1], self.betas[step + 1]);
        let divisor = alpha.max(1e-8);
        let transfer = |x: f32, direction: f32| {
            let image = (x - sigma * direction) / divisor;
            next_alpha * image + direction * next_sigma
        };
        let weight = (1.0 / 24.0) as f32;
        let (newest, older) = self.directions.advance_beside(x.len());
        for block in blocks(x.len()) {
            let (x, d0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            mix(sigma, x, alpha, &model_output[block.clone()], d0);
            match older {
                [] => {
                    for (x, d0) in x.iter_mut().zip(d0) {
                        *x = transfer(*x, *d0);
                    }
                }
                [d1] => {
                    for ((x, d0), d1) in x.iter_mut().zip(d0).zip(&d1[block]) {
                        *x = transfer(*x, (3.0 * *d0 - d1) / 2.0);
                    }
                }
                [d1, d2] => {
                    for (((x, d0), d1), d2) in x.iter_mut().zip(d0).zip(&d1[block.clone()]).zip(&d2[block]) {
                        *x = transfer(*x, (23.0 * *d0 - 16.0 * d1 + 5.0 * d2) / 12.0);
                    }
                }
                [d1, d2, d3, ..] => {
                    let older = d1[block.clone()].iter().zip(&d2[block.clone()]).zip(&d3[block]);
                    for ((x, d0), ((d1, d2), d3)) in x.iter_mut().zip(d0).zip(older) {
                        *x = transfer(*x, weight * (55.0 * *d0 - 59.0 * d1 + 37.0 * d2 - 9.0 * d3));
                    }
                }
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        mix(self.alphas[step], x0, self.betas[step], noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, Prediction::Velocity, step, model_output, x, out);
    }
}
