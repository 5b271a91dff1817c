//! The step of denoising diffusion implicit models (Song et al. 2021, "Denoising Diffusion Implicit Models", equation
//! 12), from one noise level to another, whichever of them is the noisier.

use super::config::Settings;
use super::sample::{Bounds, Prediction, add_noise, clamp};
use super::{Noise, Request, Scheduler};
use crate::error::Result;

/// The noise levels a step lies between, as how much of the picture is left.
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
    /// Whether the noise in the sample is what remains of it beside the bounded picture, and not what the model says.
    clipped_output: bool,
    picture: Vec<f32>,
    drawn: Vec<f32>,
}

impl Implicit {
    /// Reads the prediction, the bounds and, where the class has them, the arguments of its `step()`.
    ///
    /// # Errors
    /// A value that nobody knows.
    pub(super) fn from_settings(
        settings: &Settings,
        request: &Request,
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
            picture: Vec::new(),
            drawn: Vec::new(),
        })
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
        let towards_picture = next_alpha.sqrt();
        let towards_noise = (1.0 - next_alpha - deviation * deviation).sqrt();
        let prediction = self.prediction;
        let picture_of = |x: f32, m: f32| match prediction {
            Prediction::Sample => m,
            Prediction::Velocity => signal * x - sigma * m,
            Prediction::Epsilon | Prediction::Flow => (x - sigma * m) / signal,
        };
        // Bounding the picture leaves the direction towards the noise as the model gave it.
        let noise_of = |x: f32, m: f32| match prediction {
            Prediction::Sample => (x - signal * m) / sigma,
            Prediction::Velocity => signal * m + sigma * x,
            Prediction::Epsilon | Prediction::Flow => m,
        };
        let clipped_output = self.clipped_output;
        let next = |x: f32, m: f32, picture: f32| {
            let noise = if clipped_output { (x - signal * picture) / sigma } else { noise_of(x, m) };
            towards_picture * picture + towards_noise * noise
        };
        if let Some(limit) = self.bounds.limit() {
            for (x, m) in x.iter_mut().zip(model_output) {
                *x = next(*x, *m, clamp(picture_of(*x, *m), -limit, limit));
            }
        } else {
            self.picture.resize(x.len(), 0.0);
            for ((picture, x), m) in self.picture.iter_mut().zip(x.iter()).zip(model_output) {
                *picture = picture_of(*x, *m);
            }
            self.bounds.apply(&mut self.picture);
            for ((x, m), picture) in x.iter_mut().zip(model_output).zip(&self.picture) {
                *x = next(*x, *m, *picture);
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
}
