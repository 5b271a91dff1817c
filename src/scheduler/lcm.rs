//! Sampling of latent consistency models: Luo et al. 2023, "Latent Consistency Models", algorithm 3.

use super::config::Settings;
use super::sample::{Bounds, Prediction, add_noise, at_timestep, clamp, estimate};
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry, consistency, noise};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "lcm",
    class: "LCMScheduler",
    aliases: &[],
    order: 1,
    stochastic: true,
    inverse: false,
    accepts: Accepts::TIMESTEPS,
    about: "For latent consistency models and LCM-LoRA: 2 to 8 steps.",
    keys: &consistency::KEYS,
    build,
};

/// The noise levels of one step.
#[derive(Debug, Clone, Copy)]
struct Level {
    alpha: f32,
    next_alpha: f32,
    skip: f32,
    out: f32,
}

#[derive(Debug)]
struct Lcm {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    prediction: Prediction,
    bounds: Bounds,
    denoised: Vec<f32>,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let alphas = noise::alphas_cumprod(settings)?;
    let timesteps = consistency::timesteps(settings, request)?;
    let scaling = settings.float("timestep_scaling")? as f32;
    let mut levels = Vec::with_capacity(timesteps.len());
    for (i, t) in timesteps.iter().enumerate() {
        let next = timesteps.get(i + 1).unwrap_or(t);
        // The boundary condition of equation 5 with a data deviation of one half.
        let scaled = *t as f32 * scaling;
        let variance = scaled * scaled + 0.25;
        levels.push(Level {
            alpha: at_timestep(settings, &alphas, *t as i64)?,
            next_alpha: at_timestep(settings, &alphas, *next as i64)?,
            skip: 0.25 / variance,
            out: scaled / variance.sqrt(),
        });
    }
    Ok(Box::new(Lcm {
        timesteps,
        levels,
        prediction: Prediction::from_settings(settings)?,
        bounds: Bounds::from_settings(settings, request.images)?,
        denoised: Vec::new(),
        drawn: Vec::new(),
    }))
}

impl Scheduler for Lcm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Level { alpha, next_alpha, skip, out } = self.levels[step];
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let prediction = self.prediction;
        let last = step + 1 == self.levels.len();
        if !last {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
        }
        let (next_signal, next_sigma) = (next_alpha.sqrt(), (1.0 - next_alpha).sqrt());
        let denoised_of = |x: f32, m: f32| match prediction {
            Prediction::Sample => m,
            Prediction::Velocity => signal * x - sigma * m,
            Prediction::Epsilon | Prediction::Flow => (x - sigma * m) / signal,
        };
        for (block, model_output) in self.bounds.blocks(x.len(), model_output) {
            let x = &mut x[block.clone()];
            if let Some(limit) = self.bounds.limit() {
                for (x, m) in x.iter_mut().zip(model_output) {
                    *x = out * clamp(denoised_of(*x, *m), -limit, limit) + skip * *x;
                }
            } else {
                self.denoised.resize(x.len(), 0.0);
                for ((denoised, x), m) in self.denoised.iter_mut().zip(x.iter()).zip(model_output) {
                    *denoised = denoised_of(*x, *m);
                }
                self.bounds.apply(&mut self.denoised);
                for (x, denoised) in x.iter_mut().zip(&self.denoised) {
                    *x = out * denoised + skip * *x;
                }
            }
            if !last {
                for (x, drawn) in x.iter_mut().zip(&self.drawn[block]) {
                    *x = next_signal * *x + next_sigma * drawn;
                }
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        add_noise(self.levels[step].alpha, x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.prediction, step, model_output, x, out);
    }
}
