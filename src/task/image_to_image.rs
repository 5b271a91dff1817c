//! `[task.image-to-image]`: an image is noised in part and denoised after a prompt (SDEdit, Meng et al. 2022, arXiv
//! 2108.01073).

use std::ops::Bound::Included;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;

use super::context::{self, InputRequirements, StageOutput, Start, TaskContext};
use super::contract::{Task, TaskEntry};
use super::evidence::ModelEvidence;
use super::input_image::{self, InputImage, drawn, no_stage_output, pixels, posterior};
use super::prompt::{condition, guidance};
use super::prompting::Prompting;
use super::sample_keys::SampleKeys;
use super::strength::{Rounding, steps_run};
use crate::error::{Error, Result};
use crate::family::{DefaultSize, Defaults};
use crate::image::InputLimit;
use crate::keys::{Table, Writer};
use crate::npy;

/// `[task.image-to-image]`: an image is noised in part and denoised after a prompt (SDEdit, Meng et al. 2022).
#[derive(Debug, Clone, PartialEq)]
pub struct ImageToImage {
    /// The prompt and its guidance.
    pub prompting: Prompting,
    /// `image` or `latents`, one of which is required except in a `[[stage]]`: the input.
    pub input: ImageOrLatents,
    /// `strength`: the share of the run that is done, and so the distance of the result from the image, 0 to 1. Absent:
    /// the default of the task's pipeline class in diffusers, such as 0.8, or 0.3 for Stable Diffusion XL. Not beside
    /// `run.denoising_start`, which says the same in another way.
    pub strength: Option<f64>,
}

/// The input of image-to-image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageOrLatents {
    /// `image`: an image, which is encoded.
    Image(InputImage),
    /// `latents`: a .npy file as `--save-latents` writes it, float32 `[images or 1, c, h/f, w/f]`, scaled as the
    /// denoiser takes them.
    Latents(PathBuf),
    /// In a `[[stage]]`: the latents of the stage before.
    StageLatents,
}

pub(super) static ENTRY: TaskEntry = TaskEntry {
    name: "image-to-image",
    about: "An image is noised in part and denoised after a prompt.",
    read: |table| Box::new(ImageToImage::read(table)),
    fit,
    sample,
    own_models: None,
    defaults: Defaults { strength: Some(0.8), size: DefaultSize::InputImage, ..Defaults::PLAIN },
};

/// Models that are told the depth take one channel more, which a `[[condition]]` gives.
fn fit(model: &ModelEvidence) -> Result<(), String> {
    model.require_plain().or_else(|problem| model.require_channels(1, "depth").map_err(|_| problem))?;
    model.require_text_and_vae()
}

fn sample(sample: &SampleKeys<'_>) -> Vec<String> {
    let strength = sample.strength("0 keeps the image, 1 ignores it");
    let mut keys = vec![sample.prompt(), sample.negative_prompt(), sample.image(), strength, sample.guidance_scale()];
    let taken = sample.signature.as_ref().and_then(|signature| signature.in_channels);
    if taken == Some(sample.bundle.facts.latent_channels.value.saturating_add(1)) {
        keys.extend(["", "[[condition]]", "conditioning = \"channels\""].map(str::to_owned));
        keys.push("depth_map = \"depth.png\"    # brighter is nearer".to_owned());
    }
    keys
}

impl ImageToImage {
    fn read(table: &mut Table<'_>) -> Self {
        let prompting = Prompting::read(table);
        let input = if table.get("latents").is_some() {
            if table.get("image").is_some() {
                table.report_at("latents", "given beside `image`; keep one");
            }
            ImageOrLatents::Latents(table.file_path("latents").unwrap_or_default())
        } else {
            // In a stage, `input` or the plan may make latents of it.
            ImageOrLatents::Image(InputImage::read(table))
        };
        let strength = table.number("strength", Included(0.0), Included(1.0));
        Self { prompting, input, strength }
    }
}

impl Task for ImageToImage {
    fn entry(&self) -> Option<&'static TaskEntry> {
        Some(&ENTRY)
    }

    fn write(&self, writer: &mut Writer) {
        self.prompting.write(writer);
        match &self.input {
            ImageOrLatents::Image(image) => image.write("image", writer),
            ImageOrLatents::Latents(path) => writer.path("latents", path),
            ImageOrLatents::StageLatents => {}
        }
        writer.key_if("strength", self.strength);
    }

    fn prompting(&self) -> Option<&Prompting> {
        Some(&self.prompting)
    }

    fn prompting_mut(&mut self) -> Option<&mut Prompting> {
        Some(&mut self.prompting)
    }

    fn needs_encoder(&self) -> bool {
        matches!(self.input, ImageOrLatents::Image(_))
    }

    fn images(&self) -> Vec<(&'static str, &InputImage)> {
        match &self.input {
            ImageOrLatents::Image(image) => vec![("image", image)],
            ImageOrLatents::Latents(_) | ImageOrLatents::StageLatents => Vec::new(),
        }
    }

    fn images_mut(&mut self) -> Vec<(&'static str, &mut InputImage)> {
        match &mut self.input {
            ImageOrLatents::Image(image) => vec![("image", image)],
            ImageOrLatents::Latents(_) | ImageOrLatents::StageLatents => Vec::new(),
        }
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        match &self.input {
            ImageOrLatents::Image(image) => image.file().map(|path| ("image", path)).into_iter().collect(),
            ImageOrLatents::Latents(path) => vec![("latents", path)],
            ImageOrLatents::StageLatents => Vec::new(),
        }
    }

    fn shares_a_file(&self) -> bool {
        matches!(self.input, ImageOrLatents::Latents(_))
    }

    fn starts_from_stage(&self) -> bool {
        matches!(self.input, ImageOrLatents::Image(InputImage::StageOutput) | ImageOrLatents::StageLatents)
    }

    fn accepts_latents(&self) -> bool {
        true
    }

    fn start_from_stage(&mut self, as_latents: bool) {
        self.input = match as_latents {
            true => ImageOrLatents::StageLatents,
            false => ImageOrLatents::Image(InputImage::StageOutput),
        };
    }

    fn natural_size(
        &self,
        _factor: usize,
        stage_output: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        match &self.input {
            ImageOrLatents::Image(image) => image.dimensions(stage_output, limit),
            ImageOrLatents::Latents(path) => read(path).map(|_| None),
            ImageOrLatents::StageLatents => Ok(stage_output),
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

    fn strength_mut(&mut self) -> Option<&mut Option<f64>> {
        Some(&mut self.strength)
    }

    fn plans_strength(&self) -> bool {
        true
    }

    fn check_inputs(&self, run: &InputRequirements) -> Result<()> {
        match &self.input {
            ImageOrLatents::Image(image) => input_image::check(image, run.limit),
            ImageOrLatents::Latents(path) => require_fit(path, &read(path)?, run.images, run.sample),
            ImageOrLatents::StageLatents => Ok(()),
        }
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = guidance(&self.prompting, stage);
        let told = condition(&self.prompting, guidance, stage)?;
        let latents = match &self.input {
            ImageOrLatents::Image(image) => encoded(image, stage)?,
            ImageOrLatents::Latents(path) => given(path, stage)?,
            ImageOrLatents::StageLatents => stage_latents(stage)?,
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

/// The latents of the stage before for this batch.
fn stage_latents(stage: &TaskContext<'_>) -> Result<ArrayD<f32>> {
    let Some(StageOutput::Latents(latents)) = &stage.stage_output else { return Err(no_stage_output("latents")) };
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
    let part = context::rows(&latents, first..last);
    if rows == 1 {
        let all = part.broadcast(stage.batch_shape()).map(|all| all.as_standard_layout().into_owned());
        return all.ok_or_else(|| Error::input("latents", "one sample does not stand for a batch", ""));
    }
    Ok(part)
}
