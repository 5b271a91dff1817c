//! A picture redrawn towards a prompt (SDEdit, Meng et al. 2022, arXiv 2108.01073).

use std::path::Path;

use ndarray::{ArrayD, Axis, concatenate};

use super::prompt::{condition, guidance};
use super::{Stage, Start, Task};
use crate::denoise::Guidance;
use crate::error::{Error, Result};
use crate::spec::{Beginning, ImageToImage};
use crate::{image, npy};

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
        matches!(self.begin, Beginning::Image(_))
    }

    fn natural_size(&self) -> Result<Option<(usize, usize)>> {
        match &self.begin {
            Beginning::Image(path) => image::dimensions(path).map(Some),
            Beginning::Latents(_) => Ok(None),
        }
    }

    fn check(&self, steps: usize, denoising_start: Option<f64>) -> Result<()> {
        match (denoising_start, self.strength) {
            (None, _) => steps_run(self.strength(), steps).map(drop),
            (Some(_), None) => Ok(()),
            (Some(start), Some(strength)) => Err(Error::input(
                "task.image-to-image.strength",
                format!("{strength} is given beside run.denoising_start = {start}, and both say where the run begins"),
                "keep one of them",
            )),
        }
    }

    fn strength(&self) -> Option<f64> {
        Some(Self::strength(self))
    }

    fn start(&self, stage: &mut Stage<'_>) -> Result<Start> {
        let condition = condition(&self.prompting, stage)?;
        let latents = match &self.begin {
            Beginning::Image(path) => encoded(path, stage)?,
            Beginning::Latents(path) => given(path, stage)?,
        };
        let guidance = self.guidance();
        if let Some(begin) = stage.denoising_start {
            return Ok(Start { sample: latents, begin, condition, guidance });
        }
        let begin = (stage.steps - steps_run(self.strength(), stage.steps)?) * stage.scheduler.order();
        let noise = stage.unit_noise()?;
        let mut sample = noise.clone();
        match (latents.as_slice(), noise.as_slice(), sample.as_slice_mut()) {
            (Some(x0), Some(noise), Some(out)) => stage.scheduler.add_noise(begin, x0, noise, out),
            _ => return Err(Error::input("latents", "not laid out in row-major order", "")),
        }
        Ok(Start { sample, begin, condition, guidance })
    }
}

/// The latents of a picture, drawn for each picture of the batch from the first stage's posterior.
fn encoded(path: &Path, stage: &mut Stage<'_>) -> Result<ArrayD<f32>> {
    let picture = image::load(path)?;
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
            path.display().to_string(),
            format!("encoded to {:?}, and the denoiser takes {:?}", &latents.shape()[1..], stage.sample_shape),
            "",
        ));
    }
    Ok(latents)
}

/// The latents of a file for this batch: one for all pictures, or one a picture.
fn given(path: &Path, stage: &Stage<'_>) -> Result<ArrayD<f32>> {
    let latents = npy::read_f32(path)?;
    let [c, h, w] = stage.sample_shape;
    let fits = latents.ndim() == 4 && latents.shape()[1..] == [c, h, w];
    let rows = if fits { latents.shape()[0] } else { 0 };
    if rows != 1 && rows != stage.pictures {
        return Err(Error::input(
            path.display().to_string(),
            format!(
                "holds an array of shape {:?}, and this run needs [{}, {c}, {h}, {w}]",
                latents.shape(),
                stage.pictures
            ),
            "latents are [pictures or 1, channels, height/f, width/f], as --save-latents writes them",
        ));
    }
    if latents.iter().any(|value| !value.is_finite()) {
        return Err(Error::input(path.display().to_string(), "holds values that are not finite", "make it anew"));
    }
    let first = if rows == 1 { 0 } else { stage.first };
    let last = if rows == 1 { 1 } else { stage.first + stage.images() };
    let part = super::rows(&latents, first..last);
    if rows == 1 {
        let all = part.broadcast(stage.batch_shape()).map(|all| all.as_standard_layout().into_owned());
        return all.ok_or_else(|| Error::input("latents", "one sample does not stand for a batch", ""));
    }
    Ok(part)
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
