//! The scheduler of a request.

use std::ops::Range;

use super::scheduler_config::{AppliedCorrection, ModelScheduler};
use crate::bundle::{Bundle, DenoiserSignature};
use crate::error::{Error, Result, count_of};
use crate::scheduler::{self, Config, CustomSchedule, FinalSigma, Scheduler};
use crate::spec::Spec;
use crate::task::{Rounding, Task};

/// The scheduler of a request: whose class, from which configuration.
#[derive(Clone)]
pub struct SchedulerChoice {
    /// The name under which it was asked for, which may stand for keys of its own (`DPM++ 2M Karras`).
    pub name: String,
    /// Its row of the table.
    pub entry: &'static scheduler::SchedulerEntry,
    /// The model's scheduler_config.json, with `[model] prediction_type` over it and as the pipeline class of the task
    /// corrects it.
    pub model: Config,
    /// The corrections in `model`, those among them that the pipeline's table overrides aside.
    pub corrections: Vec<AppliedCorrection>,
    /// The pipeline's table, which goes over it.
    pub table: Config,
    /// True if the model's family gives the noise levels that the pipeline file leaves open: Flux's fall evenly.
    pub falls_evenly: bool,
    /// The source of `model`.
    file: ModelScheduler,
}

impl std::fmt::Debug for SchedulerChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerChoice").field("name", &self.name).field("table", &self.table).finish_non_exhaustive()
    }
}

/// The key of a scheduler's table that diffusers' pipelines hand to each step.
pub(super) const ETA: &str = "eta";

/// Returns the request that a scheduler is built for.
pub(super) fn request(
    steps: usize,
    custom: Option<CustomSchedule>,
    strength: Option<f64>,
    mu: Option<f64>,
    images: usize,
) -> scheduler::ScheduleRequest {
    let mut request = scheduler::ScheduleRequest::new(steps, images);
    request.custom = custom;
    request.mu = mu;
    request.strength = strength.unwrap_or(1.0);
    request
}

impl SchedulerChoice {
    /// The pipeline's scheduler, or else the model's own. `eta` is what the task's pipeline class hands to schedulers that
    /// take it, unless the pipeline's table has one.
    ///
    /// # Errors
    /// [`Error::Model`] where neither names one, or the model names one that nobody knows.
    pub fn new(spec: &Spec, bundle: &Bundle, eta: Option<f64>) -> Result<Self> {
        let names = || scheduler::table().iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        let model = bundle.scheduler.as_ref();
        let pipeline = bundle.pipeline_class(spec.task.name(), !spec.controls.is_empty());
        let converted = pipeline.and_then(|class| class.scheduler);
        let (wanted, mut table) = match (&spec.scheduler, model) {
            (Some(chosen), _) => (chosen.name.as_str(), chosen.table.clone()),
            (None, Some(file)) => match converted.or(file.class.as_deref()) {
                Some(class) => (class, Config::new()),
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
        if let Some(eta) = eta.filter(|_| entry.keys.iter().any(|key| key.name == ETA)) {
            table.entry(ETA).or_insert_with(|| eta.into());
        }
        let file = ModelScheduler::new(model, spec.model.prediction_type.as_deref(), pipeline);
        let signature = bundle.denoiser().and_then(DenoiserSignature::resolve);
        let falls_evenly = signature.is_ok_and(|signature| signature.is_packed());
        Ok(Self::over(file, wanted, entry, table, falls_evenly))
    }

    /// A scheduler over a model's file, with the keys of a table.
    fn over(
        file: ModelScheduler,
        name: &str,
        entry: &'static scheduler::SchedulerEntry,
        table: Config,
        falls_evenly: bool,
    ) -> Self {
        let (model, mut corrections) = file.for_class(entry);
        corrections.retain(|correction| !table.contains_key(correction.key));
        Self { name: name.to_owned(), entry, model, corrections, table, falls_evenly, file }
    }

    /// The schedule that the model's family gives outright, where the pipeline file gives none.
    pub fn of_family(&self, steps: usize) -> Option<CustomSchedule> {
        let makes_its_own =
            self.switch("use_flow_sigmas") || self.entry.custom_schedules.sigmas != Some(FinalSigma::Appended);
        (self.falls_evenly && !makes_its_own).then(|| CustomSchedule::falling_evenly(steps))
    }

    /// The calls of the model that a run on this schedule makes: those from `start` of it to `end`, shares of the
    /// training timesteps from noise to image.
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
            let problem = format!("{share} leaves none of the model's {}", count_of(calls, "call"));
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

    /// Requires that a model of rectified flow gets a sampler of flows; any other would draw noise without a word.
    ///
    /// # Errors
    /// [`Error::Input`] naming the scheduler.
    pub fn fits(&self, is_flow: bool) -> Result<()> {
        let value = |key: &str| self.table.get(key).or_else(|| self.model.get(key));
        let turned_to_flow = value("use_flow_sigmas").and_then(serde_json::Value::as_bool) == Some(true)
            && value("prediction_type").and_then(serde_json::Value::as_str) == Some("flow_prediction");
        if !is_flow || self.entry.class.starts_with("FlowMatch") || turned_to_flow {
            return Ok(());
        }
        let name = self.entry.name;
        let help = match self.entry.keys.iter().any(|key| key.name == "use_flow_sigmas") {
            true => "set use_flow_sigmas = true and prediction_type = \"flow_prediction\" in its table",
            false => "choose flow-match-euler or flow-match-heun",
        };
        let problem =
            "it follows a diffusion's noise, and this model is a rectified flow (Stable Diffusion 3 and its kin)";
        Err(Error::input(format!("scheduler.{name}"), problem, help))
    }

    /// The shift of the schedule for images that the denoiser reads as `tokens` patches, where the configuration asks
    /// for one: linear between those of the smallest and the largest image of training (Esser et al. 2024, arXiv
    /// 2403.03206, section 5.3.2; diffusers' `calculate_shift`).
    pub fn mu(&self, tokens: usize) -> Option<f64> {
        if !self.switch("use_dynamic_shifting") {
            return None;
        }
        let number = |key: &str, default: f64| self.setting(key).unwrap_or(default);
        let (least, most) = (number("base_image_seq_len", 256.0), number("max_image_seq_len", 4096.0));
        let (base, top) = (number("base_shift", 0.5), number("max_shift", 1.15));
        let slope = (top - base) / (most - least);
        Some(tokens as f64 * slope + (base - slope * least)).filter(|mu| mu.is_finite())
    }

    /// True if a switch of the merged configuration is on.
    fn switch(&self, key: &str) -> bool {
        self.table.get(key).or_else(|| self.model.get(key)).and_then(serde_json::Value::as_bool).unwrap_or(false)
    }

    /// A number of the merged configuration, where it is set.
    fn setting(&self, key: &str) -> Option<f64> {
        self.table.get(key).or_else(|| self.model.get(key)).and_then(serde_json::Value::as_f64)
    }

    /// Another scheduler over the same model's configuration, with nothing of its table set; `None` where `name` is no
    /// scheduler's.
    pub fn another(&self, name: &str) -> Option<Self> {
        let entry = scheduler::find(name)?;
        Some(Self::over(self.file.clone(), name, entry, Config::new(), self.falls_evenly))
    }

    /// Builds the schedule of a run.
    ///
    /// # Errors
    /// [`Error::Scheduler`] naming the key at fault.
    pub fn build(&self, request: &scheduler::ScheduleRequest) -> Result<Box<dyn Scheduler>> {
        scheduler::build(&self.name, Some(&self.model), &self.table, request)
    }
}

/// The scheduler with its steps, and the schedule where it is given outright, once all of them were found to agree.
pub(super) fn schedule(
    spec: &Spec,
    scheduler: SchedulerChoice,
    task: &dyn Task,
    (default_steps, planned_strength): (usize, Option<f64>),
    mu: Option<f64>,
    rounding: Rounding,
) -> Result<(SchedulerChoice, usize, Option<CustomSchedule>, Option<f64>)> {
    let planned_strength = planned_strength.filter(|_| scheduler.entry.takes_strength());
    let (steps, custom) = spec.run.schedule(scheduler.entry, default_steps);
    let custom = custom.or_else(|| scheduler.of_family(steps));
    let name = scheduler.entry.name;
    if scheduler.entry.inverse && task.strength().is_none() {
        return Err(Error::input(
            format!("scheduler.{name}"),
            format!("it leads from an image to the noise it comes from, and {} begins with noise", task.name()),
            "choose another scheduler, or give the image to [task.image-to-image] with strength = 1",
        ));
    }
    if let (Some(start), Some(_)) = (spec.run.denoising_start, &spec.run.latents) {
        return Err(Error::input(
            "run.latents",
            format!("it is noise, and a run with denoising_start = {start} begins without any"),
            "leave latents out; those of the first run belong into [task.image-to-image]",
        ));
    }
    let built = scheduler.build(&request(steps, custom.clone(), planned_strength, mu, 1))?;
    // A schedule that is planned for the strength has as many steps as are asked for, whatever the strength.
    if planned_strength.is_none() {
        task.check(steps, spec.run.denoising_start, rounding)?;
    }
    // A strength is counted in steps, and a few configurations make fewer of them than they are asked for.
    let calls = built.timesteps().len();
    let by_strength = task.strength().is_some() && spec.run.denoising_start.is_none();
    if by_strength && calls <= (steps - 1) * scheduler.entry.order {
        return Err(Error::input(
            "run.steps",
            format!("{steps} are asked for, and {name} as configured has a schedule of {calls} calls of the model"),
            format!("set steps = {}", calls.div_ceil(scheduler.entry.order).max(1)),
        ));
    }
    scheduler.span(built.as_ref(), spec.run.denoising_start, spec.run.denoising_end)?;
    Ok((scheduler, steps, custom, planned_strength))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places at which diffusers' pipelines for Stable Diffusion XL cut schedules in two, recorded by
    /// scripts/goldens/golden_custom_schedules.py.
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
            let choice = SchedulerChoice::over(ModelScheduler::default(), &name, entry, table, false);
            let schedule = choice.build(&request(steps, None, None, None, 1)).unwrap();
            match choice.span(schedule.as_ref(), start, end) {
                Ok(span) => assert_eq!(span, first..after, "{name}, {steps} steps, {start:?} to {end:?}"),
                Err(error) => assert_eq!(first, after, "{name}, {steps} steps, {start:?} to {end:?}: {error}"),
            }
        }
    }
}
