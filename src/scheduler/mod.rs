//! Schedulers: which timesteps the model is asked about, and how a sample moves from one to the next.

use crate::error::Result;

/// Draws unit normal noise for a batch, each picture from its own generator.
pub trait Noise {
    /// Fills `out`, the values of all pictures of the batch one after the other, with unit normal values.
    fn fill(&mut self, out: &mut [f32]);
}

/// One run's schedule and solver.
///
/// Built whole for a number of steps, so that no call order can be wrong: `step` is an index into
/// [`Scheduler::timesteps`], one entry a call of the model, and a run is `begin..timesteps().len()` in order, where
/// `begin` is 0 or, for image-to-image, where [`Scheduler::add_noise`] entered the schedule.
/// Samples are flat slices, `images` pictures of equal size one after the other.
pub trait Scheduler: Send {
    /// The model's `t` of each call, in the order of the calls.
    fn timesteps(&self) -> &[f64];

    /// What unit normal noise is multiplied by to become the first sample.
    fn initial_noise_sigma(&self) -> f64;

    /// Calls of the model per step of the user's (2 for second-order methods such as Heun).
    fn order(&self) -> usize {
        1
    }

    /// Writes to `out` what the model is given at `step` for the sample `x`.
    fn scale_input(&self, step: usize, x: &[f32], out: &mut [f32]);

    /// Moves the sample `x` one call on, given what the model answered. `noise` is drawn from exactly when and as
    /// often as diffusers' pipeline draws.
    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise);

    /// Writes to `out` the sample that stands at `step` of a run whose end is `x0`, given unit normal `noise`.
    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]);
}

/// What a scheduler is built for, beside its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The user's number of steps, at least 1.
    pub steps: usize,
    /// Pictures in a batch: how many equal parts a sample slice has.
    pub images: usize,
}

/// A scheduler's configuration: the keys that stand in a scheduler_config.json merged with those of the pipeline's
/// table, as diffusers' `from_config` merges them. Keys the class does not know are passed over; a value that nobody
/// knows is an error.
pub type Config = serde_json::Map<String, serde_json::Value>;

/// One row of the table of schedulers.
pub struct Entry {
    /// The name in pipeline.toml, such as `ddim`.
    pub name: &'static str,
    /// diffusers' class, such as `DDIMScheduler`.
    pub class: &'static str,
    /// The names by which AUTOMATIC1111 and ComfyUI know it.
    pub aliases: &'static [&'static str],
    /// Calls of the model per step.
    pub order: usize,
    /// Whether its steps draw noise (with the class's defaults).
    pub stochastic: bool,
    /// One sentence for `ldm-ort list schedulers`.
    pub about: &'static str,
    /// The configuration keys the class takes (and `eta` where `step()` takes it), for checking a pipeline's table.
    pub keys: &'static [&'static str],
    /// Builds it.
    pub build: fn(&Config, &Request) -> Result<Box<dyn Scheduler>>,
}
