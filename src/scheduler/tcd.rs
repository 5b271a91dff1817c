//! Strategic stochastic sampling: Zheng et al. 2024, "Trajectory Consistency Distillation", algorithm 2.

use super::config::{Key, Kind, Settings, keys};
use super::sample::{Prediction, add_noise, at_timestep, blocks, estimate};
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry, consistency, noise};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "tcd",
    class: "TCDScheduler",
    aliases: &[],
    order: 1,
    stochastic: true,
    inverse: false,
    accepts: Accepts::TIMESTEPS,
    about: "For trajectory consistency distillation: few steps, eta between detail (0) and repair (1).",
    keys: &keys::joined::<18>(&consistency::KEYS, &[Key::argument("eta", Kind::Float(0.3))]),
    build,
};

/// The noise levels of one step: where it is, where it ends, and where the model is followed to before noise is added.
#[derive(Debug, Clone, Copy)]
struct Level {
    alpha: f32,
    next_alpha: f32,
    target_alpha: f32,
}

#[derive(Debug)]
struct Tcd {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    prediction: Prediction,
    eta: f64,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let eta = settings.float("eta")?;
    if !(0.0..=1.0).contains(&eta) {
        return Err(settings.error("eta", format!("expected 0 to 1, found {eta}"), "0.3 is usual"));
    }
    let alphas = noise::alphas_cumprod(settings)?;
    let timesteps = consistency::timesteps(settings, request)?;
    let mut levels = Vec::with_capacity(timesteps.len());
    for (i, t) in timesteps.iter().enumerate() {
        let next = timesteps.get(i + 1).copied().unwrap_or(0.0);
        let target = ((1.0 - eta) as f32 * next as f32).floor();
        levels.push(Level {
            alpha: at_timestep(settings, &alphas, *t as i64)?,
            next_alpha: at_timestep(settings, &alphas, next as i64)?,
            target_alpha: at_timestep(settings, &alphas, target as i64)?,
        });
    }
    Ok(Box::new(Tcd { timesteps, levels, prediction: Prediction::from_settings(settings)?, eta, drawn: Vec::new() }))
}

impl Scheduler for Tcd {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Level { alpha, next_alpha, target_alpha } = self.levels[step];
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (target_signal, target_sigma) = (target_alpha.sqrt(), (1.0 - target_alpha).sqrt());
        let prediction = self.prediction;
        let draws = self.eta > 0.0 && step + 1 < self.levels.len();
        if draws {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
        }
        let ratio = next_alpha / target_alpha;
        let (keep, add) = (ratio.sqrt(), (1.0 - ratio).sqrt());
        for block in blocks(x.len()) {
            let x = &mut x[block.clone()];
            for (x, m) in x.iter_mut().zip(&model_output[block.clone()]) {
                let (image, noise) = match prediction {
                    Prediction::Sample => (*m, (*x - signal * m) / sigma),
                    Prediction::Velocity => (signal * *x - sigma * m, signal * m + sigma * *x),
                    Prediction::Epsilon | Prediction::Flow => ((*x - sigma * m) / signal, *m),
                };
                *x = target_signal * image + target_sigma * noise;
            }
            if draws {
                for (x, drawn) in x.iter_mut().zip(&self.drawn[block]) {
                    *x = keep * *x + add * drawn;
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
