//! `[task.conditional]`: an image of what the `[[condition]]` tables say.

use std::ops::Bound::{Included, Unbounded};

use super::context::{Start, TaskContext, TaskModel};
use super::contract::{Task, TaskEntry};
use super::evidence::ModelEvidence;
use super::guidance_interval;
use super::sample_keys::SampleKeys;
use crate::denoise::{Condition, Guidance};
use crate::error::Result;
use crate::family::Defaults;
use crate::keys::{Table, Writer};

/// `[task.conditional]`: an image of what the `[[condition]]` tables say.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditional {
    /// `guidance_scale = 1.0`: the weight of classifier-free guidance away from zeros instead of the conditions, 0 or
    /// more; up to 1 there is no guidance.
    pub guidance_scale: f64,
    /// `guidance_interval = [0.2, 0.8]`: the shares of the run between which guidance is applied, as in
    /// [`Prompting::guidance_interval`](super::Prompting::guidance_interval).
    pub guidance_interval: Option<[f64; 2]>,
}

pub(super) static ENTRY: TaskEntry = TaskEntry {
    name: "conditional",
    about: "An image of what the [[condition]] tables say.",
    read: |table| Box::new(Conditional::read(table)),
    fit,
    sample: |sample| sample.bundle.conditioners.iter().flat_map(|folder| SampleKeys::condition(folder)).collect(),
    own_models: None,
    defaults: Defaults::PLAIN,
};

fn fit(model: &ModelEvidence) -> Result<(), String> {
    if model.conditioners.is_empty() {
        return Err("the directory has no graph for another condition".to_owned());
    }
    model.decoder.clone()
}

impl Conditional {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            guidance_scale: table.number("guidance_scale", Included(0.0), Unbounded).unwrap_or(1.0),
            guidance_interval: guidance_interval::read(table),
        }
    }
}

impl Task for Conditional {
    fn entry(&self) -> Option<&'static TaskEntry> {
        Some(&ENTRY)
    }

    fn write(&self, writer: &mut Writer) {
        writer.key("guidance_scale", self.guidance_scale);
        guidance_interval::write(self.guidance_interval, writer);
    }

    fn guidance_scale(&self, _model: &TaskModel) -> f64 {
        self.guidance_scale
    }

    fn guidance_interval(&self) -> Option<[f64; 2]> {
        self.guidance_interval
    }

    fn set_guidance_interval(&mut self, interval: Option<[f64; 2]>) {
        self.guidance_interval = interval;
    }

    fn needs_conditions(&self) -> bool {
        true
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = Guidance::classifier_free(self.guidance_scale, 0.0);
        Ok(Start::from_noise(stage.noise_start()?, Condition::default(), guidance))
    }
}
