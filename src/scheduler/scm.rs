//! Sampling of continuous-time consistency models in the TrigFlow image: Lu and Song 2024, "Simplifying, Stabilizing
//! and Scaling Continuous-Time Consistency Models", section 3, as SANA-Sprint uses it.

use super::config::{Key, Kind, Settings, keys};
use super::noise::linspace_f32;
use super::sample::mix;
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "scm",
    class: "SCMScheduler",
    aliases: &[],
    order: 1,
    stochastic: true,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "For continuous-time consistency models told an angle between image and noise: 1 to 4 steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        Key::choice("prediction_type", "trigflow", &["trigflow"]),
        Key::float("sigma_data", 0.5),
        // Arguments of set_timesteps() there: the first angle, and the second one of a run of two steps.
        Key::argument("max_timesteps", Kind::Float(MAX)),
        Key::argument("intermediate_timesteps", Kind::MaybeFloat),
    ],
    build,
};

/// The first angle, where none is given: not quite a right one.
#[expect(clippy::approx_constant, reason = "diffusers' default is the rounded number, which float32 tells apart")]
const MAX: f64 = 1.5708;

/// The second angle of a run of two steps, where none is given.
const INTERMEDIATE: f64 = 1.3;

/// The cosine and the sine of a step's angle.
#[derive(Debug, Clone, Copy)]
struct Level {
    cosine: f32,
    sine: f32,
}

#[derive(Debug)]
struct Scm {
    timesteps: Vec<f64>,
    /// One more than there are calls.
    levels: Vec<Level>,
    /// The deviation of the data, and so of the noise.
    deviation: f32,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    settings.choice("prediction_type")?;
    settings.limit_steps(request.steps, settings.count("num_train_timesteps")?)?;
    let (max, steps) = (settings.float("max_timesteps")? as f32, request.steps);
    let angles = match settings.maybe_float("intermediate_timesteps")? {
        Some(_) if steps != 2 => {
            let problem = format!("only a run of 2 steps has one, and this one has {steps}");
            return Err(settings.error("intermediate_timesteps", problem, "leave it out"));
        }
        None if steps != 2 => linspace_f32(max, 0.0, steps + 1),
        given => vec![max, given.unwrap_or(INTERMEDIATE) as f32, 0.0],
    };
    let level = |angle: &f32| {
        let angle = f64::from(*angle);
        Level { cosine: angle.cos() as f32, sine: angle.sin() as f32 }
    };
    Ok(Box::new(Scm {
        levels: angles.iter().map(level).collect(),
        timesteps: angles[..steps].iter().map(|angle| f64::from(*angle)).collect(),
        deviation: settings.float("sigma_data")? as f32,
        drawn: Vec::new(),
    }))
}

impl Scheduler for Scm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let (from, to) = (self.levels[step], self.levels[step + 1]);
        // The last step draws too, and leads to where no noise is.
        self.drawn.resize(x.len(), 0.0);
        noise.fill(&mut self.drawn);
        for ((x, m), drawn) in x.iter_mut().zip(model_output).zip(&self.drawn) {
            let image = from.cosine * *x + -from.sine * m;
            *x = to.cosine * image + to.sine * (drawn * self.deviation);
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let Level { cosine, sine } = self.levels[step];
        for ((out, x0), noise) in out.iter_mut().zip(x0).zip(noise) {
            *out = cosine * x0 + sine * (noise * self.deviation);
        }
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        let Level { cosine, sine } = self.levels[step];
        mix(cosine, x, -sine, model_output, out);
    }
}
