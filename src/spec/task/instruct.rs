//! `[task.instruct]`: an image is changed as a prompt says.

use std::ops::Bound::{Included, Unbounded};

use super::input_image::InputImage;
use super::prompting::Prompting;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// `[task.instruct]`: an image is changed as a prompt says (InstructPix2Pix, Brooks et al. 2023, arXiv 2211.09800; FLUX.1
/// Kontext, Black Forest Labs 2025, arXiv 2506.15742).
#[derive(Debug, Clone, PartialEq)]
pub struct Instruct {
    /// The instruction and its guidance.
    pub prompting: Prompting,
    /// `image`, required but in a `[[stage]]`: the image.
    pub image: InputImage,
    /// `image_guidance_scale`: the weight of the image, 1 or more. Absent: the default of the task's pipeline class in
    /// diffusers, 1.5. Kontext has no such guidance.
    pub image_guidance_scale: Option<f64>,
}

impl Instruct {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let image = InputImage::read(table);
        Self {
            prompting: Prompting::read(table),
            image,
            image_guidance_scale: table.number("image_guidance_scale", Included(1.0), Unbounded),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.prompting.write(writer);
        self.image.write("image", writer);
        writer.key_if("image_guidance_scale", self.image_guidance_scale);
    }
}
