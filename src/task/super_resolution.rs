//! A small image made large: the latent diffusion paper's (arXiv 2112.10752, section 4.4), whose model takes the small
//! image's pixels behind the latents, and Stable Diffusion's upscaler, which takes them under some noise and is told
//! how much and what the image shows.

use ndarray::ArrayD;

use super::input_image::{self, dimensions, for_branches, pixels, repeated};
use super::prompt::{condition, guidance};
use super::{InputRequirements, Start, Task, TaskContext};
use crate::bundle::Role;
use crate::denoise::{Condition, Guidance};
use crate::error::{Error, Result};
use crate::image::InputLimit;
use crate::spec::{self, Prompting, SuperResolution};

impl Task for SuperResolution {
    fn name(&self) -> &'static str {
        "super-resolution"
    }

    fn to_spec(&self) -> Option<spec::TaskSpec> {
        Some(spec::TaskSpec::SuperResolution(self.clone()))
    }

    fn prompting(&self) -> Option<&Prompting> {
        self.prompting.as_ref()
    }

    fn concatenated(&self, _latent_channels: usize, _in_channels: usize) -> usize {
        3
    }

    fn noise_level(&self) -> Option<usize> {
        self.noise_level
    }

    fn tells_class(&self) -> bool {
        true
    }

    fn natural_size(
        &self,
        factor: usize,
        handed: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        let small = dimensions(&self.image, handed, limit)?;
        Ok(small.map(|(width, height)| (width * factor, height * factor)))
    }

    fn check_inputs(&self, run: &InputRequirements) -> Result<()> {
        input_image::check(&self.image, run.limit)
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = self.prompting.as_ref().map_or(Guidance::Off, |prompting| guidance(prompting, stage));
        let mut told = match &self.prompting {
            Some(prompting) => condition(prompting, guidance, stage)?,
            None => Condition::default(),
        };
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
