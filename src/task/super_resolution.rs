//! `[task.super-resolution]`: a small image becomes a large one.
//!
//! The latent diffusion paper's model (arXiv 2112.10752, section 4.4) takes the small image's pixels behind the latents.
//! Stable Diffusion's upscaler takes them under some noise, with the noise level and a prompt.

use ndarray::ArrayD;

use super::context::{InputRequirements, Start, TaskContext, TaskModel};
use super::contract::{OwnModels, Task, TaskEntry};
use super::evidence::ModelEvidence;
use super::input_image::{self, InputImage, for_branches, pixels, repeated};
use super::prompt::guided_condition;
use super::prompting::Prompting;
use super::sample_keys::SampleKeys;
use crate::bundle::{Autoencoder, Role};
use crate::error::{Error, Result};
use crate::family::{DefaultSize, Defaults};
use crate::image::InputLimit;
use crate::keys::{Table, Writer, integer};

/// `[task.super-resolution]`: a small image becomes a large one, enlarged by the VAE's spatial factor.
#[derive(Debug, Clone, PartialEq)]
pub struct SuperResolution {
    /// The prompt and its guidance, for models that read one.
    pub prompting: Option<Prompting>,
    /// `image`, required except in a `[[stage]]`: the small image.
    pub image: InputImage,
    /// `noise_level`, by default 20: the noise that is added to the small image, as a timestep of the model's
    /// low_res_scheduler, for models that take a noise level; more lets the model invent more. 0 to 1000.
    pub noise_level: Option<usize>,
}

pub(super) static ENTRY: TaskEntry = TaskEntry {
    name: "super-resolution",
    about: "A small image becomes a large one.",
    read: |table| Box::new(SuperResolution::read(table)),
    fit,
    sample,
    own_models: Some(OwnModels { about: "enlarges images", channels: |_| CHANNELS, is_made_for: |_| false }),
    defaults: Defaults { noise_level: Some(20), size: DefaultSize::Upscaled, ..Defaults::PLAIN },
};

/// The channels of the small image.
const CHANNELS: usize = 3;

fn fit(model: &ModelEvidence) -> Result<(), String> {
    model.require_channels(CHANNELS, "latents and the small image")?;
    if let Some(conditioner) = model.conditioners.first() {
        return Err(format!("the denoiser's further channels are those of {conditioner}/"));
    }
    model.require_vae()?;
    let text = if model.has_context { model.text.clone() } else { Ok(()) };
    text.and(model.decoder.clone())
}

fn sample(sample: &SampleKeys<'_>) -> Vec<String> {
    if !sample.reads_text() {
        return vec![sample.image()];
    }
    let level = sample.defaults.noise_level.unwrap_or(0);
    vec![
        "prompt = \"a photograph\"".to_owned(),
        sample.image(),
        sample.guidance_scale(),
        format!("noise_level = {level}    # noise added to the small image"),
    ]
}

impl SuperResolution {
    fn read(table: &mut Table<'_>) -> Self {
        let image = InputImage::read(table);
        Self { prompting: Prompting::read_if_there(table), image, noise_level: table.integer("noise_level", 0, 1000) }
    }
}

impl Task for SuperResolution {
    fn entry(&self) -> Option<&'static TaskEntry> {
        Some(&ENTRY)
    }

    fn write(&self, writer: &mut Writer) {
        if let Some(prompting) = &self.prompting {
            prompting.write(writer);
        }
        self.image.write("image", writer);
        writer.key_if("noise_level", self.noise_level.map(integer));
    }

    fn optional_prompting(&self) -> Option<&Option<Prompting>> {
        Some(&self.prompting)
    }

    fn optional_prompting_mut(&mut self) -> Option<&mut Option<Prompting>> {
        Some(&mut self.prompting)
    }

    fn concatenated(&self, _latent_channels: usize, _in_channels: usize) -> usize {
        CHANNELS
    }

    fn noise_level(&self) -> Option<usize> {
        self.noise_level
    }

    fn noises_image(&self) -> bool {
        true
    }

    /// The latent diffusion paper's model works on latents as they are. The factor that diffusers writes into every VQ
    /// configuration is its class's default and not the model's.
    fn has_unscaled_latents(&self, autoencoder: Autoencoder) -> bool {
        autoencoder == Autoencoder::Vq
    }

    fn tells_class(&self) -> bool {
        true
    }

    fn images(&self) -> Vec<(&'static str, &InputImage)> {
        vec![("image", &self.image)]
    }

    fn images_mut(&mut self) -> Vec<(&'static str, &mut InputImage)> {
        vec![("image", &mut self.image)]
    }

    fn natural_size(
        &self,
        factor: usize,
        stage_output: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        let small = self.image.dimensions(stage_output, limit)?;
        Ok(small.map(|(width, height)| (width * factor, height * factor)))
    }

    fn check_inputs(&self, run: &InputRequirements) -> Result<()> {
        input_image::check(&self.image, run.limit)
    }

    fn used_defaults(&self, model: &TaskModel) -> Vec<(&'static str, String)> {
        match (self.noise_level, model.defaults.noise_level) {
            (None, Some(level)) if model.low_res.is_some() => vec![("noise_level", level.to_string())],
            _ => Vec::new(),
        }
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let (guidance, mut told) = guided_condition(self.prompting.as_ref(), stage)?;
        let [_, height, width] = stage.sample_shape;
        let mut small = repeated(pixels(&self.image, (width, height), stage)?, stage.images());
        let branches = guidance.branches().len();
        if let Some(low_res) = &stage.model.low_res {
            let level = self.noise_level.or(stage.model.defaults.noise_level).unwrap_or(0);
            let Some((signal, deviation)) = low_res.at(level) else {
                return Err(Error::input(
                    "task.super-resolution.noise_level",
                    format!("{level} is beyond the {} timesteps of low_res_scheduler", low_res.len()),
                    "20 is usual",
                ));
            };
            let mut noise = ArrayD::zeros(small.raw_dim());
            crate::scheduler::Noise::fill(stage.noise, noise.as_slice_mut().unwrap_or_default());
            small.zip_mut_with(&noise, |x, n| *x = signal * *x + deviation * n);
            told.set(Role::ClassLabels, ArrayD::from_elem(vec![branches * stage.images()], level as f32));
        }
        told.channels = Some(for_branches(&small, branches)?);
        Ok(Start::from_noise(stage.noise_start()?, told, guidance))
    }
}
