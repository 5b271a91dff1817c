//! Euler's method on a rectified flow: Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution
//! Image Synthesis".

use super::config::{Key, Kind, Settings, keys};
use super::sample::{Prediction, estimate};
use super::sigmas::Ramp;
use super::{Accepts, Custom, Noise, ScheduleRequest, Scheduler, SchedulerEntry, flow};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "flow-match-euler",
    class: "FlowMatchEulerDiscreteScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::FLOW,
    about: "Euler's method for rectified flows (Stable Diffusion 3, Flux).",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        Key::float("shift", 1.0),
        Key::switch("use_dynamic_shifting", false),
        Key::float("base_shift", 0.5),
        Key::float("max_shift", 1.15),
        Key::new("base_image_seq_len", Kind::Count(256)),
        Key::new("max_image_seq_len", Kind::Count(4096)),
        Key::switch("invert_sigmas", false),
        Key::new("shift_terminal", Kind::MaybeFloat),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        Key::choice("time_shift_type", "exponential", &["exponential", "linear"]),
        Key::switch("stochastic_sampling", false),
    ],
    build,
};

#[derive(Debug)]
struct FlowMatchEuler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    stochastic: bool,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")? as f32;
    let dynamic = settings.switch("use_dynamic_shifting")?;
    let linear = settings.choice("time_shift_type")? == "linear";
    let mut levels = match &request.custom {
        Some(Custom::Timesteps(list)) => list.iter().map(|t| f64::from(*t as f32 / train)).collect(),
        Some(Custom::Sigmas(list)) => list.iter().map(|s| f64::from(*s as f32)).collect(),
        None => flow::fractions(settings, request.steps, !dynamic)?,
    };
    // diffusers shapes a list that it was given in float32, and its own in float64.
    let round = |x: f64| if request.custom.is_some() { f64::from(x as f32) } else { x };
    if dynamic {
        let Some(mu) = request.mu else {
            let help = "set use_dynamic_shifting = false and a shift";
            return Err(settings.error("use_dynamic_shifting", "the task gives no shift for the image's size", help));
        };
        let factor = if linear { mu } else { mu.exp() };
        let factor = round(factor);
        levels.iter_mut().for_each(|s| *s = round(factor / round(factor + round(round(1.0 / *s) - 1.0))));
    } else {
        let factor = settings.float("shift")?;
        let (factor, less_one) = (round(factor), round(factor - 1.0));
        levels.iter_mut().for_each(|s| *s = round(round(factor * *s) / round(1.0 + round(less_one * *s))));
    }
    if let Some(terminal) = settings.maybe_float("shift_terminal")?.filter(|terminal| *terminal != 0.0) {
        let scale = round(round(1.0 - levels[levels.len() - 1]) / round(1.0 - terminal));
        levels.iter_mut().for_each(|s| *s = round(1.0 - round(round(1.0 - *s) / scale)));
    }
    if let Some(ramp) = Ramp::from_settings(settings)? {
        levels = ramp.sigmas(settings, levels[levels.len() - 1], levels[0], request.steps)?;
    }
    let inverted = settings.switch("invert_sigmas")?;
    let mut levels: Vec<f32> = levels.into_iter().map(|s| if inverted { 1.0 - s as f32 } else { s as f32 }).collect();
    let timesteps = match &request.custom {
        Some(Custom::Timesteps(list)) if !inverted => list.iter().map(|t| f64::from(*t as f32)).collect(),
        _ => levels.iter().map(|s| f64::from(s * train)).collect(),
    };
    levels.push(if inverted { 1.0 } else { 0.0 });
    Ok(Box::new(FlowMatchEuler {
        timesteps,
        sigmas: levels,
        stochastic: settings.switch("stochastic_sampling")?,
        drawn: Vec::new(),
    }))
}

impl Scheduler for FlowMatchEuler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let (sigma, next) = (self.sigmas[step], self.sigmas[step + 1]);
        if self.stochastic {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
            let keep = 1.0 - next;
            for ((x, m), drawn) in x.iter_mut().zip(model_output).zip(&self.drawn) {
                *x = keep * (*x - sigma * m) + next * drawn;
            }
        } else {
            let change = next - sigma;
            for (x, m) in x.iter_mut().zip(model_output) {
                *x += change * m;
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        flow::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, Prediction::Flow, step, model_output, x, out);
    }
}
