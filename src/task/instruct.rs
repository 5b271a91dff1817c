//! An image changed as a prompt says: InstructPix2Pix (Brooks et al. 2023, arXiv 2211.09800), and FLUX.1 Kontext (Black
//! Forest Labs 2025, arXiv 2506.15742).

use ndarray::{ArrayD, Axis, concatenate};

use super::input_image::{self, dimensions, pixels, posterior, repeated};
use super::prompt::{condition, guidance};
use super::{InputRequirements, Start, Task, TaskContext, TaskModel};
use crate::denoise::Guidance;
use crate::error::{Error, Result};
use crate::image::InputLimit;
use crate::spec::{self, Instruct, Prompting};

impl Task for Instruct {
    fn name(&self) -> &'static str {
        "instruct"
    }

    fn to_spec(&self) -> Option<spec::TaskSpec> {
        Some(spec::TaskSpec::Instruct(self.clone()))
    }

    fn prompting(&self) -> Option<&Prompting> {
        Some(&self.prompting)
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

    fn natural_size(
        &self,
        _factor: usize,
        handed: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        dimensions(&self.image, handed, limit)
    }

    fn check_inputs(&self, run: &InputRequirements) -> Result<()> {
        input_image::check(&self.image, run.limit)
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
