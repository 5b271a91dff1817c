//! A picture redrawn towards a prompt (SDEdit, Meng et al. 2022, arXiv 2108.01073).

use ndarray::{Axis, concatenate};

use super::prompt::{condition, guidance};
use super::{Stage, Start, Task};
use crate::denoise::Guidance;
use crate::error::{Error, Result};
use crate::image;
use crate::spec::ImageToImage;

impl Task for ImageToImage {
    fn name(&self) -> &'static str {
        "image-to-image"
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

    fn needs_encoder(&self) -> bool {
        true
    }

    fn natural_size(&self) -> Result<Option<(usize, usize)>> {
        image::dimensions(&self.image).map(Some)
    }

    fn check(&self, steps: usize) -> Result<()> {
        steps_run(self.strength, steps).map(drop)
    }

    fn strength(&self) -> Option<f64> {
        Some(self.strength)
    }

    fn start(&self, stage: &mut Stage<'_>) -> Result<Start> {
        let begin = (stage.steps - steps_run(self.strength, stage.steps)?) * stage.scheduler.order();

        let condition = condition(&self.prompting, stage)?;
        let picture = image::load(&self.image)?;
        let picture = image::resize(&picture, stage.size.0, stage.size.1)?;
        let pixels = image::to_tensor(&picture).into_dyn();
        let Some(encoder) = stage.encoder.as_deref_mut() else {
            return Err(Error::input("task.image-to-image", "this model directory has no vae_encoder", ""));
        };
        let posterior = encoder.encode(pixels.view(), stage.cancel)?;
        let scaling = encoder.scaling();
        let latents: Vec<_> =
            (0..stage.images()).map(|i| posterior.sample(scaling, |out| stage.noise.draw(i, out))).collect();
        let views: Vec<_> = latents.iter().map(|l| l.view()).collect();
        let latents = concatenate(Axis(0), &views).map_err(|e| Error::input("image", e.to_string(), ""))?;
        if latents.shape()[1..] != stage.sample_shape {
            return Err(Error::input(
                self.image.display().to_string(),
                format!("encoded to {:?}, and the denoiser takes {:?}", &latents.shape()[1..], stage.sample_shape),
                "",
            ));
        }
        let noise = stage.unit_noise()?;
        let mut sample = noise.clone();
        match (latents.as_slice(), noise.as_slice(), sample.as_slice_mut()) {
            (Some(x0), Some(noise), Some(out)) => stage.scheduler.add_noise(begin, x0, noise, out),
            _ => return Err(Error::input("latents", "not laid out in row-major order", "")),
        }
        Ok(Start { sample, begin, condition, guidance: self.guidance() })
    }
}

/// How many of the user's steps are run: whole ones, rounded down, which is the arithmetic of diffusers'
/// `get_timesteps`.
fn steps_run(strength: f64, steps: usize) -> Result<usize> {
    match ((steps as f64 * strength) as usize).min(steps) {
        0 => Err(Error::input(
            "task.image-to-image.strength",
            format!("{strength} of {steps} steps is less than one step"),
            format!("raise strength to at least {:.3}, or raise run.steps", 1.0 / steps as f64),
        )),
        run => Ok(run),
    }
}
