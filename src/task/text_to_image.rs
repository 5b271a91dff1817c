//! `[task.text-to-image]`: an image from a prompt.

use super::context::{Start, TaskContext};
use super::contract::{Task, TaskEntry};
use super::evidence::ModelEvidence;
use super::prompt::{condition, guidance};
use super::prompting::Prompting;
use crate::error::Result;
use crate::family::Defaults;
use crate::keys::Writer;

/// `[task.text-to-image]`: an image from a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct TextToImage {
    /// The prompt and its guidance.
    pub prompting: Prompting,
}

pub(super) static ENTRY: TaskEntry = TaskEntry {
    name: "text-to-image",
    about: "A prompt becomes an image.",
    read: |table| Box::new(TextToImage { prompting: Prompting::read(table) }),
    fit,
    sample: |sample| vec![sample.prompt(), sample.negative_prompt(), sample.guidance_scale()],
    own_models: None,
    defaults: Defaults::PLAIN,
};

fn fit(model: &ModelEvidence) -> Result<(), String> {
    model.require_plain()?;
    if model.embeds_classes {
        return Err("the denoiser wants classes".to_owned());
    }
    if model.is_refiner {
        return Err("the model is a refiner: it finishes images that another model began".to_owned());
    }
    model.text.clone().and(model.decoder.clone())
}

impl Task for TextToImage {
    fn entry(&self) -> Option<&'static TaskEntry> {
        Some(&ENTRY)
    }

    fn write(&self, writer: &mut Writer) {
        self.prompting.write(writer);
    }

    fn prompting(&self) -> Option<&Prompting> {
        Some(&self.prompting)
    }

    fn prompting_mut(&mut self) -> Option<&mut Prompting> {
        Some(&mut self.prompting)
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = guidance(&self.prompting, stage);
        let told = condition(&self.prompting, guidance, stage)?;
        Ok(Start::from_noise(stage.noise_start()?, told, guidance))
    }
}
