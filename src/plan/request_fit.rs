//! Requests held to what a pipeline was opened for.

use super::model::ModelPlan;
use crate::bundle::ComponentKind;
use crate::error::{Error, Result};
use crate::task::Task;

impl ModelPlan {
    /// Requires that a pipeline of this plan loads what `task` needs.
    ///
    /// # Errors
    /// [`Error::Input`] naming both tasks and the component that is not loaded.
    pub(crate) fn require_task(&self, task: &dyn Task) -> Result<()> {
        let needs = [
            (ComponentKind::VaeEncoder, task.needs_encoder() && self.encoder.is_none()),
            (ComponentKind::TextEncoder, task.prompting().is_some() && self.text.is_none()),
            (ComponentKind::ClassEmbedder, task.classes().is_some() && self.model.classes.is_none()),
        ];
        match needs.into_iter().find(|(_, is_missing)| *is_missing) {
            None => Ok(()),
            Some((kind, _)) => Err(Error::input(
                "task",
                format!(
                    "{} is requested, and the pipeline was opened for {}, which loads no {kind}",
                    task.name(),
                    self.task
                ),
                "open another pipeline with the plan of this request: Pipeline::load(plan.model, …)",
            )),
        }
    }
}
