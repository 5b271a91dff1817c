//! Euler's method on a rectified flow: Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution
//! Image Synthesis".

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::sample::{PredictionType, predict_x0};
use super::settings::SchedulerSettings;
use super::sigmas::Ramp;
use super::{CustomSchedule, CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry, flow};
use crate::elementary::exp;
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "flow-match-euler",
    class: "FlowMatchEulerDiscreteScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::FLOW,
    about: "Euler's method for rectified flows (Stable Diffusion 3, Flux).",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        SchedulerKey::float("shift", 1.0),
        SchedulerKey::switch("use_dynamic_shifting", false),
        SchedulerKey::float("base_shift", 0.5),
        SchedulerKey::float("max_shift", 1.15),
        SchedulerKey::new("base_image_seq_len", SchedulerKeyKind::Count(256)),
        SchedulerKey::new("max_image_seq_len", SchedulerKeyKind::Count(4096)),
        SchedulerKey::switch("invert_sigmas", false),
        SchedulerKey::new("shift_terminal", SchedulerKeyKind::MaybeFloat),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        SchedulerKey::choice("time_shift_type", "exponential", &["exponential", "linear"]),
        SchedulerKey::switch("stochastic_sampling", false),
    ],
    build,
};

#[derive(Debug)]
struct FlowMatchEuler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    stochastic: bool,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")? as f32;
    let dynamic = settings.switch("use_dynamic_shifting")?;
    let linear = settings.choice("time_shift_type")? == "linear";
    let mut sigmas = match &request.custom {
        Some(CustomSchedule::Timesteps(list)) => list.iter().map(|t| f64::from(*t as f32 / train)).collect(),
        Some(CustomSchedule::Sigmas(list)) => list.iter().map(|s| f64::from(*s as f32)).collect(),
        None => flow::training_range_sigmas(settings, request.steps, !dynamic)?,
    };
    // diffusers shifts a custom list in float32 and its own sigmas in float64.
    let round = |x: f64| if request.custom.is_some() { f64::from(x as f32) } else { x };
    if dynamic {
        let Some(mu) = request.mu else {
            let help = "set use_dynamic_shifting = false and choose a shift";
            return Err(settings.error("use_dynamic_shifting", "this task has no resolution-dependent shift", help));
        };
        let factor = if linear { mu } else { exp(mu) };
        let factor = round(factor);
        sigmas.iter_mut().for_each(|s| *s = round(factor / round(factor + round(round(1.0 / *s) - 1.0))));
    } else {
        let factor = settings.float("shift")?;
        let (factor, factor_minus_one) = (round(factor), round(factor - 1.0));
        sigmas.iter_mut().for_each(|s| *s = round(round(factor * *s) / round(1.0 + round(factor_minus_one * *s))));
    }
    if let Some(terminal) = settings.maybe_float("shift_terminal")?.filter(|terminal| *terminal != 0.0) {
        let scale = round(round(1.0 - sigmas[sigmas.len() - 1]) / round(1.0 - terminal));
        sigmas.iter_mut().for_each(|s| *s = round(1.0 - round(round(1.0 - *s) / scale)));
    }
    if let Some(ramp) = Ramp::from_settings(settings)? {
        sigmas = ramp.sigmas(settings, sigmas[sigmas.len() - 1], sigmas[0], request.steps)?;
    }
    let inverted = settings.switch("invert_sigmas")?;
    let mut sigmas: Vec<f32> = sigmas.into_iter().map(|s| if inverted { 1.0 - s as f32 } else { s as f32 }).collect();
    let timesteps = match &request.custom {
        Some(CustomSchedule::Timesteps(list)) if !inverted => list.iter().map(|t| f64::from(*t as f32)).collect(),
        _ => sigmas.iter().map(|s| f64::from(s * train)).collect(),
    };
    sigmas.push(if inverted { 1.0 } else { 0.0 });
    Ok(Box::new(FlowMatchEuler {
        timesteps,
        sigmas,
        stochastic: settings.switch("stochastic_sampling")?,
        noise: Vec::new(),
    }))
}

impl Scheduler for FlowMatchEuler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let (sigma, next) = (self.sigmas[step], self.sigmas[step + 1]);
        if self.stochastic {
            self.noise.resize(x.len(), 0.0);
            noise.fill(&mut self.noise);
            let signal = 1.0 - next;
            for ((x, m), noise) in x.iter_mut().zip(model_output).zip(&self.noise) {
                *x = signal * (*x - sigma * m) + next * noise;
            }
        } else {
            let dt = next - sigma;
            for (x, m) in x.iter_mut().zip(model_output) {
                *x += dt * m;
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        flow::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, PredictionType::Flow, step, model_output, x, out);
    }
}
