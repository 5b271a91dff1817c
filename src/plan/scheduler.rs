//! Which scheduler a request runs on.

use std::ops::Range;

use crate::bundle::{Bundle, DenoiserContract};
use crate::error::{Error, Result};
use crate::scheduler::{self, Config, Custom, Scheduler};
use crate::spec::Spec;

/// The scheduler of a request: whose class, from which configuration.
#[derive(Clone)]
pub struct SchedulerChoice {
    /// The name under which it was asked for, which may stand for keys of its own (`DPM++ 2M Karras`).
    pub name: String,
    /// Its row of the table.
    pub entry: &'static scheduler::Entry,
    /// The model's scheduler_config.json, with `[model] prediction_type` over it.
    pub model: Config,
    /// The pipeline's table, which goes over it.
    pub table: Config,
    /// Whether a schedule that nobody gives outright is given by the model's family: Flux's noise levels fall evenly.
    pub falls_evenly: bool,
}

impl std::fmt::Debug for SchedulerChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerChoice").field("name", &self.name).field("table", &self.table).finish_non_exhaustive()
    }
}

impl SchedulerChoice {
    /// The pipeline's scheduler, or else the model's own.
    ///
    /// # Errors
    /// [`Error::Model`] where neither names one, or the model names one that nobody knows.
    pub fn new(spec: &Spec, bundle: &Bundle) -> Result<Self> {
        let names = || scheduler::table().iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        let model = bundle.scheduler.as_ref();
        let (wanted, table) = match (&spec.scheduler, model) {
            (Some(chosen), _) => (chosen.name.as_str(), chosen.table.clone()),
            (None, Some(file)) => match &file.class {
                Some(class) => (class.as_str(), Config::new()),
                None => {
                    return Err(Error::model(
                        &file.path,
                        "names no scheduler class (_class_name), and neither does model_index.json",
                        format!("name one in the pipeline file: [scheduler.NAME] with a name of {}", names()),
                    ));
                }
            },
            (None, None) => {
                return Err(Error::model(
                    bundle.dir.join("scheduler/scheduler_config.json"),
                    "missing, and the pipeline names no scheduler",
                    format!("name one in the pipeline file: [scheduler.NAME] with a name of {}", names()),
                ));
            }
        };
        let Some(entry) = scheduler::find(wanted) else {
            let path = model.map_or_else(|| bundle.dir.clone(), |file| file.path.clone());
            return Err(Error::model(
                path,
                format!("scheduler class {wanted} is not known"),
                format!("name another in the pipeline file: [scheduler.NAME] with a name of {}", names()),
            ));
        };
        let mut config = model.map(|file| file.config.clone()).unwrap_or_default();
        if let Some(prediction) = &spec.model.prediction_type {
            config.insert("prediction_type".to_owned(), prediction.clone().into());
        }
        let contract = bundle.denoiser().and_then(DenoiserContract::resolve);
        let falls_evenly = contract.is_ok_and(|contract| contract.positions.is_some());
        Ok(Self { name: wanted.to_owned(), entry, model: config, table, falls_evenly })
    }

    /// What the scheduler is built for: one picture of `patches` patches, where the model takes it in such.
    pub fn request(
        &self,
        steps: usize,
        custom: Option<Custom>,
        strength: Option<f64>,
        patches: Option<usize>,
    ) -> scheduler::Request {
        let mut request = scheduler::Request::new(steps, 1);
        let uses_own =
            || self.table.get("use_flow_sigmas").or_else(|| self.model.get("use_flow_sigmas")) == Some(&true.into());
        let ends_itself = self.entry.accepts.sigmas == Some(scheduler::Ends::Own);
        let evenly = || Custom::falling_evenly(steps);
        request.custom = custom.or_else(|| (self.falls_evenly && ends_itself && !uses_own()).then(evenly));
        request.strength = strength.unwrap_or(1.0);
        request.mu = patches.map(|patches| self.shift(patches));
        request
    }

    /// The shift of a schedule with `use_dynamic_shifting` for a picture of so many patches: on the straight line through
    /// `base_shift` at `base_image_seq_len` patches and `max_shift` at `max_image_seq_len` (diffusers' `calculate_shift`).
    fn shift(&self, patches: usize) -> f64 {
        let setting = |key: &str, default: f64| self.setting(key).unwrap_or(default);
        let (base, most) = (setting("base_image_seq_len", 256.0), setting("max_image_seq_len", 4096.0));
        let (base_shift, max_shift) = (setting("base_shift", 0.5), setting("max_shift", 1.15));
        let slope = (max_shift - base_shift) / (most - base);
        patches as f64 * slope + (base_shift - slope * base)
    }

    /// The calls of the model that a run on this schedule makes: those from `start` of it to `end`, shares of the
    /// training timesteps from noise to picture.
    ///
    /// A share is turned into a training timestep, and the run has the calls before it (for `end`) or after it (for
    /// `start`), as in diffusers' pipelines for Stable Diffusion XL.
    ///
    /// # Errors
    /// [`Error::Input`] naming the share that leaves no call.
    pub fn span(&self, schedule: &dyn Scheduler, start: Option<f64>, end: Option<f64>) -> Result<Range<usize>> {
        let train = self.setting("num_train_timesteps").unwrap_or(1000.0);
        let timestep = |share: f64| (train - share * train).round_ties_even();
        let timesteps = schedule.timesteps();
        let calls = timesteps.len();
        let none = |key: &str, share: f64| {
            let problem = format!("{share} leaves none of the {calls} calls of the model");
            Error::input(format!("run.{key}"), problem, "choose another share, or more steps")
        };
        let mut span = 0..calls;
        if let Some(share) = start {
            let cut = timestep(share);
            let mut left = timesteps.iter().filter(|t| **t < cut).count();
            // A step of two calls is begun with its first.
            if schedule.order() == 2 && left.is_multiple_of(2) {
                left += 1;
            }
            span.start = calls - left.min(calls);
            if left == 0 {
                return Err(none("denoising_start", share));
            }
        }
        if let Some(share) = end {
            let cut = timestep(share);
            span.end = span.start + timesteps[span.clone()].iter().filter(|t| **t >= cut).count();
            if span.is_empty() {
                return Err(none("denoising_end", share));
            }
        }
        Ok(span)
    }

    /// A number of the merged configuration, where it is set.
    fn setting(&self, key: &str) -> Option<f64> {
        self.table.get(key).or_else(|| self.model.get(key)).and_then(serde_json::Value::as_f64)
    }

    /// Another scheduler over the same model's configuration, with nothing of its table set; `None` where `name` is no
    /// scheduler's.
    pub fn another(&self, name: &str) -> Option<Self> {
        let entry = scheduler::find(name)?;
        Some(Self { name: name.to_owned(), entry, table: Config::new(), ..self.clone() })
    }

    /// Builds the schedule of a run.
    ///
    /// # Errors
    /// [`Error::Scheduler`] naming the key at fault.
    pub fn build(&self, request: &scheduler::Request) -> Result<Box<dyn Scheduler>> {
        scheduler::build(&self.name, Some(&self.model), &self.table, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where diffusers' pipelines for Stable Diffusion XL cut schedules in two, recorded by
    /// scripts/golden_custom_schedules.py.
    #[test]
    fn schedules_are_cut_where_diffusers_cuts_them() {
        type Row = (String, usize, Option<f64>, Option<f64>, usize, usize);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/custom-schedules/spans.json");
        let rows: Vec<Row> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(rows.len(), 126);
        for (name, steps, start, end, first, after) in rows {
            let betas = [("beta_start", 0.00085.into()), ("beta_end", 0.012.into())];
            let words = [("beta_schedule", "scaled_linear".into())];
            let mut table: Config = betas.into_iter().chain(words).map(|(k, v)| (k.to_owned(), v)).collect();
            if name == "pndm" {
                table.insert("skip_prk_steps".to_owned(), true.into());
            }
            let entry = scheduler::find(&name).unwrap();
            let choice =
                SchedulerChoice { name: name.clone(), entry, model: Config::new(), table, falls_evenly: false };
            let schedule = choice.build(&choice.request(steps, None, None, None)).unwrap();
            match choice.span(schedule.as_ref(), start, end) {
                Ok(span) => assert_eq!(span, first..after, "{name}, {steps} steps, {start:?} to {end:?}"),
                Err(error) => assert_eq!(first, after, "{name}, {steps} steps, {start:?} to {end:?}: {error}"),
            }
        }
    }
}
