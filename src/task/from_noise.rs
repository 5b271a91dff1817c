//! Pictures from noise alone, or from noise and the `[[condition]]` tables.

use super::{Stage, Start, Task};
use crate::denoise::{Condition, Guidance};
use crate::error::Result;

/// `[task.unconditional]`: from pure noise, towards whatever the model was trained on; and `[task.conditional]`, where
/// the tables for conditions say what that is to show.
#[derive(Debug, Clone, PartialEq)]
pub struct FromNoise {
    /// The name of the task's table.
    pub name: &'static str,
}

impl Task for FromNoise {
    fn name(&self) -> &'static str {
        self.name
    }

    fn start(&self, stage: &mut Stage<'_>) -> Result<Start> {
        Ok(Start::from_noise(stage.noise_start()?, Condition::default(), Guidance::Off))
    }
}
