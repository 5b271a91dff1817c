//! `[task.instruct]`: an image is changed as a prompt says: InstructPix2Pix (Brooks et al. 2023, arXiv 2211.09800), and
//! FLUX.1 Kontext (Black Forest Labs 2025, arXiv 2506.15742).

use std::ops::Bound::{Included, Unbounded};

use ndarray::{ArrayD, Axis, concatenate};

use super::context::{InputRequirements, Start, TaskContext, TaskModel};
use super::contract::{OwnModels, Task, TaskEntry};
use super::evidence::ModelEvidence;
use super::input_image::{self, InputImage, pixels, posterior, repeated};
use super::prompt::{condition, guidance};
use super::prompting::Prompting;
use super::sample_keys::SampleKeys;
use crate::denoise::Guidance;
use crate::error::{Error, Result};
use crate::family::{DefaultSize, Defaults};
use crate::image::InputLimit;
use crate::keys::{Table, Writer};

/// `[task.instruct]`: an image is changed as a prompt says (InstructPix2Pix, Brooks et al. 2023, arXiv 2211.09800; FLUX.1
/// Kontext, Black Forest Labs 2025, arXiv 2506.15742).
#[derive(Debug, Clone, PartialEq)]
pub struct Instruct {
    /// The instruction and its guidance.
    pub prompting: Prompting,
    /// `image`, required except in a `[[stage]]`: the image.
    pub image: InputImage,
    /// `image_guidance_scale`: the weight of the image, 1 or more. Absent: the default of the task's pipeline class in
    /// diffusers, 1.5. Kontext has no such guidance.
    pub image_guidance_scale: Option<f64>,
}

pub(super) static ENTRY: TaskEntry = TaskEntry {
    name: "instruct",
    about: "An image is changed as a prompt says.",
    read: |table| Box::new(Instruct::read(table)),
    fit,
    sample,
    own_models: Some(OwnModels {
        about: "follows instructions",
        channels: |latent_channels| latent_channels,
        is_made_for: |model| model.is_packed && model.follows_packed_image == Some(true),
    }),
    defaults: Defaults { image_guidance_scale: Some(1.5), size: DefaultSize::InputImage, ..Defaults::PLAIN },
};

fn fit(model: &ModelEvidence) -> Result<(), String> {
    if !model.is_packed {
        model.require_channels(model.latent_channels, "latents twice")?;
    } else if model.follows_packed_image == Some(false) {
        return Err("the model is not trained to follow an image".to_owned());
    }
    model.require_vae()?;
    model.require_text_and_vae()
}

fn sample(sample: &SampleKeys<'_>) -> Vec<String> {
    if sample.is_packed() {
        return vec![sample.instruction(), sample.negative_prompt(), sample.image(), sample.guidance_scale()];
    }
    let scale = sample.defaults.image_guidance_scale.unwrap_or(1.0);
    let scale = format!("image_guidance_scale = {scale:?}    # higher stays closer to the image");
    vec![sample.instruction(), sample.image(), sample.guidance_scale(), scale]
}

impl Instruct {
    fn read(table: &mut Table<'_>) -> Self {
        let image = InputImage::read(table);
        Self {
            prompting: Prompting::read(table),
            image,
            image_guidance_scale: table.number("image_guidance_scale", Included(1.0), Unbounded),
        }
    }
}

impl Task for Instruct {
    fn entry(&self) -> Option<&'static TaskEntry> {
        Some(&ENTRY)
    }

    fn write(&self, writer: &mut Writer) {
        self.prompting.write(writer);
        self.image.write("image", writer);
        writer.key_if("image_guidance_scale", self.image_guidance_scale);
    }

    fn prompting(&self) -> Option<&Prompting> {
        Some(&self.prompting)
    }

    fn prompting_mut(&mut self) -> Option<&mut Prompting> {
        Some(&mut self.prompting)
    }

    fn branches(&self, model: &TaskModel) -> usize {
        match model.denoiser.is_packed() {
            true => Guidance::classifier_free(self.prompting.true_cfg_scale, 0.0).branches().len(),
            false => twofold(self, model).branches().len(),
        }
    }

    fn image_guidance_scale(&self) -> Option<f64> {
        self.image_guidance_scale
    }

    fn follows_image(&self) -> bool {
        true
    }

    fn needs_encoder(&self) -> bool {
        true
    }

    fn concatenated(&self, latent_channels: usize, _in_channels: usize) -> usize {
        latent_channels
    }

    fn images(&self) -> Vec<(&'static str, &InputImage)> {
        vec![("image", &self.image)]
    }

    fn images_mut(&mut self) -> Vec<(&'static str, &mut InputImage)> {
        vec![("image", &mut self.image)]
    }

    fn natural_size(
        &self,
        _factor: usize,
        stage_output: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        self.image.dimensions(stage_output, limit)
    }

    fn check_inputs(&self, run: &InputRequirements) -> Result<()> {
        input_image::check(&self.image, run.limit)
    }

    fn used_defaults(&self, model: &TaskModel) -> Vec<(&'static str, String)> {
        match (self.image_guidance_scale, model.defaults.image_guidance_scale) {
            (None, Some(scale)) if !model.denoiser.is_packed() => {
                vec![("image_guidance_scale", format!("{scale:?}"))]
            }
            _ => Vec::new(),
        }
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let is_packed = stage.model.denoiser.is_packed();
        let guidance = if is_packed { guidance(&self.prompting, stage) } else { twofold(self, stage.model) };
        let mut told = condition(&self.prompting, guidance, stage)?;
        let pixels = pixels(&self.image, stage.size, stage)?;
        let posterior = posterior(&pixels, &self.image, stage)?;
        if is_packed {
            let image = posterior.mode().mapv(|v| stage.model.scaling.apply(v));
            told.channels = Some(repeated(image, guidance.branches().len() * stage.images()));
            return Ok(Start::from_noise(stage.noise_start()?, told, guidance));
        }
        // The latents that are drawn are scaled, those that are followed only for CosXL.
        let factor = if stage.model.scales_followed_image { stage.model.scaling.factor as f32 } else { 1.0 };
        let image = repeated(posterior.mode().mapv(|v| v * factor), stage.images());
        let nothing = ArrayD::zeros(image.raw_dim());
        let branches = guidance.branches().iter().map(|b| if b.image { image.view() } else { nothing.view() });
        let branches: Vec<_> = branches.collect();
        let channels = concatenate(Axis(0), &branches).map_err(|e| Error::input("image", e.to_string(), ""))?;
        told.channels = Some(channels);
        Ok(Start::from_noise(stage.noise_start()?, told, guidance))
    }
}

/// Both guidances of InstructPix2Pix, or none where the text's weight is none.
fn twofold(task: &Instruct, model: &TaskModel) -> Guidance {
    let text = model.guidance_scale(&task.prompting);
    let image = task.image_guidance_scale.or(model.defaults.image_guidance_scale).unwrap_or(1.0);
    match text > 1.0 {
        true => Guidance::Instruct { text, image },
        false => Guidance::Off,
    }
}
