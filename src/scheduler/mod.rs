//! Schedulers: which timesteps the model is asked about, and how a sample moves from one to the next.
//!
//! [`table`] lists them, [`find`] looks one up by any of its names, and [`build`] makes one for a run:
//!
//! ```
//! use ldm_ort::scheduler::{self, Config, ScheduleRequest};
//!
//! let euler = scheduler::build("Euler a", None, &Config::new(), &ScheduleRequest::new(20, 1))?;
//! assert_eq!(euler.timesteps().len(), 20);
//! # Ok::<(), ldm_ort::Error>(())
//! ```
//!
//! The numbers are those of diffusers 0.39.0, in the arithmetic it uses: tables in the precision of the class at hand,
//! samples in float32. `tests/it/schedulers` holds every scheduler to whole tensors recorded there.

mod align_your_steps;
mod beta_quantile;
mod churn;
mod config;
mod consistency;
mod custom;
mod ddim;
mod ddim_inverse;
mod ddpm;
mod deis;
mod discrete;
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
mod implicit;
mod ipndm;
mod kdpm2;
mod kdpm2_ancestral;
mod lcm;
mod lms;
mod multistep;
mod names;
mod noise;
mod pndm;
mod sa_solver;
mod sa_update;
mod sample;
mod scm;
mod sigmas;
mod solver;
mod spacing;
mod tcd;
mod unipc;

pub use align_your_steps::{NAMED, Named};
pub use config::{Key, Kind, Settings};
pub use custom::{Accepts, Custom, Ends};
pub use names::{Alias, SUFFIXES, Setting, find, find_alias, suggest};

use crate::error::{Error, Result};
use serde_json::Value;

/// Draws unit normal noise for a batch, each image from its own generator.
pub trait Noise {
    /// Fills `out`, the values of all images of the batch one after the other, with unit normal values.
    fn fill(&mut self, out: &mut [f32]);

    /// The seed of image `image` of the batch.
    fn seed(&self, image: usize) -> u64;

    /// Fills `out` with the first values of a new generator of the same kind with this seed, for schedulers that make
    /// noise of many seeds.
    fn fill_seeded(&self, seed: u64, out: &mut [f32]);
}

/// One run's schedule and solver.
///
/// A run goes from noise to an image, or, with the classes called inverse, from an image to the noise it comes from:
/// then the timesteps rise, and the first sample is the image's own.
///
/// Built whole for a number of steps, so that no call order can be wrong: `step` is an index into
/// [`Scheduler::timesteps`], one entry a call of the model, and a run is `begin..timesteps().len()` in order, where
/// `begin` is 0 or, for image-to-image, where [`Scheduler::add_noise`] entered the schedule: a multiple of
/// [`Scheduler::order`]. A scheduler serves one run: multistep solvers remember what the model said, starting with the
/// first [`Scheduler::step`].
/// Samples are flat slices, `images` images of equal size one after the other.
pub trait Scheduler: Send {
    /// The model's `t` of each call, in the order of the calls.
    fn timesteps(&self) -> &[f64];

    /// What unit normal noise is multiplied by to become the first sample; 1 where the run begins with an image.
    fn initial_noise_sigma(&self) -> f64;

    /// Calls of the model per step of the user's (2 for second-order methods such as Heun).
    fn order(&self) -> usize {
        1
    }

    /// Writes to `out` what the model is given at `step` for the sample `x`.
    fn scale_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        let _ = step;
        out.copy_from_slice(x);
    }

    /// Moves the sample `x` one call on, given what the model answered. `noise` is drawn from exactly when and as
    /// often as diffusers' pipeline draws.
    ///
    /// `model_output` has the length of `x`, or twice that where the model predicts variances too: then each image's
    /// second half holds them.
    ///
    /// # Errors
    /// [`Error::Scheduler`] if the model's answer is not what the configuration says it is, as one without variances
    /// under a learned `variance_type`.
    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()>;

    /// Writes to `out` the sample that stands at `step` of a run whose image is `x0`, given unit normal `noise`.
    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]);

    /// Writes to `out` the image that the model's answer at `step` stands for, given the sample `x` before that step:
    /// diffusers' `pred_original_sample`, neither clipped nor thresholded. It changes nothing of the run.
    ///
    /// `model_output` has the length of `x`: variances are left out of it.
    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]);
}

/// What a scheduler is built for, beside its configuration.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScheduleRequest {
    /// The user's number of steps, at least 1.
    pub steps: usize,
    /// Images in a batch: how many equal parts a sample slice has.
    pub images: usize,
    /// The shift of the schedule that goes with the image's size, for schedulers with `use_dynamic_shifting`.
    pub mu: Option<f64>,
    /// The share of the schedule in which all steps lie, counted from its end, for schedulers that are told how far a run
    /// goes from an image ([`SchedulerEntry::takes_strength`]); 1 is all of it.
    pub strength: f64,
    /// The schedule itself, where it is given outright; it then has `steps` steps.
    pub custom: Option<Custom>,
}

impl ScheduleRequest {
    /// A request for a run of `steps` steps over batches of `images` images.
    pub fn new(steps: usize, images: usize) -> Self {
        Self { steps, images, mu: None, strength: 1.0, custom: None }
    }
}

/// A scheduler's configuration: the keys of a scheduler_config.json or of the pipeline's table. Infinities, which JSON
/// has no numbers for, are the strings `"Infinity"` and `"-Infinity"`.
pub type Config = serde_json::Map<String, Value>;

/// One row of the table of schedulers.
pub struct SchedulerEntry {
    /// The name in pipeline.toml, such as `ddim`.
    pub name: &'static str,
    /// diffusers' class, such as `DDIMScheduler`.
    pub class: &'static str,
    /// The names by which AUTOMATIC1111 and ComfyUI know it, and the keys those names stand for beside the class.
    pub aliases: &'static [Alias],
    /// Calls of the model per step.
    pub order: usize,
    /// Whether its steps draw noise (with the class's defaults).
    pub stochastic: bool,
    /// Whether its runs go from an image to the noise it comes from.
    pub inverse: bool,
    /// The schedules it can be given outright.
    pub accepts: Accepts,
    /// One sentence for `ldm-ort list schedulers`.
    pub about: &'static str,
    /// The configuration keys the class takes (and `eta` and the like where `step()` takes them).
    pub keys: &'static [Key],
    build: fn(&Settings, &ScheduleRequest) -> Result<Box<dyn Scheduler>>,
}

impl SchedulerEntry {
    /// Whether the class has this key.
    pub fn has_key(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    /// Whether a run from an image is planned into the part of the schedule that the image is noised to, and not cut
    /// out of the whole of it: the consistency models' own way.
    pub fn takes_strength(&self) -> bool {
        self.has_key("original_inference_steps")
    }
}

/// The steps of a run at most, so that a slip of the pen does not fill the memory with a schedule.
const MOST_STEPS: usize = 10_000;

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

/// All schedulers.
pub fn table() -> &'static [SchedulerEntry] {
    TABLE
}

/// Every problem of a pipeline's table for this scheduler, as pairs of key and message: unknown keys, wrong types,
/// unknown values.
pub fn check_table(entry: &SchedulerEntry, table: &Config) -> Vec<(String, String)> {
    config::check(entry.keys, entry.name, table)
}

/// Builds the scheduler called `name` for a run.
///
/// Its configuration is what diffusers' `from_config` makes of the model's scheduler_config.json, whose class may be
/// another: keys the new class knows are kept, keys listed in the file's `_use_default_values` and all others take the
/// new class's defaults. Above that stand the keys an alias implies, and above those the pipeline's table.
///
/// # Errors
/// [`Error::Scheduler`] naming the key for a value that the class does not know or that no run can have, and for a name
/// that nobody knows.
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
                format!("there are {known}")
            } else {
                format!("did you mean {}?", near.join(" or "))
            },
        });
    };
    let merged = merge(entry, model_config, &implied, table);
    let settings = Settings::new(entry.name, entry.keys, &merged);
    if request.steps == 0 {
        return Err(settings.error("steps", "a run of 0 steps makes no image", "ask for at least 1"));
    }
    if request.steps > MOST_STEPS {
        let problem = format!("{} steps are more than the {MOST_STEPS} that a run has at most", request.steps);
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
    /// That of a model's configuration file, whose class is diffusers' `class`.
    ///
    /// # Errors
    /// [`Error::Scheduler`] for a class that nobody knows or that has no betas, and naming the key that is wrong.
    pub fn new(class: &str, config: &Config) -> Result<Self> {
        let entry = find(class).filter(|entry| entry.has_key("beta_schedule"));
        let entry = entry.ok_or_else(|| Error::Scheduler {
            scheduler: "?",
            key: "_class_name".to_owned(),
            problem: format!("no scheduler with betas is called {class:?}"),
            help: "DDPMScheduler is usual".to_owned(),
        })?;
        let merged = merge(entry, Some(config), &[], &Config::new());
        Ok(Self(noise::alphas_cumprod(&Settings::new(entry.name, entry.keys, &merged))?))
    }

    /// How much of an image is left at a training timestep, and the deviation of the noise over it; `None` beyond the
    /// last.
    pub fn at(&self, timestep: usize) -> Option<(f32, f32)> {
        self.0.get(timestep).map(|&alpha| (alpha.sqrt(), (1.0 - alpha).sqrt()))
    }

    /// The number of training timesteps.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What `from_config` makes of a model's file, and a pipeline's table over it.
fn merge(
    entry: &SchedulerEntry,
    model_config: Option<&Config>,
    implied: &[(&'static str, Setting)],
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
                merged.insert(name.clone(), key.map_or_else(|| value.clone(), |key| key.kind.lowered(value)));
            }
        }
    }
    for (name, setting) in implied {
        merged.insert((*name).to_owned(), setting.value());
    }
    for (name, value) in table {
        // A key of the table that the class does not have must not reach it as one that a model's file carries along.
        if entry.has_key(name) {
            merged.insert(name.clone(), value.clone());
        }
    }
    merged
}
