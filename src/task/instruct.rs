//! A picture changed as a prompt says (InstructPix2Pix, Brooks et al. 2023, arXiv 2211.09800).

use ndarray::{ArrayD, Axis, concatenate};

use super::picture::{dimensions, pixels, posterior, repeated};
use super::prompt::condition;
use super::{Stage, Start, Task};
use crate::denoise::Guidance;
use crate::error::{Error, Result};
use crate::spec::{Instruct, Prompting};

impl Task for Instruct {
    fn name(&self) -> &'static str {
        "instruct"
    }

    fn prompting(&self) -> Option<&Prompting> {
        Some(&self.prompting)
    }

    fn branches(&self, _has_learnt: bool) -> usize {
        guidance(self).branches().len()
    }

    fn needs_encoder(&self) -> bool {
        true
    }

    fn concatenated(&self, latent_channels: usize, _in_channels: usize) -> usize {
        latent_channels
    }

    fn natural_size(&self, _factor: usize, handed: Option<(usize, usize)>) -> Result<Option<(usize, usize)>> {
        dimensions(&self.image, handed)
    }

    fn start(&self, stage: &mut Stage<'_>) -> Result<Start> {
        let guidance = guidance(self);
        let mut told = condition(&self.prompting, guidance, stage)?;
        let pixels = pixels(&self.image, stage.size, stage.handed.as_ref())?;
        let posterior = posterior(&pixels, &self.image, stage)?;
        // The latents that are followed are not scaled, those that are drawn are.
        let picture = repeated(posterior.mode().to_owned(), stage.images());
        let nothing = ArrayD::zeros(picture.raw_dim());
        let branches = guidance.branches().iter().map(|b| if b.image { picture.view() } else { nothing.view() });
        let branches: Vec<_> = branches.collect();
        let channels = concatenate(Axis(0), &branches).map_err(|e| Error::input("image", e.to_string(), ""))?;
        told.channels = Some(channels);
        Ok(Start::from_noise(stage.noise_start()?, told, guidance))
    }
}

/// Both guidances, or none where the text's weight is none.
fn guidance(task: &Instruct) -> Guidance {
    let text = task.prompting.guidance_scale;
    match text > 1.0 {
        true => Guidance::Instruct { text, image: task.image_guidance_scale },
        false => Guidance::Off,
    }
}
