//! `[task.super-resolution]`: a small image becomes a large one.

use super::input_image::InputImage;
use super::prompting::Prompting;
use crate::spec::reader::Table;
use crate::spec::writer::{Writer, integer};

/// `[task.super-resolution]`: a small image becomes a large one, as many times as large as the VAE is deep.
#[derive(Debug, Clone, PartialEq)]
pub struct SuperResolution {
    /// The prompt and its guidance, for models that read one.
    pub prompting: Option<Prompting>,
    /// `image`, required but in a `[[stage]]`: the small image.
    pub image: InputImage,
    /// `noise_level`, by default 20: the noise that is added to the small image, as a timestep of the model's
    /// low_res_scheduler, for models that are told so; more lets the model invent more. 0 to 1000.
    pub noise_level: Option<usize>,
}

impl SuperResolution {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let image = InputImage::read(table);
        Self { prompting: Prompting::read_if_there(table), image, noise_level: table.integer("noise_level", 0, 1000) }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        if let Some(prompting) = &self.prompting {
            prompting.write(writer);
        }
        self.image.write("image", writer);
        writer.key_if("noise_level", self.noise_level.map(integer));
    }
}
