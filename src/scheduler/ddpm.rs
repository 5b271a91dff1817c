//! DDPM: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with the variances of Nichol and Dhariwal 2021.

use super::betas::{exp_f32, ln_f32};
use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::sample::{Bounds, PredictionType, add_noise, clamp, lookup_timestep, predict_x0};
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry, betas, spacing};
use crate::error::{Error, Result};

const NAME: &str = "ddpm";

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: NAME,
    class: "DDPMScheduler",
    aliases: &[],
    order: 1,
    stochastic: true,
    inverse: false,
    custom_schedules: CustomScheduleSupport::TIMESTEPS,
    about: "Ancestral sampling of the diffusion model as it was trained; needs many steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        SchedulerKey::choice(
            "beta_schedule",
            "linear",
            &["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"],
        ),
        keys::TRAINED_BETAS,
        SchedulerKey::new(
            "variance_type",
            SchedulerKeyKind::Choice {
                default: "fixed_small",
                valid: &["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"],
                foreign: &[],
            },
        ),
        SchedulerKey::switch("clip_sample", true),
        keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        SchedulerKey::float("clip_sample_range", 1.0),
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

/// The cumulative alphas at both ends of a step.
#[derive(Debug, Clone, Copy)]
struct DdpmStep {
    alpha_prod_t: f32,
    alpha_prod_t_prev: f32,
    adds_noise: bool,
}

#[derive(Debug)]
struct Ddpm {
    timesteps: Vec<f64>,
    steps: Vec<DdpmStep>,
    prediction_type: PredictionType,
    variance: Variance,
    bounds: Bounds,
    images: usize,
    denoised: Vec<f32>,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")?;
    settings.limit_steps(request.steps, train)?;
    let alphas = betas::alphas_cumprod(settings)?;
    let timesteps = spacing::timesteps(settings, request, true)?;
    let mut steps = Vec::with_capacity(timesteps.len());
    for (i, t) in timesteps.iter().enumerate() {
        let prev_timestep = timesteps.get(i + 1).map_or(-1, |t| *t as i64);
        steps.push(DdpmStep {
            alpha_prod_t: lookup_timestep(settings, &alphas, *t as i64)?,
            alpha_prod_t_prev: if prev_timestep >= 0 {
                lookup_timestep(settings, &alphas, prev_timestep)?
            } else {
                1.0
            },
            adds_noise: *t > 0.0,
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
        steps,
        prediction_type: PredictionType::from_settings(settings)?,
        variance,
        bounds: Bounds::from_settings(settings, request.images)?,
        images: request.images.max(1),
        denoised: Vec::new(),
        noise: Vec::new(),
    }))
}

impl Ddpm {
    /// Adds the step's noise to `x`, scaled by the predicted or the fixed variance.
    fn add_variance_noise(
        &self,
        coefficients: DdpmStep,
        variances: Option<&[f32]>,
        split: usize,
        x: &mut [f32],
    ) -> Result<()> {
        let current_beta_t = 1.0 - coefficients.alpha_prod_t / coefficients.alpha_prod_t_prev;
        // The first step of a run may have a variance of zero; the bound keeps its logarithm finite.
        let variance =
            ((1.0 - coefficients.alpha_prod_t_prev) / (1.0 - coefficients.alpha_prod_t) * current_beta_t).max(1e-20);
        let add_scaled = |std_dev: f32, x: &mut [f32]| {
            for (x, noise) in x.iter_mut().zip(&self.noise) {
                *x += std_dev * noise;
            }
        };
        let missing = || Error::Scheduler {
            scheduler: NAME,
            key: "variance_type".to_owned(),
            problem: "expected a model output with channels for learned variances, found none".to_owned(),
            help: "set variance_type = \"fixed_small\"".to_owned(),
        };
        match self.variance {
            Variance::FixedSmall => add_scaled(variance.sqrt(), x),
            Variance::FixedSmallLog => add_scaled(exp_f32(0.5 * ln_f32(variance)), x),
            Variance::FixedLarge => add_scaled(current_beta_t.sqrt(), x),
            Variance::Learned => {
                let variances = variances.ok_or_else(missing)?;
                for ((x, noise), v) in zip_variances(x, &self.noise, variances, split) {
                    *x += v.sqrt() * noise;
                }
            }
            Variance::LearnedRange => {
                let variances = variances.ok_or_else(missing)?;
                let (low, high) = (ln_f32(variance), ln_f32(current_beta_t));
                for ((x, noise), v) in zip_variances(x, &self.noise, variances, split) {
                    let fraction = (v + 1.0) / 2.0;
                    let log = fraction * high + (1.0 - fraction) * low;
                    *x += exp_f32(0.5 * log) * noise;
                }
            }
        }
        Ok(())
    }
}

/// Iterates over a batch, the noise, and the variances in the second halves of the model outputs.
fn zip_variances<'a>(
    x: &'a mut [f32],
    noise: &'a [f32],
    output: &'a [f32],
    split: usize,
) -> impl Iterator<Item = ((&'a mut f32, &'a f32), &'a f32)> {
    let variances = output.chunks(2 * split).flat_map(move |output| output.iter().skip(split));
    x.iter_mut().zip(noise).zip(variances)
}

impl Scheduler for Ddpm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let coefficients = self.steps[step];
        let DdpmStep { alpha_prod_t, alpha_prod_t_prev, adds_noise } = coefficients;
        let size = (x.len() / self.images).max(1);
        let learned = matches!(self.variance, Variance::Learned | Variance::LearnedRange);
        let doubled = learned && model_output.len() == 2 * x.len();
        // Predicted variances are in the second half of each image's output.
        let stride = if doubled { 2 * size } else { size };

        let current_alpha_t = alpha_prod_t / alpha_prod_t_prev;
        let current_beta_t = 1.0 - current_alpha_t;
        let (signal, sigma) = (alpha_prod_t.sqrt(), (1.0 - alpha_prod_t).sqrt());
        let prediction_type = self.prediction_type;
        let predict_x0 = |x: f32, m: f32| match prediction_type {
            PredictionType::Sample => m,
            PredictionType::Velocity => signal * x - sigma * m,
            PredictionType::Epsilon | PredictionType::Flow => (x - sigma * m) / signal,
        };
        let x0_weight = alpha_prod_t_prev.sqrt() * current_beta_t / (1.0 - alpha_prod_t);
        let sample_weight = current_alpha_t.sqrt() * (1.0 - alpha_prod_t_prev) / (1.0 - alpha_prod_t);
        let outputs = model_output.chunks(stride);
        if let Some(limit) = self.bounds.limit() {
            for (x, m) in x.chunks_mut(size).zip(outputs) {
                for (x, m) in x.iter_mut().zip(m) {
                    let denoised = clamp(predict_x0(*x, *m), -limit, limit);
                    *x = x0_weight * denoised + sample_weight * *x;
                }
            }
        } else {
            self.denoised.resize(x.len(), 0.0);
            for ((denoised, x), m) in self.denoised.chunks_mut(size).zip(x.chunks(size)).zip(outputs) {
                for ((denoised, x), m) in denoised.iter_mut().zip(x).zip(m) {
                    *denoised = predict_x0(*x, *m);
                }
            }
            self.bounds.apply(&mut self.denoised);
            for (x, denoised) in x.iter_mut().zip(&self.denoised) {
                *x = x0_weight * denoised + sample_weight * *x;
            }
        }
        if adds_noise {
            self.noise.resize(x.len(), 0.0);
            noise.fill(&mut self.noise);
            self.add_variance_noise(coefficients, doubled.then_some(model_output), size, x)?;
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
