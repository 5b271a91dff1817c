//! `[task.image-to-image]`: an image is noised in part and denoised after a prompt (SDEdit, Meng et al. 2022).

use std::ops::Bound::Included;
use std::path::PathBuf;

use super::input_image::InputImage;
use super::prompting::Prompting;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// `[task.image-to-image]`: an image is noised in part and denoised after a prompt (SDEdit, Meng et al. 2022).
#[derive(Debug, Clone, PartialEq)]
pub struct ImageToImage {
    /// The prompt and its guidance.
    pub prompting: Prompting,
    /// `image` or `latents`, one of which is required except in a `[[stage]]`: the input.
    pub input: ImageOrLatents,
    /// `strength`: the share of the run that is done, and so how far the result goes from the image, 0 to 1. Absent: the
    /// default of the task's pipeline class in diffusers, such as 0.8, or 0.3 for Stable Diffusion XL. Not beside
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

impl ImageToImage {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let prompting = Prompting::read(table);
        let input = if table.get("latents").is_some() {
            if table.get("image").is_some() {
                table.report_at("latents", "given beside `image`; keep one");
            }
            ImageOrLatents::Latents(table.file_path("latents").unwrap_or_default())
        } else {
            // In a stage, `hand` or the plan may make latents of it.
            ImageOrLatents::Image(InputImage::read(table))
        };
        let strength = table.number("strength", Included(0.0), Included(1.0));
        Self { prompting, input, strength }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.prompting.write(writer);
        match &self.input {
            ImageOrLatents::Image(image) => image.write("image", writer),
            ImageOrLatents::Latents(path) => writer.path("latents", path),
            ImageOrLatents::StageLatents => {}
        }
        writer.key_if("strength", self.strength);
    }
}
