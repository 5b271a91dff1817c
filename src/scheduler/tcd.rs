//! Strategic stochastic sampling: Zheng et al. 2024, "Trajectory Consistency Distillation", algorithm 2.

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::sample::{PredictionType, add_noise, blocks, lookup_timestep, predict_x0};
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry, betas, consistency};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "tcd",
    class: "TCDScheduler",
    aliases: &[],
    order: 1,
    stochastic: true,
    inverse: false,
    custom_schedules: CustomScheduleSupport::TIMESTEPS,
    about: "For trajectory consistency distillation: few steps; eta trades detail (0) for error correction (1).",
    keys: &keys::joined::<18>(&consistency::KEYS, &[SchedulerKey::argument("eta", SchedulerKeyKind::Float(0.3))]),
    build,
};

/// The cumulative alphas of one step: at its start, at its end, and at the timestep `s` that the model predicts before
/// noise is added.
#[derive(Debug, Clone, Copy)]
struct TcdStep {
    alpha_prod_t: f32,
    alpha_prod_t_prev: f32,
    alpha_prod_s: f32,
}

#[derive(Debug)]
struct Tcd {
    timesteps: Vec<f64>,
    steps: Vec<TcdStep>,
    prediction_type: PredictionType,
    eta: f64,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let eta = settings.float("eta")?;
    if !(0.0..=1.0).contains(&eta) {
        return Err(settings.error("eta", format!("expected 0 to 1, found {eta}"), "0.3 is usual"));
    }
    let alphas = betas::alphas_cumprod(settings)?;
    let timesteps = consistency::timesteps(settings, request)?;
    let mut steps = Vec::with_capacity(timesteps.len());
    for (i, t) in timesteps.iter().enumerate() {
        let next = timesteps.get(i + 1).copied().unwrap_or(0.0);
        let target = ((1.0 - eta) as f32 * next as f32).floor();
        steps.push(TcdStep {
            alpha_prod_t: lookup_timestep(settings, &alphas, *t as i64)?,
            alpha_prod_t_prev: lookup_timestep(settings, &alphas, next as i64)?,
            alpha_prod_s: lookup_timestep(settings, &alphas, target as i64)?,
        });
    }
    Ok(Box::new(Tcd {
        timesteps,
        steps,
        prediction_type: PredictionType::from_settings(settings)?,
        eta,
        noise: Vec::new(),
    }))
}

impl Scheduler for Tcd {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let TcdStep { alpha_prod_t, alpha_prod_t_prev, alpha_prod_s } = self.steps[step];
        let (signal, sigma) = (alpha_prod_t.sqrt(), (1.0 - alpha_prod_t).sqrt());
        let (signal_s, sigma_s) = (alpha_prod_s.sqrt(), (1.0 - alpha_prod_s).sqrt());
        let prediction_type = self.prediction_type;
        let adds_noise = self.eta > 0.0 && step + 1 < self.steps.len();
        if adds_noise {
            self.noise.resize(x.len(), 0.0);
            noise.fill(&mut self.noise);
        }
        let ratio = alpha_prod_t_prev / alpha_prod_s;
        let (keep, add) = (ratio.sqrt(), (1.0 - ratio).sqrt());
        for block in blocks(x.len()) {
            let x = &mut x[block.clone()];
            for (x, m) in x.iter_mut().zip(&model_output[block.clone()]) {
                let (x0, noise) = match prediction_type {
                    PredictionType::Sample => (*m, (*x - signal * m) / sigma),
                    PredictionType::Velocity => (signal * *x - sigma * m, signal * m + sigma * *x),
                    PredictionType::Epsilon | PredictionType::Flow => ((*x - sigma * m) / signal, *m),
                };
                *x = signal_s * x0 + sigma_s * noise;
            }
            if adds_noise {
                for (x, noise) in x.iter_mut().zip(&self.noise[block]) {
                    *x = keep * *x + add * noise;
                }
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        add_noise(self.steps[step].alpha_prod_t, x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.prediction_type, step, model_output, x, out);
    }
}
