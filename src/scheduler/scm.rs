//! Sampling of continuous-time consistency models in the TrigFlow form: Lu and Song 2024, "Simplifying, Stabilizing and
//! Scaling Continuous-Time Consistency Models", section 3, as in SANA-Sprint.

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::linspace::linspace_f32;
use super::sample::mix;
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry};
use crate::elementary::{cos, sin};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "scm",
    class: "SCMScheduler",
    aliases: &[],
    order: 1,
    stochastic: true,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "For continuous-time consistency models that take an angle between x0 and noise: 1 to 4 steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        SchedulerKey::choice("prediction_type", "trigflow", &["trigflow"]),
        SchedulerKey::float("sigma_data", 0.5),
        // Arguments of diffusers' set_timesteps(): the first angle, and the second angle of a run of two steps.
        SchedulerKey::argument("max_timesteps", SchedulerKeyKind::Float(MAX)),
        SchedulerKey::argument("intermediate_timesteps", SchedulerKeyKind::MaybeFloat),
    ],
    build,
};

/// The default first angle, slightly above a right angle.
#[expect(clippy::approx_constant, reason = "diffusers' default is the rounded number, which float32 tells apart")]
const MAX: f64 = 1.5708;

/// The default second angle of a run of two steps.
const INTERMEDIATE: f64 = 1.3;

/// The cosine and the sine of a step's angle.
#[derive(Debug, Clone, Copy)]
struct TrigFlowAngle {
    cosine: f32,
    sine: f32,
}

#[derive(Debug)]
struct Scm {
    timesteps: Vec<f64>,
    /// The angle at each timestep, and at the end of the run.
    angles: Vec<TrigFlowAngle>,
    /// The standard deviation of the data, and so of the noise.
    sigma_data: f32,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    settings.choice("prediction_type")?;
    settings.limit_steps(request.steps, settings.count("num_train_timesteps")?)?;
    let (max, steps) = (settings.float("max_timesteps")? as f32, request.steps);
    let angles = match settings.maybe_float("intermediate_timesteps")? {
        Some(_) if steps != 2 => {
            let problem = format!("only runs of 2 steps have one, found {steps} steps");
            return Err(settings.error("intermediate_timesteps", problem, "remove the key"));
        }
        None if steps != 2 => linspace_f32(max, 0.0, steps + 1),
        second => vec![max, second.unwrap_or(INTERMEDIATE) as f32, 0.0],
    };
    let angle = |angle: &f32| {
        let angle = f64::from(*angle);
        TrigFlowAngle { cosine: cos(angle) as f32, sine: sin(angle) as f32 }
    };
    Ok(Box::new(Scm {
        angles: angles.iter().map(angle).collect(),
        timesteps: angles[..steps].iter().map(|angle| f64::from(*angle)).collect(),
        sigma_data: settings.float("sigma_data")? as f32,
        noise: Vec::new(),
    }))
}

impl Scheduler for Scm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let (from, to) = (self.angles[step], self.angles[step + 1]);
        // diffusers draws in the last step too, where the noise has weight zero.
        self.noise.resize(x.len(), 0.0);
        noise.fill(&mut self.noise);
        for ((x, m), noise) in x.iter_mut().zip(model_output).zip(&self.noise) {
            let x0 = from.cosine * *x + -from.sine * m;
            *x = to.cosine * x0 + to.sine * (noise * self.sigma_data);
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let TrigFlowAngle { cosine, sine } = self.angles[step];
        for ((out, x0), noise) in out.iter_mut().zip(x0).zip(noise) {
            *out = cosine * x0 + sine * (noise * self.sigma_data);
        }
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        let TrigFlowAngle { cosine, sine } = self.angles[step];
        mix(cosine, x, -sine, model_output, out);
    }
}
