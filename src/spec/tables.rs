//! The tables that describe one model's run: those of a pipeline, and those of a stage.

use super::{
    ControlSpec, DeviceSpec, LoraSpec, ModelSpec, OldNames, OutputSpec, RunSpec, SchedulerSpec, Spec,
    TextualInversionSpec, cache, task,
};
use crate::conditioner::ConditionSpec;
use crate::keys::{Reading, Table, Writer};

impl Spec {
    /// Reads the tables that describe one model's run; `None` where it has no task.
    pub(super) fn read_tables(within: &mut Table<'_>, reading: &Reading<'_>) -> Option<Self> {
        let model = ModelSpec::read(within.table("model"));
        let task = task::read(within.table("task"));
        let scheduler = SchedulerSpec::read(within.table("scheduler"));
        let cache = cache::read(within.table("cache"));
        let conditions = within.tables("condition").into_iter().filter_map(ConditionSpec::read).collect();
        let controls = within.tables("control").into_iter().map(ControlSpec::read).collect();
        let loras = within.tables("lora").into_iter().map(LoraSpec::read).collect();
        let textual_inversions = within.tables("textual_inversion");
        let textual_inversions = textual_inversions.into_iter().map(TextualInversionSpec::read).collect();
        let run = RunSpec::read(within.table("run"));
        let device = DeviceSpec::read(within.table("device"));
        let output = OutputSpec::read(within.table("output"), reading);
        let stages = Vec::new();
        let task = task?;
        Some(Self {
            model,
            task,
            scheduler,
            cache,
            conditions,
            controls,
            textual_inversions,
            loras,
            run,
            device,
            output,
            stages,
            old_names: OldNames::default(),
        })
    }

    /// Writes the scheduler, the cache, and what there may be any number of.
    pub(super) fn write_parts(&self, writer: &mut Writer) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.write(writer);
        }
        if let Some(cache) = &self.cache {
            cache::write(cache, writer);
        }
        self.conditions.iter().for_each(|condition| condition.write(writer));
        self.controls.iter().for_each(|control| control.write(writer));
        self.loras.iter().for_each(|lora| lora.write(writer));
        self.textual_inversions.iter().for_each(|inversion| inversion.write(writer));
    }
}
