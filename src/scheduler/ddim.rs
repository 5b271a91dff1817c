//! DDIM: Song et al. 2021, "Denoising Diffusion Implicit Models".

use super::config::{Key, Kind, Settings, keys};
use super::sample::{Bounds, Prediction, add_noise, at_timestep, clamp};
use super::{Accepts, Entry, Noise, Request, Scheduler, noise, spacing};
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry {
    name: "ddim",
    class: "DDIMScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    accepts: Accepts::NOTHING,
    about: "Denoising diffusion implicit models: deterministic, or stochastic with eta above 0.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        Key::switch("clip_sample", true),
        Key::switch("set_alpha_to_one", true),
        keys::STEPS_OFFSET,
        keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        Key::float("clip_sample_range", 1.0),
        keys::SAMPLE_MAX_VALUE,
        keys::timestep_spacing_or_compvis("leading"),
        keys::RESCALE_BETAS_ZERO_SNR,
        Key::argument("eta", Kind::Float(0.0)),
    ],
    build,
};

/// The noise levels a step lies between.
#[derive(Debug, Clone, Copy)]
struct Level {
    alpha: f32,
    previous_alpha: f32,
}

#[derive(Debug)]
struct Ddim {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    prediction: Prediction,
    bounds: Bounds,
    eta: f32,
    picture: Vec<f32>,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &Request) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")?;
    if request.steps > train {
        let problem = format!("{} steps are more than the {train} timesteps of training", request.steps);
        return Err(settings.error("steps", problem, "ask for fewer"));
    }
    let alphas = noise::alphas_cumprod(settings)?;
    let final_alpha = if settings.switch("set_alpha_to_one")? { 1.0 } else { at_timestep(settings, &alphas, 0)? };
    let timesteps = spacing::timesteps(settings, request, true)?;
    let ratio = (train / request.steps) as i64;
    let levels = timesteps
        .iter()
        .map(|t| {
            let (t, previous) = (*t as i64, *t as i64 - ratio);
            Ok(Level {
                alpha: at_timestep(settings, &alphas, t)?,
                previous_alpha: if previous >= 0 { at_timestep(settings, &alphas, previous)? } else { final_alpha },
            })
        })
        .collect::<Result<_>>()?;
    Ok(Box::new(Ddim {
        timesteps,
        levels,
        prediction: Prediction::from_settings(settings)?,
        bounds: Bounds::from_settings(settings, request.images)?,
        eta: settings.float("eta")? as f32,
        picture: Vec::new(),
        drawn: Vec::new(),
    }))
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Level { alpha, previous_alpha } = self.levels[step];
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let variance = (1.0 - previous_alpha) / (1.0 - alpha) * (1.0 - alpha / previous_alpha);
        let deviation = self.eta * variance.sqrt();
        let towards_picture = previous_alpha.sqrt();
        let towards_noise = (1.0 - previous_alpha - deviation * deviation).sqrt();
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
        if let Some(limit) = self.bounds.limit() {
            for (x, m) in x.iter_mut().zip(model_output) {
                let picture = clamp(picture_of(*x, *m), -limit, limit);
                *x = towards_picture * picture + towards_noise * noise_of(*x, *m);
            }
        } else {
            self.picture.resize(x.len(), 0.0);
            for ((picture, x), m) in self.picture.iter_mut().zip(x.iter()).zip(model_output) {
                *picture = picture_of(*x, *m);
            }
            self.bounds.apply(&mut self.picture);
            for ((x, m), picture) in x.iter_mut().zip(model_output).zip(&self.picture) {
                *x = towards_picture * picture + towards_noise * noise_of(*x, *m);
            }
        }
        if self.eta > 0.0 {
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
