//! Images from noise alone, or from noise and the `[[condition]]` tables.

use super::{Start, Task, TaskContext, TaskModel};
use crate::denoise::{Condition, Guidance};
use crate::error::Result;
use crate::spec::{self, Conditional};

/// `[task.unconditional]`: from pure noise, towards whatever the model was trained on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unconditional;

impl Task for Unconditional {
    fn name(&self) -> &'static str {
        "unconditional"
    }

    fn to_spec(&self) -> Option<spec::TaskSpec> {
        Some(spec::TaskSpec::Unconditional)
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        Ok(Start::from_noise(stage.noise_start()?, Condition::default(), Guidance::Off))
    }
}

impl Task for Conditional {
    fn name(&self) -> &'static str {
        "conditional"
    }

    fn to_spec(&self) -> Option<spec::TaskSpec> {
        Some(spec::TaskSpec::Conditional(self.clone()))
    }

    fn guidance_scale(&self, _model: &TaskModel) -> f64 {
        self.guidance_scale
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = Guidance::classifier_free(self.guidance_scale, 0.0);
        Ok(Start::from_noise(stage.noise_start()?, Condition::default(), guidance))
    }
}
