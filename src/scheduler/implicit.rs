//! The step of denoising diffusion implicit models (Song et al. 2021, "Denoising Diffusion Implicit Models", equation
//! 12), from one noise level to another, whichever of them is the noisier.

use super::config::Settings;
use super::sample::{Bounds, Prediction, add_noise, clamp, estimate};
use super::{Noise, ScheduleRequest, Scheduler};
use crate::error::Result;

/// The noise levels a step lies between, as how much of the image is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    /// Where the step begins.
    pub alpha: f32,
    /// Where it ends.
    pub next_alpha: f32,
}

/// A run of steps between given levels.
#[derive(Debug)]
pub(super) struct Implicit {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    prediction: Prediction,
    bounds: Bounds,
    /// The noise of a step, as a share of DDPM's; a class without the key has none, also where DDPM's is infinite.
    eta: Option<f32>,
    /// Whether the noise in the sample is what remains of it beside the bounded image, and not what the model says.
    clipped_output: bool,
    denoised: Vec<f32>,
    drawn: Vec<f32>,
}

impl Implicit {
    /// Reads the prediction, the bounds and, where the class has them, the arguments of its `step()`.
    ///
    /// # Errors
    /// A value that nobody knows.
    pub(super) fn from_settings(
        settings: &Settings,
        request: &ScheduleRequest,
        timesteps: Vec<f64>,
        levels: Vec<Level>,
    ) -> Result<Self> {
        Ok(Self {
            timesteps,
            levels,
            prediction: Prediction::from_settings(settings)?,
            bounds: Bounds::from_settings(settings, request.images)?,
            eta: settings.has("eta").then(|| settings.float("eta")).transpose()?.map(|eta| eta as f32),
            clipped_output: settings.switch("use_clipped_model_output")?,
            denoised: Vec::new(),
            drawn: Vec::new(),
        })
    }
}

impl Implicit {
    /// Moves `x`, which holds image and noise with the weights `levels`, to where it holds them with the weights
    /// `towards`, given what sample and answer say of the two. Bounding the image leaves the noise as the model gave
    /// it, unless it is to be what remains beside the image.
    fn follow(
        &mut self,
        levels: [f32; 2],
        towards: [f32; 2],
        model_output: &[f32],
        x: &mut [f32],
        denoised_of: impl Fn(f32, f32) -> f32,
        noise_of: impl Fn(f32, f32) -> f32,
    ) {
        let [signal, sigma] = levels;
        if self.clipped_output {
            self.mix(towards, model_output, x, denoised_of, |x, _, denoised| (x - signal * denoised) / sigma);
        } else {
            self.mix(towards, model_output, x, denoised_of, |x, m, _| noise_of(x, m));
        }
    }

    /// Writes to `x` the mix of bounded image and noise with the weights `towards`.
    fn mix(
        &mut self,
        [towards_denoised, towards_noise]: [f32; 2],
        model_output: &[f32],
        x: &mut [f32],
        denoised_of: impl Fn(f32, f32) -> f32,
        noise_of: impl Fn(f32, f32, f32) -> f32,
    ) {
        if let Some(limit) = self.bounds.limit() {
            for (x, m) in x.iter_mut().zip(model_output) {
                let denoised = clamp(denoised_of(*x, *m), -limit, limit);
                *x = towards_denoised * denoised + towards_noise * noise_of(*x, *m, denoised);
            }
        } else {
            self.denoised.resize(x.len(), 0.0);
            for ((denoised, x), m) in self.denoised.iter_mut().zip(x.iter()).zip(model_output) {
                *denoised = denoised_of(*x, *m);
            }
            self.bounds.apply(&mut self.denoised);
            for ((x, m), denoised) in x.iter_mut().zip(model_output).zip(&self.denoised) {
                *x = towards_denoised * denoised + towards_noise * noise_of(*x, *m, *denoised);
            }
        }
    }
}

impl Scheduler for Implicit {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Level { alpha, next_alpha } = self.levels[step];
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let variance = (1.0 - next_alpha) / (1.0 - alpha) * (1.0 - alpha / next_alpha);
        let deviation = self.eta.map_or(0.0, |eta| eta * variance.sqrt());
        let towards = [next_alpha.sqrt(), (1.0 - next_alpha - deviation * deviation).sqrt()];
        // A loop for each prediction, since a choice within one would be made at every value.
        let levels = [signal, sigma];
        match self.prediction {
            Prediction::Sample => {
                self.follow(levels, towards, model_output, x, |_, m| m, |x, m| (x - signal * m) / sigma);
            }
            Prediction::Velocity => {
                let noise_of = |x: f32, m: f32| signal * m + sigma * x;
                self.follow(levels, towards, model_output, x, |x, m| signal * x - sigma * m, noise_of);
            }
            Prediction::Epsilon | Prediction::Flow => {
                self.follow(levels, towards, model_output, x, |x, m| (x - sigma * m) / signal, |_, m| m);
            }
        }
        if self.eta.is_some_and(|eta| eta > 0.0) {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
            for (x, drawn) in x.iter_mut().zip(&self.drawn) {
                *x += deviation * drawn;
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
