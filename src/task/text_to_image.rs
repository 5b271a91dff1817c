//! A prompt becomes an image.

use super::prompt::{condition, guidance};
use super::{Start, Task, TaskContext};
use crate::error::Result;
use crate::spec::{self, Prompting, TextToImage};

impl Task for TextToImage {
    fn name(&self) -> &'static str {
        "text-to-image"
    }

    fn to_spec(&self) -> Option<spec::TaskSpec> {
        Some(spec::TaskSpec::TextToImage(self.clone()))
    }

    fn prompting(&self) -> Option<&Prompting> {
        Some(&self.prompting)
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = guidance(&self.prompting, stage);
        let told = condition(&self.prompting, guidance, stage)?;
        Ok(Start::from_noise(stage.noise_start()?, told, guidance))
    }
}
