//! Requests that a pipeline opened for another task cannot run.

use super::{ConditionPart, ModelPlan, RunPlan};
use crate::bundle::ComponentKind;
use crate::error::{Error, Result};
use crate::task::{Class, PromptReading, Task};

/// The parts of a task that are settled when its pipeline is opened.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTask {
    /// The name of its table in pipeline.toml.
    pub name: &'static str,
    /// The reading of prompts, for tasks with prompts.
    pub reading: Option<PromptReading>,
    /// The classes to draw and the class that stands for none, for tasks with classes.
    pub classes: Option<(Vec<Class>, Option<usize>)>,
}

impl PlannedTask {
    pub(super) fn new(task: &dyn Task) -> Self {
        Self {
            name: task.name(),
            reading: task.prompting().map(|prompting| prompting.reading.clone()),
            classes: task.classes().map(|request| (request.classes.to_vec(), request.null_class)),
        }
    }
}

impl ModelPlan {
    /// Requires that what this plan opens is what a request needs, which may have been planned for another task.
    ///
    /// # Errors
    /// [`Error::Input`] naming both tasks and what differs.
    pub fn check_request(&self, request: &RunPlan) -> Result<()> {
        let task = request.task.as_ref();
        let (wanted, planned) = (PlannedTask::new(task), &self.task);
        let lacks = |component: &str| Some(format!("needs the {component}, which this pipeline did not load"));
        let needs_embedder = task.classes().is_some() && self.model.denoiser.context.is_some();
        let problem = if task.needs_encoder() && self.encoder.is_none() {
            lacks("VAE encoder")
        } else if wanted.reading.is_some() && self.text.is_none() {
            lacks("text encoders")
        } else if needs_embedder && self.class_embedder.is_none() {
            lacks(&ComponentKind::ClassEmbedder.to_string())
        } else if wanted.reading.is_some() && planned.reading.is_some() && wanted.reading != planned.reading {
            Some("reads its prompts in another way (weights, long_prompts, clip_skip, max_sequence_length)".to_owned())
        } else if wanted.classes != planned.classes {
            Some("draws other classes".to_owned())
        } else {
            self.other_channels(task)
        };
        match problem {
            None => Ok(()),
            Some(problem) => Err(Error::input(
                format!("task.{}", wanted.name),
                format!("{problem}; the pipeline was opened for task.{}", planned.name),
                "open a pipeline with the model of the plan that this request is from",
            )),
        }
    }

    /// The problem of a task that concatenates other channels, or follows another number of images, than the plan's own.
    fn other_channels(&self, task: &dyn Task) -> Option<String> {
        let follows = task.follows_image();
        if self.model.packed_images > 1 {
            return (!follows).then(|| "has no image for the denoiser to follow".to_owned());
        }
        let told: usize = self.conditions.iter().map(ConditionPart::channels).sum();
        let taken = self.model.denoiser.in_channels.map_or(self.channels, |taken| taken.saturating_sub(told));
        let concatenated = task.concatenated(self.channels, taken);
        let planned = self.model.concatenated;
        (concatenated != planned)
            .then(|| format!("concatenates {concatenated} channels to the latents where {planned} are expected"))
    }
}
