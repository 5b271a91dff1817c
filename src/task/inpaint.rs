//! `[task.inpaint]`: a part of an image is drawn anew.
//!
//! Three kinds of model do it. Those that take the latents alone are led by putting the known part back after every
//! step. Stable Diffusion's inpainting models take, behind the latents, the mask (1 in the hole) and the latents of the
//! image with a grey hole. The latent diffusion paper's (arXiv 2112.10752, section 4.5) take the latents of the
//! image with a black hole, unscaled, and then the mask (1 in the hole, −1 around it), and their image is joined with the
//! given one in the end. The paper's model reads no prompt, by which the two are told apart.

use std::ops::Bound::Included;

use ndarray::{Array4, ArrayD, Axis, IxDyn, concatenate};

use super::context::{InputRequirements, Paste, Start, TaskContext};
use super::contract::{OwnModels, Task, TaskEntry, require_no_denoising_start};
use super::evidence::ModelEvidence;
use super::input_image::{
    self, InputImage, drawn, for_branches, mask, nearest, pixels, posterior, repeated, same_shape,
};
use super::prompt::guided_condition;
use super::prompting::Prompting;
use super::sample_keys::SampleKeys;
use super::strength::{Rounding, steps_run};
use crate::denoise::UnmaskedLatents;
use crate::error::{Error, Result};
use crate::family::{DefaultSize, Defaults};
use crate::image::InputLimit;
use crate::keys::{Table, Writer};

/// `[task.inpaint]`: a part of an image is drawn anew. Models with concatenated channels for the masked image see what is
/// around the hole; for others the known part is put back after every step.
#[derive(Debug, Clone, PartialEq)]
pub struct Inpaint {
    /// The prompt and its guidance, for models that read one.
    pub prompting: Option<Prompting>,
    /// `image`, required except in a `[[stage]]`: the image.
    pub image: InputImage,
    /// `mask`, required: an image that is white where the other is to be drawn anew and black where it is to stay.
    pub mask: InputImage,
    /// `strength`: the share of the run that is done, 0 to 1; at 1 nothing is kept of the hole's content. Absent: the
    /// default of the task's pipeline class in diffusers, such as 1.0, or 0.9999 for Stable Diffusion XL.
    pub strength: Option<f64>,
}

pub(super) static ENTRY: TaskEntry = TaskEntry {
    name: "inpaint",
    about: "A part of an image is drawn anew.",
    read: |table| Box::new(Inpaint::read(table)),
    fit,
    sample,
    own_models: Some(OwnModels {
        about: "fills holes",
        channels: |latent_channels| latent_channels.saturating_add(1),
        is_made_for: |_| false,
    }),
    defaults: Defaults { strength: Some(1.0), size: DefaultSize::InputImage, ..Defaults::PLAIN },
};

fn fit(model: &ModelEvidence) -> Result<(), String> {
    let description = "latents, mask and masked latents";
    let extra = model.latent_channels.saturating_add(1);
    model.require_plain().or_else(|_| model.require_channels(extra, description))?;
    match model.has_context || model.in_channels == model.latent_channels {
        true => model.require_text_and_vae(),
        false => model.encoder.clone().and(model.decoder.clone()),
    }
}

fn sample(sample: &SampleKeys<'_>) -> Vec<String> {
    let mask = "mask = \"mask.png\"    # white is painted anew".to_owned();
    if !sample.reads_text() {
        return vec![sample.image(), mask];
    }
    let strength = sample.strength("at 1 the hole is drawn from noise alone");
    vec![sample.prompt(), sample.negative_prompt(), sample.image(), mask, strength, sample.guidance_scale()]
}

impl Inpaint {
    fn read(table: &mut Table<'_>) -> Self {
        let image = InputImage::read(table);
        table.require("mask", "the path of an image that is white where the other is to be drawn anew");
        Self {
            prompting: Prompting::read_if_there(table),
            image,
            mask: InputImage::at(table, "mask"),
            strength: table.number("strength", Included(0.0), Included(1.0)),
        }
    }
}

impl Task for Inpaint {
    fn entry(&self) -> Option<&'static TaskEntry> {
        Some(&ENTRY)
    }

    fn write(&self, writer: &mut Writer) {
        if let Some(prompting) = &self.prompting {
            prompting.write(writer);
        }
        self.image.write("image", writer);
        self.mask.write("mask", writer);
        writer.key_if("strength", self.strength);
    }

    fn optional_prompting(&self) -> Option<&Option<Prompting>> {
        Some(&self.prompting)
    }

    fn optional_prompting_mut(&mut self) -> Option<&mut Option<Prompting>> {
        Some(&mut self.prompting)
    }

    fn needs_encoder(&self) -> bool {
        true
    }

    fn concatenated(&self, latent_channels: usize, in_channels: usize) -> usize {
        if in_channels == latent_channels { 0 } else { latent_channels + 1 }
    }

    fn images(&self) -> Vec<(&'static str, &InputImage)> {
        vec![("image", &self.image), ("mask", &self.mask)]
    }

    fn images_mut(&mut self) -> Vec<(&'static str, &mut InputImage)> {
        vec![("image", &mut self.image), ("mask", &mut self.mask)]
    }

    fn natural_size(
        &self,
        _factor: usize,
        stage_output: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        let size = self.image.dimensions(stage_output, limit)?;
        match size {
            Some(size) => same_shape(size, &self.mask, limit)?,
            None => drop(self.mask.dimensions(None, limit)?),
        }
        Ok(size)
    }

    fn check(&self, steps: usize, denoising_start: Option<f64>, rounding: Rounding) -> Result<()> {
        require_no_denoising_start(self.name(), denoising_start)?;
        steps_run(STRENGTH, self.strength.unwrap_or(1.0), steps, rounding).map(drop)
    }

    fn strength(&self) -> Option<f64> {
        self.strength
    }

    fn strength_mut(&mut self) -> Option<&mut Option<f64>> {
        Some(&mut self.strength)
    }

    fn check_inputs(&self, run: &InputRequirements) -> Result<()> {
        input_image::check(&self.image, run.limit)?;
        mask(&self.mask, run.size, run.limit).map(drop)
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let (guidance, mut told) = guided_condition(self.prompting.as_ref(), stage)?;
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
