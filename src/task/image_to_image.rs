//! An image redrawn towards a prompt (SDEdit, Meng et al. 2022, arXiv 2108.01073).

use std::path::Path;

use ndarray::ArrayD;

use super::input_image::{drawn, handed_nothing, pixels, posterior};
use super::prompt::{condition, guidance};
use super::{Handed, InputRequirements, Rounding, Start, Task, TaskContext, steps_run};
use crate::error::{Error, Result};
use crate::image::{self, InputLimit};
use crate::npy;
use crate::spec::{self, Beginning, ImageToImage, InputImage, Prompting, StageInput};

impl Task for ImageToImage {
    fn name(&self) -> &'static str {
        "image-to-image"
    }

    fn to_spec(&self) -> Option<spec::TaskSpec> {
        Some(spec::TaskSpec::ImageToImage(self.clone()))
    }

    fn prompting(&self) -> Option<&Prompting> {
        Some(&self.prompting)
    }

    fn needs_encoder(&self) -> bool {
        matches!(self.begin, Beginning::Image(_) | Beginning::Handed(StageInput::Image))
    }

    fn natural_size(
        &self,
        _factor: usize,
        handed: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        match &self.begin {
            Beginning::Image(path) => image::dimensions(path, limit).map(Some),
            Beginning::Latents(path) => read(path).map(|_| None),
            Beginning::Handed(_) => Ok(handed),
        }
    }

    fn check(&self, steps: usize, denoising_start: Option<f64>, rounding: Rounding) -> Result<()> {
        match (denoising_start, self.strength) {
            (None, strength) => steps_run(STRENGTH, strength.unwrap_or(1.0), steps, rounding).map(drop),
            (Some(_), None) => Ok(()),
            (Some(start), Some(strength)) => Err(Error::input(
                STRENGTH,
                format!("{strength} is given beside run.denoising_start = {start}, and both say where the run begins"),
                "keep one of them",
            )),
        }
    }

    fn strength(&self) -> Option<f64> {
        Some(self.strength.unwrap_or(1.0))
    }

    fn check_inputs(&self, run: &InputRequirements) -> Result<()> {
        match &self.begin {
            Beginning::Image(path) => image::load(path, run.limit).map(drop),
            Beginning::Latents(path) => require_fit(path, &read(path)?, run.images, run.sample),
            Beginning::Handed(_) => Ok(()),
        }
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = guidance(&self.prompting, stage);
        let told = condition(&self.prompting, guidance, stage)?;
        let latents = match &self.begin {
            Beginning::Image(path) => encoded(&InputImage::File(path.clone()), stage)?,
            Beginning::Latents(path) => given(path, stage)?,
            Beginning::Handed(StageInput::Image) => encoded(&InputImage::Handed, stage)?,
            Beginning::Handed(StageInput::Latents) => handed(stage)?,
        };
        if let Some(begin) = stage.denoising_start {
            return Ok(Start { begin, ..Start::from_noise(latents, told, guidance) });
        }
        let begin = match stage.is_planned {
            true => 0,
            false => {
                let strength = self.strength.unwrap_or(stage.model.defaults.strength());
                let run = steps_run(STRENGTH, strength, stage.steps, stage.model.rounding)?;
                (stage.steps - run) * stage.scheduler.order()
            }
        };
        let noise = stage.unit_noise()?;
        let mut sample = noise.clone();
        match (latents.as_slice(), noise.as_slice(), sample.as_slice_mut()) {
            (Some(x0), Some(noise), Some(out)) => stage.scheduler.add_noise(begin, x0, noise, out),
            _ => return Err(Error::input("latents", "not laid out in row-major order", "")),
        }
        Ok(Start { begin, ..Start::from_noise(sample, told, guidance) })
    }
}

const STRENGTH: &str = "task.image-to-image.strength";

/// An image's latents, drawn for each image of the batch.
fn encoded(image: &InputImage, stage: &mut TaskContext<'_>) -> Result<ArrayD<f32>> {
    let pixels = pixels(image, stage.size, stage)?;
    let posterior = posterior(&pixels, image, stage)?;
    drawn(&posterior, stage)
}

/// The latents that the stage before made for this batch.
fn handed(stage: &TaskContext<'_>) -> Result<ArrayD<f32>> {
    let Some(Handed::Latents(latents)) = &stage.handed else { return Err(handed_nothing("latents")) };
    let wanted = stage.batch_shape();
    if latents.raw_dim() != wanted {
        let (found, wanted) = (latents.shape(), ndarray::Dimension::slice(&wanted));
        let problem = format!("are {found:?}, and this stage's denoiser takes {wanted:?}");
        return Err(Error::input("the latents handed on", problem, "hand the image on instead: input = \"image\""));
    }
    Ok(latents.as_standard_layout().into_owned())
}

/// The latents of a file, of which every value is a number.
fn read(path: &Path) -> Result<ArrayD<f32>> {
    let latents = npy::read_f32(path)?;
    if latents.iter().any(|value| !value.is_finite()) {
        return Err(Error::input(path.display().to_string(), "holds values that are not finite", "make it anew"));
    }
    Ok(latents)
}

/// Requires that the latents of a file are one sample for all of so many images, or one for each.
fn require_fit(path: &Path, latents: &ArrayD<f32>, images: usize, [c, h, w]: [usize; 3]) -> Result<()> {
    let fits = latents.ndim() == 4 && latents.shape()[1..] == [c, h, w];
    if fits && [1, images].contains(&latents.shape()[0]) {
        return Ok(());
    }
    Err(Error::input(
        path.display().to_string(),
        format!("holds an array of shape {:?}, and this run needs [{images}, {c}, {h}, {w}]", latents.shape()),
        "latents are [images or 1, channels, height/f, width/f], as --save-latents writes them",
    ))
}

/// The latents of a file for this batch: one for all images, or one an image.
fn given(path: &Path, stage: &TaskContext<'_>) -> Result<ArrayD<f32>> {
    let latents = read(path)?;
    require_fit(path, &latents, stage.total_images, stage.sample_shape)?;
    let rows = latents.shape()[0];
    let first = if rows == 1 { 0 } else { stage.first };
    let last = if rows == 1 { 1 } else { stage.first + stage.images() };
    let part = super::rows(&latents, first..last);
    if rows == 1 {
        let all = part.broadcast(stage.batch_shape()).map(|all| all.as_standard_layout().into_owned());
        return all.ok_or_else(|| Error::input("latents", "one sample does not stand for a batch", ""));
    }
    Ok(part)
}
