//! Schedulers: the timesteps at which the model is evaluated, and the steps of the sample between them.
//!
//! [`table`] lists them, [`find`] looks one up by any of its names, and [`build`] creates one for a run:
//!
//! ```
//! use ldm_ort::scheduler::{self, Config, ScheduleRequest};
//!
//! let euler = scheduler::build("Euler a", None, &Config::new(), &ScheduleRequest::new(20, 1))?;
//! assert_eq!(euler.timesteps().len(), 20);
//! # Ok::<(), ldm_ort::Error>(())
//! ```
//!
//! Results equal those of diffusers 0.39.0, in the same arithmetic: tables in the precision of each class, samples in
//! float32. `tests/it/schedulers` compares every scheduler with whole tensors recorded there.

mod align_your_steps;
mod beta_quantile;
mod betas;
mod churn;
mod config;
mod consistency;
mod custom_schedule;
mod ddim;
mod ddim_inverse;
mod ddim_solver;
mod ddpm;
mod deis;
mod dpm_multistep;
mod dpm_multistep_inverse;
mod dpm_sde;
mod dpm_singlestep;
mod dpm_solver;
mod dpm_update;
mod edm;
mod edm_dpm_multistep;
mod edm_euler;
mod euler;
mod euler_ancestral;
mod flow;
mod flow_match_euler;
mod flow_match_heun;
mod heun;
mod ipndm;
mod kdpm2;
mod kdpm2_ancestral;
mod lcm;
mod lms;
mod multistep;
mod names;
mod pndm;
mod sa_solver;
mod sa_update;
mod sample;
mod scm;
mod sigma_schedule;
mod sigmas;
mod solver_schedule;
mod spacing;
mod tcd;
mod unipc;

pub use align_your_steps::{NAMED_SCHEDULES, NamedSchedule};
pub use config::{SchedulerKey, SchedulerKeyKind, SchedulerSettings};
pub use custom_schedule::{CustomSchedule, CustomScheduleSupport, FinalSigma};
pub use names::{AliasValue, SUFFIXES, SchedulerAlias, find, find_alias, suggest};

use crate::error::{Error, Result};
use serde_json::Value;

/// Unit normal noise for a batch, drawn per image from its own generator.
pub trait Noise {
    /// Fills `out` with unit normal values for all images of the batch, one after the other.
    fn fill(&mut self, out: &mut [f32]);

    /// Returns the seed of image `image` of the batch.
    fn seed(&self, image: usize) -> u64;

    /// Fills `out` with the first values of a new generator of the same stream with this seed, for schedulers that draw
    /// from many seeds.
    fn fill_seeded(&self, seed: u64, out: &mut [f32]);
}

/// The schedule and solver of one run.
///
/// A run goes from noise to an image. The inverse classes go from an image to the noise that generates it: their
/// timesteps rise, and the first sample is the image's latents.
///
/// A scheduler is built for a fixed number of steps. The argument `step` is an index into [`Scheduler::timesteps`],
/// which has one entry per model evaluation. A run visits `begin..timesteps().len()` in order; `begin` is 0, or for
/// image-to-image the index passed to [`Scheduler::add_noise`], a multiple of [`Scheduler::order`]. A scheduler serves
/// one run: multistep solvers keep earlier model outputs, beginning with the first [`Scheduler::step`].
///
/// Samples are flat slices: `images` images of equal size, one after the other.
pub trait Scheduler: Send {
    /// Returns the timestep of each model evaluation, in order.
    fn timesteps(&self) -> &[f64];

    /// Returns the factor that scales unit normal noise to the first sample; 1 for inverse schedulers.
    fn init_noise_sigma(&self) -> f64;

    /// Returns the number of model evaluations per step: 2 for second-order methods such as Heun.
    fn order(&self) -> usize {
        1
    }

    /// Scales the sample `x` to the model's input at `step` and writes it to `out`.
    fn scale_model_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        let _ = step;
        out.copy_from_slice(x);
    }

    /// Advances the sample `x` from `step` to the next, given the model output. Draws from `noise` exactly when and as
    /// often as diffusers' pipeline does.
    ///
    /// `model_output` has the length of `x`, or twice that if the model predicts variances too: then the second half of
    /// each image's output holds them.
    ///
    /// # Errors
    /// [`Error::Scheduler`] if the model output contradicts the configuration, for example if it has no variances with
    /// a learned `variance_type`.
    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()>;

    /// Noises the original sample `x0` to the level of `step` with unit normal `noise`, and writes it to `out`.
    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]);

    /// Writes the predicted original sample (x0) to `out`, given the model output at `step` and the sample `x` before
    /// that step: diffusers' `pred_original_sample`, neither clipped nor thresholded. Does not change the run.
    ///
    /// `model_output` has the length of `x`, without variances.
    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]);
}

/// The parameters of a run that a scheduler is built for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScheduleRequest {
    /// The number of steps, at least 1.
    pub steps: usize,
    /// The number of images in a batch, which is the number of equal parts of a sample slice.
    pub images: usize,
    /// The resolution-dependent shift of the schedule, for schedulers with `use_dynamic_shifting`.
    pub mu: Option<f64>,
    /// The fraction of the schedule, counted from its end, that contains all steps, for schedulers with
    /// [`SchedulerEntry::takes_strength`]; 1 is the whole schedule.
    pub strength: f64,
    /// A custom schedule of `steps` steps, if any.
    pub custom: Option<CustomSchedule>,
}

impl ScheduleRequest {
    /// Creates a request for a run of `steps` steps over batches of `images` images.
    pub fn new(steps: usize, images: usize) -> Self {
        Self { steps, images, mu: None, strength: 1.0, custom: None }
    }
}

/// A scheduler's configuration: the keys of a scheduler_config.json or of the pipeline's table. Infinities, which JSON
/// cannot express as numbers, are the strings `"Infinity"` and `"-Infinity"`.
pub type Config = serde_json::Map<String, Value>;

/// One row of the table of schedulers.
pub struct SchedulerEntry {
    /// The name in pipeline.toml, such as `ddim`.
    pub name: &'static str,
    /// diffusers' class, such as `DDIMScheduler`.
    pub class: &'static str,
    /// Its names in AUTOMATIC1111 and ComfyUI, and the keys that those names set.
    pub aliases: &'static [SchedulerAlias],
    /// Model evaluations per step.
    pub order: usize,
    /// True if its steps add noise with the class's defaults.
    pub stochastic: bool,
    /// True if its runs go from an image to the noise that generates it.
    pub inverse: bool,
    /// The custom schedules it accepts.
    pub custom_schedules: CustomScheduleSupport,
    /// One sentence for `ldm-ort list schedulers`.
    pub about: &'static str,
    /// The configuration keys of the class and the arguments of its `step()`, such as `eta`.
    pub keys: &'static [SchedulerKey],
    build: fn(&SchedulerSettings, &ScheduleRequest) -> Result<Box<dyn Scheduler>>,
}

impl SchedulerEntry {
    /// Returns true if the class has this key.
    pub fn has_key(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    /// Returns true if image-to-image runs are planned within the strength's part of the schedule, as for consistency
    /// models, rather than cut from the whole schedule.
    pub fn takes_strength(&self) -> bool {
        self.has_key("original_inference_steps")
    }
}

/// The maximum number of steps of a run, so that a typo does not allocate a huge schedule.
const MAX_STEPS: usize = 10_000;

static TABLE: &[SchedulerEntry] = &[
    ddpm::ENTRY,
    ddim::ENTRY,
    pndm::ENTRY,
    lms::ENTRY,
    euler::ENTRY,
    euler_ancestral::ENTRY,
    heun::ENTRY,
    kdpm2::ENTRY,
    kdpm2_ancestral::ENTRY,
    dpm_multistep::ENTRY,
    dpm_singlestep::ENTRY,
    dpm_sde::ENTRY,
    deis::ENTRY,
    unipc::ENTRY,
    ipndm::ENTRY,
    edm_euler::ENTRY,
    edm_dpm_multistep::ENTRY,
    lcm::ENTRY,
    tcd::ENTRY,
    flow_match_euler::ENTRY,
    flow_match_heun::ENTRY,
    sa_solver::ENTRY,
    scm::ENTRY,
    ddim_inverse::ENTRY,
    dpm_multistep_inverse::ENTRY,
];

/// Returns all schedulers.
pub fn table() -> &'static [SchedulerEntry] {
    TABLE
}

/// Returns every problem of a pipeline's table for this scheduler, as pairs of key and message: unknown keys, wrong
/// types, unknown values.
pub fn check_table(entry: &SchedulerEntry, table: &Config) -> Vec<(String, String)> {
    config::check(entry.keys, entry.name, table)
}

/// Builds the scheduler called `name` for a run.
///
/// The configuration is merged as in diffusers' `from_config` from the model's scheduler_config.json, whose class may
/// be another: keys that the new class knows are kept; keys listed in the file's `_use_default_values` and all others
/// take the new class's defaults. Keys that an alias implies override these, and the pipeline's table overrides both.
///
/// # Errors
/// [`Error::Scheduler`] for an unknown name, and naming the key for a value that is unknown or impossible.
pub fn build(
    name: &str,
    model_config: Option<&Config>,
    table: &Config,
    request: &ScheduleRequest,
) -> Result<Box<dyn Scheduler>> {
    let Some((entry, implied)) = find_alias(name) else {
        let near = suggest(name);
        let known = TABLE.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        return Err(Error::Scheduler {
            scheduler: "?",
            key: "name".to_owned(),
            problem: format!("no scheduler is called {name:?}"),
            help: if near.is_empty() {
                format!("choose one of {known}")
            } else {
                format!("did you mean {}?", near.join(" or "))
            },
        });
    };
    let merged = merge(entry, model_config, &implied, table);
    let settings = SchedulerSettings::new(entry.name, entry.keys, &merged);
    if request.steps == 0 {
        return Err(settings.error("steps", "expected at least 1, found 0", "20 to 50 is usual"));
    }
    if request.steps > MAX_STEPS {
        let problem = format!("expected at most {MAX_STEPS}, found {}", request.steps);
        return Err(settings.error("steps", problem, "20 to 50 is usual"));
    }
    if let Some(custom) = &request.custom {
        custom.check(&settings, entry, request)?;
    }
    (entry.build)(&settings, request)
}

/// The forward process of diffusion at every training timestep (Ho et al. 2020, equation 4).
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardProcess(Vec<f32>);

impl ForwardProcess {
    /// Reads the forward process from a model's scheduler configuration of diffusers' class `class`.
    ///
    /// # Errors
    /// [`Error::Scheduler`] for a class that is unknown or has no betas, and naming the key with a wrong value.
    pub fn new(class: &str, config: &Config) -> Result<Self> {
        let entry = find(class).filter(|entry| entry.has_key("beta_schedule"));
        let entry = entry.ok_or_else(|| Error::Scheduler {
            scheduler: "?",
            key: "_class_name".to_owned(),
            problem: format!("no scheduler with betas is called {class:?}"),
            help: "DDPMScheduler is usual".to_owned(),
        })?;
        let merged = merge(entry, Some(config), &[], &Config::new());
        Ok(Self(betas::alphas_cumprod(&SchedulerSettings::new(entry.name, entry.keys, &merged))?))
    }

    /// Returns the factors of image and noise at a training timestep, `sqrt(alpha_cumprod)` and
    /// `sqrt(1 - alpha_cumprod)`; `None` beyond the last timestep.
    pub fn at(&self, timestep: usize) -> Option<(f32, f32)> {
        self.0.get(timestep).map(|&alpha| (alpha.sqrt(), (1.0 - alpha).sqrt()))
    }

    /// Returns the number of training timesteps.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there are no training timesteps.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Merges a model's file, as diffusers' `from_config` does, with an alias's keys and a pipeline's table.
fn merge(
    entry: &SchedulerEntry,
    model_config: Option<&Config>,
    implied: &[(&'static str, AliasValue)],
    table: &Config,
) -> Config {
    let mut merged = Config::new();
    if let Some(model) = model_config {
        let defaults: Vec<&str> = model
            .get("_use_default_values")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let argument = |name: &str| entry.keys.iter().any(|key| key.name == name && key.argument);
        for (name, value) in model {
            if !name.starts_with('_') && !defaults.contains(&name.as_str()) && !argument(name) {
                let key = entry.keys.iter().find(|key| key.name == name);
                merged.insert(name.clone(), key.map_or_else(|| value.clone(), |key| key.kind.clamp_foreign(value)));
            }
        }
    }
    for (name, setting) in implied {
        merged.insert((*name).to_owned(), setting.value());
    }
    for (name, value) in table {
        // A key that the class does not have must not pass for an undeclared entry of the model's file.
        if entry.has_key(name) {
            merged.insert(name.clone(), value.clone());
        }
    }
    merged
}
