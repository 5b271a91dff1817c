//! A pipeline, checked.

use std::sync::Arc;

use super::execution_plan::ExecutionPlan;
use super::model::ModelPlan;
use super::run_plan::RunPlan;
use super::settings::PlannedSettings;
use crate::error::Result;
use crate::graph_cache::GraphCache;
use crate::spec::{Spec, StageInput};

/// A pipeline, checked.
#[derive(Debug)]
pub struct Plan {
    /// The pipeline as written, with the seed and the sizes that were chosen where it left them open.
    pub spec: Spec,
    /// The model. If a stage goes on with the latents and nobody keeps the image, it has no decoder.
    pub model: Arc<ModelPlan>,
    /// The way in which the model runs on this machine.
    pub execution: ExecutionPlan,
    /// The run.
    pub request: RunPlan,
    /// The settings of the run as they were planned.
    pub(crate) settings: Arc<PlannedSettings>,
    /// The `[[stage]]` tables, which go on with the results.
    pub stages: Vec<StagePlan>,
}

/// A `[[stage]]`, checked.
#[derive(Debug)]
pub struct StagePlan {
    /// The key of its table, such as `stage[0]`.
    pub key: String,
    /// The form in which it gets the results of the stage before it.
    pub hand: StageInput,
    /// The model.
    pub model: Arc<ModelPlan>,
    /// The way in which the model runs on this machine.
    pub execution: ExecutionPlan,
    /// The run of each image of the stage before it.
    pub request: RunPlan,
    /// The settings of that run as they were planned.
    pub(crate) settings: Arc<PlannedSettings>,
    /// Warnings about this stage and the one before it.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The ways in which the models run on this machine, in the order of the stages.
    pub fn executions(&self) -> impl Iterator<Item = &ExecutionPlan> {
        std::iter::once(&self.execution).chain(self.stages.iter().map(|stage| &stage.execution))
    }

    /// Has the graphs of all stages kept in `cache` once they were optimized for this machine.
    pub fn set_graph_cache(&mut self, cache: Option<&GraphCache>) {
        let stages = self.stages.iter_mut().map(|stage| &mut stage.execution);
        std::iter::once(&mut self.execution).chain(stages).for_each(|plan| plan.graph_cache = cache.cloned());
    }

    /// Requires a cache for optimized graphs where a memory budget is set.
    ///
    /// # Errors
    /// As [`ExecutionPlan::require_cache`], within [`Error::Stage`](crate::Error::Stage) where it is about a `[[stage]]`.
    pub fn require_cache(&self) -> Result<()> {
        self.execution.require_cache()?;
        self.stages.iter().try_for_each(|stage| stage.execution.require_cache().map_err(|e| e.in_stage(&stage.key)))
    }
}
