//! `[task.image-to-image]`: an image is noised in part and denoised after a prompt (SDEdit, Meng et al. 2022).

use std::ops::Bound::Included;
use std::path::PathBuf;

use super::input_image::InputImage;
use super::prompting::Prompting;
use crate::spec::StageInput;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// `[task.image-to-image]`: an image is noised in part and denoised after a prompt (SDEdit, Meng et al. 2022).
#[derive(Debug, Clone, PartialEq)]
pub struct ImageToImage {
    /// The prompt and its guidance.
    pub prompting: Prompting,
    /// `image` or `latents`, one of which is required but in a `[[stage]]`: what to begin with.
    pub begin: Beginning,
    /// `strength`: the share of the run that is done, and so how far the result goes from the image, 0 to 1. Absent: the
    /// default of the task's pipeline class in diffusers, such as 0.8, or 0.3 for Stable Diffusion XL. Not beside
    /// `run.denoising_start`, which says the same in another way.
    pub strength: Option<f64>,
}

/// What a run begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// `image`: an image.
    Image(PathBuf),
    /// `latents`: a .npy file as `--save-latents` writes it, float32 `[images or 1, c, h/f, w/f]`, scaled as the
    /// denoiser takes them.
    Latents(PathBuf),
    /// Neither, in a `[[stage]]`: what the stage before made.
    Handed(StageInput),
}

impl ImageToImage {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let prompting = Prompting::read(table);
        let begin = if table.get("latents").is_some() {
            if table.get("image").is_some() {
                table.report_at("latents", "given beside `image`; keep one");
            }
            Beginning::Latents(table.file_path("latents").unwrap_or_default())
        } else {
            match InputImage::read(table) {
                InputImage::File(path) => Beginning::Image(path),
                // The stage's `input`, or the plan where that says nothing, makes latents of it.
                InputImage::Handed => Beginning::Handed(StageInput::Image),
            }
        };
        let strength = table.number("strength", Included(0.0), Included(1.0));
        Self { prompting, begin, strength }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.prompting.write(writer);
        match &self.begin {
            Beginning::Image(path) => writer.path("image", path),
            Beginning::Latents(path) => writer.path("latents", path),
            Beginning::Handed(_) => {}
        }
        writer.key_if("strength", self.strength);
    }
}
