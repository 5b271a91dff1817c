//! Pictures from noise alone.

use super::{Stage, Start, Task};
use crate::denoise::{Condition, Guidance};
use crate::error::Result;

/// `[task.unconditional]`: from pure noise, towards whatever the model was trained on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unconditional {
    /// One empty prompt: one group of pictures.
    prompts: [String; 1],
}

impl Task for Unconditional {
    fn name(&self) -> &'static str {
        "unconditional"
    }

    fn prompts(&self) -> &[String] {
        &self.prompts
    }

    fn needs_text(&self) -> bool {
        false
    }

    fn start(&self, stage: &mut Stage<'_>) -> Result<Start> {
        Ok(Start { sample: stage.noise_start()?, begin: 0, condition: Condition::default(), guidance: Guidance::OFF })
    }
}
