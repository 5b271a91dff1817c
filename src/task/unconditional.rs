//! `[task.unconditional]`: an image like those that the model was trained on.

use super::context::{Start, TaskContext};
use super::contract::{Task, TaskEntry};
use super::evidence::ModelEvidence;
use crate::denoise::{Condition, Guidance};
use crate::error::Result;
use crate::family::Defaults;

/// `[task.unconditional]`: an image like those that the model was trained on. The table has no keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unconditional;

pub(super) static ENTRY: TaskEntry = TaskEntry {
    name: "unconditional",
    about: "An image of what the model was trained on, without a prompt.",
    read: |_| Box::new(Unconditional),
    fit,
    sample: |_| Vec::new(),
    own_models: None,
    defaults: Defaults::PLAIN,
};

fn fit(model: &ModelEvidence) -> Result<(), String> {
    model.require_plain()?;
    if model.has_context || model.has_classes {
        return Err("the denoiser wants a condition".to_owned());
    }
    model.decoder.clone()
}

impl Task for Unconditional {
    fn entry(&self) -> Option<&'static TaskEntry> {
        Some(&ENTRY)
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        Ok(Start::from_noise(stage.noise_start()?, Condition::default(), Guidance::Off))
    }
}
