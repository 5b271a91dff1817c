//! Sampling of latent consistency models: Luo et al. 2023, "Latent Consistency Models", algorithm 3.

use super::sample::{Bounds, PredictionType, add_noise, clamp, lookup_timestep, predict_x0};
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry, betas, consistency};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "lcm",
    class: "LCMScheduler",
    aliases: &[],
    order: 1,
    stochastic: true,
    inverse: false,
    custom_schedules: CustomScheduleSupport::TIMESTEPS,
    about: "For latent consistency models and LCM-LoRA: 2 to 8 steps.",
    keys: &consistency::KEYS,
    build,
};

/// The cumulative alphas and boundary-condition scalings of one step.
#[derive(Debug, Clone, Copy)]
struct LcmStep {
    alpha_prod_t: f32,
    alpha_prod_t_prev: f32,
    c_skip: f32,
    c_out: f32,
}

#[derive(Debug)]
struct Lcm {
    timesteps: Vec<f64>,
    steps: Vec<LcmStep>,
    prediction_type: PredictionType,
    bounds: Bounds,
    denoised: Vec<f32>,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let alphas = betas::alphas_cumprod(settings)?;
    let timesteps = consistency::timesteps(settings, request)?;
    let scaling = settings.float("timestep_scaling")? as f32;
    let mut steps = Vec::with_capacity(timesteps.len());
    for (i, t) in timesteps.iter().enumerate() {
        let next = timesteps.get(i + 1).unwrap_or(t);
        // The boundary condition of equation 5 with sigma_data = 0.5.
        let scaled = *t as f32 * scaling;
        let variance = scaled * scaled + 0.25;
        steps.push(LcmStep {
            alpha_prod_t: lookup_timestep(settings, &alphas, *t as i64)?,
            alpha_prod_t_prev: lookup_timestep(settings, &alphas, *next as i64)?,
            c_skip: 0.25 / variance,
            c_out: scaled / variance.sqrt(),
        });
    }
    Ok(Box::new(Lcm {
        timesteps,
        steps,
        prediction_type: PredictionType::from_settings(settings)?,
        bounds: Bounds::from_settings(settings, request.images)?,
        denoised: Vec::new(),
        noise: Vec::new(),
    }))
}

impl Scheduler for Lcm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let LcmStep { alpha_prod_t, alpha_prod_t_prev, c_skip, c_out } = self.steps[step];
        let (signal, sigma) = (alpha_prod_t.sqrt(), (1.0 - alpha_prod_t).sqrt());
        let prediction_type = self.prediction_type;
        let last = step + 1 == self.steps.len();
        if !last {
            self.noise.resize(x.len(), 0.0);
            noise.fill(&mut self.noise);
        }
        let (next_signal, next_sigma) = (alpha_prod_t_prev.sqrt(), (1.0 - alpha_prod_t_prev).sqrt());
        let predict_x0 = |x: f32, m: f32| match prediction_type {
            PredictionType::Sample => m,
            PredictionType::Velocity => signal * x - sigma * m,
            PredictionType::Epsilon | PredictionType::Flow => (x - sigma * m) / signal,
        };
        for (block, model_output) in self.bounds.blocks(x.len(), model_output) {
            let x = &mut x[block.clone()];
            if let Some(limit) = self.bounds.limit() {
                for (x, m) in x.iter_mut().zip(model_output) {
                    *x = c_out * clamp(predict_x0(*x, *m), -limit, limit) + c_skip * *x;
                }
            } else {
                self.denoised.resize(x.len(), 0.0);
                for ((denoised, x), m) in self.denoised.iter_mut().zip(x.iter()).zip(model_output) {
                    *denoised = predict_x0(*x, *m);
                }
                self.bounds.apply(&mut self.denoised);
                for (x, denoised) in x.iter_mut().zip(&self.denoised) {
                    *x = c_out * denoised + c_skip * *x;
                }
            }
            if !last {
                for (x, noise) in x.iter_mut().zip(&self.noise[block]) {
                    *x = next_signal * *x + next_sigma * noise;
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
