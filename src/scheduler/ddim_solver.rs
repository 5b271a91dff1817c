//! The DDIM step (Song et al. 2021, "Denoising Diffusion Implicit Models", equation 12), from one noise level to a
//! lower or a higher one.

use super::sample::{Bounds, PredictionType, add_noise, clamp, predict_x0};
use super::settings::SchedulerSettings;
use super::{Noise, ScheduleRequest, Scheduler};
use crate::error::Result;

/// The cumulative alphas at both ends of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct DdimStep {
    /// At the start of the step.
    pub alpha_prod_t: f32,
    /// At the end of the step. diffusers calls it previous, since timesteps fall.
    pub alpha_prod_t_prev: f32,
}

/// The DDIM solver in either direction.
#[derive(Debug)]
pub(super) struct DdimSolver {
    timesteps: Vec<f64>,
    steps: Vec<DdimStep>,
    prediction_type: PredictionType,
    bounds: Bounds,
    /// The added noise as a fraction of DDPM's. `None` for a class without the key, which adds none even if DDPM's
    /// noise is infinite.
    eta: Option<f32>,
    /// True if the noise direction is recomputed from the clipped x0, rather than taken from the model output.
    use_clipped_model_output: bool,
    denoised: Vec<f32>,
    noise: Vec<f32>,
}

impl DdimSolver {
    /// Reads the prediction type, the clipping and, if the class has them, the arguments of its `step()`.
    ///
    /// # Errors
    /// An unknown value.
    pub(super) fn from_settings(
        settings: &SchedulerSettings,
        request: &ScheduleRequest,
        timesteps: Vec<f64>,
        steps: Vec<DdimStep>,
    ) -> Result<Self> {
        Ok(Self {
            timesteps,
            steps,
            prediction_type: PredictionType::from_settings(settings)?,
            bounds: Bounds::from_settings(settings, request.images)?,
            eta: settings.has("eta").then(|| settings.float("eta")).transpose()?.map(|eta| eta as f32),
            use_clipped_model_output: settings.switch("use_clipped_model_output")?,
            denoised: Vec::new(),
            noise: Vec::new(),
        })
    }

    /// Moves `x`, a mix of x0 and noise with the weights `[signal, sigma]`, to the weights `next_weights`. Clipping x0
    /// does not change the predicted noise unless `use_clipped_model_output` is on.
    fn move_to_weights(
        &mut self,
        [signal, sigma]: [f32; 2],
        next_weights: [f32; 2],
        model_output: &[f32],
        x: &mut [f32],
        predict_x0: impl Fn(f32, f32) -> f32,
        predict_epsilon: impl Fn(f32, f32) -> f32,
    ) {
        if self.use_clipped_model_output {
            self.mix(next_weights, model_output, x, predict_x0, |x, _, denoised| (x - signal * denoised) / sigma);
        } else {
            self.mix(next_weights, model_output, x, predict_x0, |x, m, _| predict_epsilon(x, m));
        }
    }

    /// Writes the mix of clipped x0 and noise with the weights `[next_signal, next_sigma]` to `x`.
    fn mix(
        &mut self,
        [next_signal, next_sigma]: [f32; 2],
        model_output: &[f32],
        x: &mut [f32],
        predict_x0: impl Fn(f32, f32) -> f32,
        predict_epsilon: impl Fn(f32, f32, f32) -> f32,
    ) {
        if let Some(limit) = self.bounds.limit() {
            for (x, m) in x.iter_mut().zip(model_output) {
                let denoised = clamp(predict_x0(*x, *m), -limit, limit);
                *x = next_signal * denoised + next_sigma * predict_epsilon(*x, *m, denoised);
            }
        } else {
            self.denoised.resize(x.len(), 0.0);
            for ((denoised, x), m) in self.denoised.iter_mut().zip(x.iter()).zip(model_output) {
                *denoised = predict_x0(*x, *m);
            }
            self.bounds.apply(&mut self.denoised);
            for ((x, m), denoised) in x.iter_mut().zip(model_output).zip(&self.denoised) {
                *x = next_signal * denoised + next_sigma * predict_epsilon(*x, *m, *denoised);
            }
        }
    }
}

impl Scheduler for DdimSolver {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let DdimStep { alpha_prod_t, alpha_prod_t_prev } = self.steps[step];
        let (signal, sigma) = (alpha_prod_t.sqrt(), (1.0 - alpha_prod_t).sqrt());
        let variance = (1.0 - alpha_prod_t_prev) / (1.0 - alpha_prod_t) * (1.0 - alpha_prod_t / alpha_prod_t_prev);
        let std_dev_t = self.eta.map_or(0.0, |eta| eta * variance.sqrt());
        let next_weights = [alpha_prod_t_prev.sqrt(), (1.0 - alpha_prod_t_prev - std_dev_t * std_dev_t).sqrt()];
        // One loop per prediction type, so that the choice is not made for every value.
        let weights = [signal, sigma];
        match self.prediction_type {
            PredictionType::Sample => {
                self.move_to_weights(weights, next_weights, model_output, x, |_, m| m, |x, m| (x - signal * m) / sigma);
            }
            PredictionType::Velocity => {
                let predict_epsilon = |x: f32, m: f32| signal * m + sigma * x;
                self.move_to_weights(
                    weights,
                    next_weights,
                    model_output,
                    x,
                    |x, m| signal * x - sigma * m,
                    predict_epsilon,
                );
            }
            PredictionType::Epsilon | PredictionType::Flow => {
                self.move_to_weights(weights, next_weights, model_output, x, |x, m| (x - sigma * m) / signal, |_, m| m);
            }
        }
        if self.eta.is_some_and(|eta| eta > 0.0) {
            self.noise.resize(x.len(), 0.0);
            noise.fill(&mut self.noise);
            for (x, noise) in x.iter_mut().zip(&self.noise) {
                *x += std_dev_t * noise;
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
