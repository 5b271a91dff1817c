//! The values of keys that a pipeline file leaves open.

use super::default_value::DefaultValue;
use super::model::ModelPlan;
use super::scheduler::{ETA, SchedulerChoice};
use super::text::TextPlan;
use crate::bundle::{Bundle, CallDefaults, Fact, Role};
use crate::spec::Spec;
use crate::task::Task;

/// The defaults of a task on a model, and a list of those that were used.
pub(super) struct Filling {
    pub(super) call: CallDefaults,
    pub(super) filled: Vec<DefaultValue>,
}

impl Filling {
    /// Writes the task's defaults into the keys of its table and of `[[control]]` that are open.
    pub(super) fn of(spec: &mut Spec, bundle: &Bundle) -> Self {
        let call = bundle.call_defaults(&spec.task.call(), !spec.controls.is_empty());
        let mut filling = Self { call, filled: Vec::new() };
        let values = call.values;
        let task = spec.task.name();
        if let Some(prompting) = spec.task.prompting_mut() {
            filling
                .number(&mut prompting.guidance_scale, Some(values.guidance_scale()), || table(task, "guidance_scale"));
        }
        let begins_late = spec.run.denoising_start.is_some();
        if let Some(strength) = spec.task.strength_mut().filter(|_| !begins_late) {
            filling.number(strength, values.strength, || table(task, "strength"));
        }
        for (at, control) in spec.controls.iter_mut().enumerate() {
            filling.number(&mut control.scale, values.control_scale, || format!("control[{at}].scale"));
        }
        filling
    }

    fn number(&mut self, place: &mut Option<f64>, default: Option<f64>, key: impl Fn() -> String) {
        if let (None, Some(value)) = (&place, default) {
            self.add(key(), format!("{value:?}"));
            *place = default;
        }
    }

    /// Takes down a value of the class's defaults that was used.
    pub(super) fn add(&mut self, key: impl Into<String>, value: impl ToString) {
        self.filled.push(DefaultValue { key: key.into(), value: value.to_string(), source: self.call.source() });
    }

    /// Takes down what the plan took of the defaults.
    pub(super) fn add_planned(&mut self, spec: &Spec, model: &ModelPlan, scheduler: &SchedulerChoice) {
        let (task, run) = (spec.task.name(), &spec.run);
        if run.steps.is_none() && run.timesteps.is_none() && run.sigmas.is_none() {
            self.add("run.steps", self.call.values.steps);
        }
        for (key, value) in spec.task.used_defaults(&model.model) {
            self.add(table(task, key), value);
        }
        let given = spec.task.prompting().and_then(|prompting| prompting.reading.max_sequence_length);
        if let (None, Some(length)) = (given, model.text.as_ref().and_then(TextPlan::t5_length)) {
            self.add(table(task, "max_sequence_length"), length);
        }
        let has_eta = spec.scheduler.as_ref().is_some_and(|chosen| chosen.table.contains_key(ETA));
        if let (false, Some(eta)) = (has_eta, scheduler.table.get(ETA)) {
            self.add(format!("scheduler.{}.{ETA}", scheduler.entry.name), eta);
        }
    }

    /// Takes down the size, where the file does not give both sides.
    pub(super) fn add_size(&mut self, spec: &Spec, size: &Fact<(usize, usize)>) {
        let (width, height) = size.value;
        for (key, given, length) in [("run.width", spec.run.width, width), ("run.height", spec.run.height, height)] {
            if given.is_none() {
                let (key, value) = (key.to_owned(), length.to_string());
                self.filled.push(DefaultValue { key, value, source: size.source.clone() });
            }
        }
    }
}

/// The name of a key of the task's table.
pub(super) fn table(task: &str, key: &str) -> String {
    format!("task.{task}.{key}")
}

/// The strength that a schedule may be planned for: `LatentConsistencyModelImg2ImgPipeline` counts it in the steps of the
/// model's training and runs as many steps as are asked for. Another class counts it in steps, on such a UNet too.
pub(super) fn planned_strength(
    spec: &Spec,
    bundle: &Bundle,
    model: Option<&ModelPlan>,
    task: &dyn Task,
) -> Option<f64> {
    let is_consistent = model.is_some_and(|model| model.model.denoiser.takes(Role::TimestepCond));
    let class = bundle.pipeline_class(task.name(), !spec.controls.is_empty());
    let plans = class.is_none_or(|class| class.counts_strength_in_training);
    let is_planned = is_consistent && plans && task.plans_strength() && spec.run.denoising_start.is_none();
    task.strength().filter(|_| is_planned)
}
