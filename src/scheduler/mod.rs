//! Schedulers: the timesteps at which the model is evaluated, and the steps of the sample between them.
//!
//! [`table()`] lists them, [`find`] looks one up by any of its names, and [`build`] creates one for a run:
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

mod alias;
mod align_your_steps;
mod beta_quantile;
mod betas;
mod churn;
mod config;
mod consistency;
mod custom_schedule;
mod custom_schedule_check;
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
mod entry;
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
mod linear;
mod linspace;
mod lms;
mod multistep;
mod names;
mod pndm;
mod sa_solver;
mod sa_update;
mod sample;
mod schedule_request;
mod scm;
mod settings;
mod sigma_schedule;
mod sigmas;
mod solver_schedule;
mod spacing;
mod step;
mod table;
mod table_check;
mod tcd;
mod unipc;

pub use alias::{AliasValue, SUFFIXES, SchedulerAlias};
pub use align_your_steps::{NAMED_SCHEDULES, NamedSchedule};
pub use config::{Config, SchedulerKey, SchedulerKeyKind};
pub use custom_schedule::{CustomSchedule, CustomScheduleSupport, FinalSigma};
pub use entry::SchedulerEntry;
pub use linear::{LinearStep, LinearSteps};
pub use names::{find, find_alias, suggest};
pub use schedule_request::ScheduleRequest;
pub use settings::SchedulerSettings;
pub use step::{Noise, Scheduler};
pub use table::table;
pub use table_check::check_table;

use crate::error::{Error, Result};
use serde_json::Value;
use settings::SchedulerCatalog;

/// All schedulers, for those that contain another.
const CATALOG: SchedulerCatalog = SchedulerCatalog {
    contains: |name| find(name).is_some(),
    build: |name, table, request| build(name, None, table, request),
};

/// The maximum number of steps of a run, so that a typo does not allocate a huge schedule.
const MAX_STEPS: usize = 10_000;

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
        let known = table::table().iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
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
    let settings = SchedulerSettings::new(entry.name, entry.keys, &merged, CATALOG);
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
        Ok(Self(betas::alphas_cumprod(&SchedulerSettings::new(entry.name, entry.keys, &merged, CATALOG))?))
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
