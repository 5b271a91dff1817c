//! A prompt becomes a picture.

use super::prompt::{condition, guidance};
use super::{Stage, Start, Task};
use crate::denoise::Guidance;
use crate::error::Result;
use crate::spec::TextToImage;

impl Task for TextToImage {
    fn name(&self) -> &'static str {
        "text-to-image"
    }

    fn prompts(&self) -> &[String] {
        &self.prompting.prompts
    }

    fn negative_prompts(&self) -> &[String] {
        &self.prompting.negative_prompts
    }

    fn guidance(&self) -> Guidance {
        guidance(&self.prompting)
    }

    fn start(&self, stage: &mut Stage<'_>) -> Result<Start> {
        let condition = condition(&self.prompting, stage)?;
        Ok(Start { sample: stage.noise_start()?, begin: 0, condition, guidance: self.guidance() })
    }
}
