//! A part of an image drawn anew.
//!
//! Three kinds of model do it. Those that take the latents alone are led by putting the known part back after every
//! step. Stable Diffusion's inpainting models take, behind the latents, the mask (1 in the hole) and the latents of the
//! image with a grey hole. The latent diffusion paper's (arXiv 2112.10752, section 4.5) take the latents of the
//! image with a black hole, unscaled, and then the mask (1 in the hole, −1 around it), and their image is joined with the
//! given one in the end. The paper's model reads no prompt, by which the two are told apart.

use ndarray::{Array4, ArrayD, Axis, IxDyn, concatenate};

use super::input_image::{
    self, dimensions, drawn, for_branches, mask, nearest, pixels, posterior, repeated, same_shape,
};
use super::prompt::{condition, guidance};
use super::{InputRequirements, Paste, Rounding, Start, Task, TaskContext, steps_run};
use crate::denoise::{Condition, Guidance, UnmaskedLatents};
use crate::error::{Error, Result};
use crate::image::{self, InputLimit};
use crate::spec::{self, Inpaint, Prompting};

impl Task for Inpaint {
    fn name(&self) -> &'static str {
        "inpaint"
    }

    fn to_spec(&self) -> Option<spec::TaskSpec> {
        Some(spec::TaskSpec::Inpaint(self.clone()))
    }

    fn prompting(&self) -> Option<&Prompting> {
        self.prompting.as_ref()
    }

    fn needs_encoder(&self) -> bool {
        true
    }

    fn concatenated(&self, latent_channels: usize, in_channels: usize) -> usize {
        if in_channels == latent_channels { 0 } else { latent_channels + 1 }
    }

    fn natural_size(
        &self,
        _factor: usize,
        handed: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        let size = dimensions(&self.image, handed, limit)?;
        match size {
            Some(size) => same_shape(size, &self.mask, limit)?,
            None => drop(image::dimensions(&self.mask, limit)?),
        }
        Ok(size)
    }

    fn check(&self, steps: usize, denoising_start: Option<f64>, rounding: Rounding) -> Result<()> {
        super::begins_by_itself(self.name(), denoising_start)?;
        steps_run(STRENGTH, self.strength.unwrap_or(1.0), steps, rounding).map(drop)
    }

    fn strength(&self) -> Option<f64> {
        self.strength
    }

    fn check_inputs(&self, run: &InputRequirements) -> Result<()> {
        input_image::check(&self.image, run.limit)?;
        mask(&self.mask, run.size, run.limit).map(drop)
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = self.prompting.as_ref().map_or(Guidance::Off, |prompting| guidance(prompting, stage));
        let mut told = match &self.prompting {
            Some(prompting) => condition(prompting, guidance, stage)?,
            None => Condition::default(),
        };
        let [channels, height, width] = stage.sample_shape;
        let concatenates = stage.model.concatenated > 0;
        let pixels = pixels(&self.image, stage.size, stage)?;
        let hole = mask(&self.mask, stage.size, stage.input_limit)?;
        let small = nearest(&hole, height, width);
        let strength = self.strength.unwrap_or(stage.model.defaults.strength());
        let run = steps_run(STRENGTH, strength, stage.steps, stage.model.rounding)?;
        let begin = (stage.steps - run) * stage.scheduler.order();

        // The generators are drawn from in this order: the image's latents where they are needed, the noise, the
        // masked image's latents.
        let from_noise = strength == 1.0;
        let latents = if concatenates && from_noise {
            None
        } else {
            let posterior = posterior(&pixels, &self.image, stage)?;
            Some(drawn(&posterior, stage)?)
        };
        let noise = stage.unit_noise()?;
        let mut sample = noise.clone();
        match (&latents, sample.as_slice_mut()) {
            (Some(latents), Some(out)) if !from_noise => {
                let (x0, noise) = (latents.as_slice().unwrap_or_default(), noise.as_slice().unwrap_or_default());
                stage.scheduler.add_noise(begin, x0, noise, out);
            }
            _ => {
                let sigma = stage.scheduler.init_noise_sigma() as f32;
                sample.mapv_inplace(|v| v * sigma);
            }
        }
        let papers = concatenates && self.prompting.is_none();
        let masked = if papers { with_black_hole(&pixels, &hole) } else { with_grey_hole(&pixels, &hole) };
        let posterior = posterior(&masked, &self.image, stage)?;
        let branches = guidance.branches().len();
        if papers {
            let latents = repeated(posterior.mode().to_owned(), stage.images());
            let signed = repeated(small.mapv(|v| 2.0 * v - 1.0).into_dyn(), stage.images());
            told.channels = Some(side_by_side(&[latents, signed])?);
        } else {
            let masked = drawn(&posterior, stage)?;
            if concatenates {
                let mask = repeated(small.clone().into_dyn(), stage.images());
                told.channels = Some(for_branches(&side_by_side(&[mask, masked])?, branches)?);
            }
        }
        let keep = match latents {
            Some(latents) if !concatenates => {
                let shape = IxDyn(&[stage.images(), channels, height, width]);
                let mask = small.into_dyn().broadcast(shape).map(|all| all.as_standard_layout().into_owned());
                mask.map(|mask| UnmaskedLatents { latents, noise, mask })
            }
            _ => None,
        };
        let paste = papers.then(|| Paste { pixels, mask: hole.into_dyn() });
        Ok(Start { sample, begin, condition: told, guidance, keep, paste })
    }
}

const STRENGTH: &str = "task.inpaint.strength";

/// The image with 0, the middle of its range, in the hole.
fn with_grey_hole(pixels: &ArrayD<f32>, hole: &Array4<f32>) -> ArrayD<f32> {
    pixels * &hole.mapv(|m| if m < 0.5 { 1.0 } else { 0.0 }).into_dyn()
}

/// The image with −1, its darkest, in the hole.
fn with_black_hole(pixels: &ArrayD<f32>, hole: &Array4<f32>) -> ArrayD<f32> {
    let lit = pixels.mapv(|v| (v + 1.0) / 2.0);
    (lit * &hole.mapv(|m| 1.0 - m).into_dyn()).mapv(|v| 2.0 * v - 1.0)
}

fn side_by_side(parts: &[ArrayD<f32>]) -> Result<ArrayD<f32>> {
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    concatenate(Axis(1), &views).map_err(|e| Error::input("mask", e.to_string(), ""))
}
