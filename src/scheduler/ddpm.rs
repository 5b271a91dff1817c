//! DDPM: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with the variances of Nichol and Dhariwal 2021.

use super::config::{Key, Kind, Settings, keys};
use super::noise::{exp_f32, ln_f32};
use super::sample::{Bounds, Prediction, add_noise, at_timestep, clamp, estimate};
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry, noise, spacing};
use crate::error::{Error, Result};

const NAME: &str = "ddpm";

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: NAME,
    class: "DDPMScheduler",
    aliases: &[],
    order: 1,
    stochastic: true,
    inverse: false,
    accepts: Accepts::TIMESTEPS,
    about: "Ancestral sampling of the diffusion model as it was trained; wants many steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        Key::choice("beta_schedule", "linear", &["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"]),
        keys::TRAINED_BETAS,
        Key::new(
            "variance_type",
            Kind::Choice {
                default: "fixed_small",
                valid: &["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"],
                foreign: &[],
            },
        ),
        Key::switch("clip_sample", true),
        keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        Key::float("clip_sample_range", 1.0),
        keys::SAMPLE_MAX_VALUE,
        keys::timestep_spacing("leading"),
        keys::STEPS_OFFSET,
        keys::RESCALE_BETAS_ZERO_SNR,
    ],
    build,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variance {
    FixedSmall,
    FixedSmallLog,
    FixedLarge,
    Learned,
    LearnedRange,
}

/// The noise levels a step lies between.
#[derive(Debug, Clone, Copy)]
struct Level {
    alpha: f32,
    previous_alpha: f32,
    draws: bool,
}

#[derive(Debug)]
struct Ddpm {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    prediction: Prediction,
    variance: Variance,
    bounds: Bounds,
    images: usize,
    denoised: Vec<f32>,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")?;
    settings.limit_steps(request.steps, train)?;
    let alphas = noise::alphas_cumprod(settings)?;
    let timesteps = spacing::timesteps(settings, request, true)?;
    let mut levels = Vec::with_capacity(timesteps.len());
    for (i, t) in timesteps.iter().enumerate() {
        let previous = timesteps.get(i + 1).map_or(-1, |t| *t as i64);
        levels.push(Level {
            alpha: at_timestep(settings, &alphas, *t as i64)?,
            previous_alpha: if previous >= 0 { at_timestep(settings, &alphas, previous)? } else { 1.0 },
            draws: *t > 0.0,
        });
    }
    let variance = match settings.choice("variance_type")? {
        "fixed_small_log" => Variance::FixedSmallLog,
        "fixed_large" => Variance::FixedLarge,
        "learned" => Variance::Learned,
        "learned_range" => Variance::LearnedRange,
        _ => Variance::FixedSmall,
    };
    Ok(Box::new(Ddpm {
        timesteps,
        levels,
        prediction: Prediction::from_settings(settings)?,
        variance,
        bounds: Bounds::from_settings(settings, request.images)?,
        images: request.images.max(1),
        denoised: Vec::new(),
        drawn: Vec::new(),
    }))
}

impl Ddpm {
    /// Adds the step's noise to `x`, its size what the model or the schedule says.
    fn diffuse(&self, level: Level, variances: Option<&[f32]>, split: usize, x: &mut [f32]) -> Result<()> {
        let current_beta = 1.0 - level.alpha / level.previous_alpha;
        // The first step of a run may have a variance of zero, and its logarithm is taken.
        let posterior = ((1.0 - level.previous_alpha) / (1.0 - level.alpha) * current_beta).max(1e-20);
        let by = |deviation: f32, x: &mut [f32]| {
            for (x, drawn) in x.iter_mut().zip(&self.drawn) {
                *x += deviation * drawn;
            }
        };
        let missing = || Error::Scheduler {
            scheduler: NAME,
            key: "variance_type".to_owned(),
            problem: "the variances are to be learned ones, but the model's output has no channels for them".to_owned(),
            help: "set variance_type = \"fixed_small\"".to_owned(),
        };
        match self.variance {
            Variance::FixedSmall => by(posterior.sqrt(), x),
            Variance::FixedSmallLog => by(exp_f32(0.5 * ln_f32(posterior)), x),
            Variance::FixedLarge => by(current_beta.sqrt(), x),
            Variance::Learned => {
                let variances = variances.ok_or_else(missing)?;
                for ((x, drawn), v) in halves(x, &self.drawn, variances, split) {
                    *x += v.sqrt() * drawn;
                }
            }
            Variance::LearnedRange => {
                let variances = variances.ok_or_else(missing)?;
                let (low, high) = (ln_f32(posterior), ln_f32(current_beta));
                for ((x, drawn), v) in halves(x, &self.drawn, variances, split) {
                    let fraction = (v + 1.0) / 2.0;
                    let log = fraction * high + (1.0 - fraction) * low;
                    *x += (0.5 * log).exp() * drawn;
                }
            }
        }
        Ok(())
    }
}

/// Walks the images of a batch together with the second halves of the model's answers.
fn halves<'a>(
    x: &'a mut [f32],
    drawn: &'a [f32],
    output: &'a [f32],
    split: usize,
) -> impl Iterator<Item = ((&'a mut f32, &'a f32), &'a f32)> {
    let variances = output.chunks(2 * split).flat_map(move |output| output.iter().skip(split));
    x.iter_mut().zip(drawn).zip(variances)
}

impl Scheduler for Ddpm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let level = self.levels[step];
        let Level { alpha, previous_alpha, draws } = level;
        let size = (x.len() / self.images).max(1);
        let learned = matches!(self.variance, Variance::Learned | Variance::LearnedRange);
        let doubled = learned && model_output.len() == 2 * x.len();
        // Where the model predicts variances, they are the second half of each image's answer.
        let stride = if doubled { 2 * size } else { size };

        let current_alpha = alpha / previous_alpha;
        let current_beta = 1.0 - current_alpha;
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let prediction = self.prediction;
        let denoised_of = |x: f32, m: f32| match prediction {
            Prediction::Sample => m,
            Prediction::Velocity => signal * x - sigma * m,
            Prediction::Epsilon | Prediction::Flow => (x - sigma * m) / signal,
        };
        let from_denoised = previous_alpha.sqrt() * current_beta / (1.0 - alpha);
        let from_sample = current_alpha.sqrt() * (1.0 - previous_alpha) / (1.0 - alpha);
        let answers = model_output.chunks(stride);
        if let Some(limit) = self.bounds.limit() {
            for (x, m) in x.chunks_mut(size).zip(answers) {
                for (x, m) in x.iter_mut().zip(m) {
                    let denoised = clamp(denoised_of(*x, *m), -limit, limit);
                    *x = from_denoised * denoised + from_sample * *x;
                }
            }
        } else {
            self.denoised.resize(x.len(), 0.0);
            for ((denoised, x), m) in self.denoised.chunks_mut(size).zip(x.chunks(size)).zip(answers) {
                for ((denoised, x), m) in denoised.iter_mut().zip(x).zip(m) {
                    *denoised = denoised_of(*x, *m);
                }
            }
            self.bounds.apply(&mut self.denoised);
            for (x, denoised) in x.iter_mut().zip(&self.denoised) {
                *x = from_denoised * denoised + from_sample * *x;
            }
        }
        if draws {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
            self.diffuse(level, doubled.then_some(model_output), size, x)?;
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
