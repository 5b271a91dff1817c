//! `[task.inpaint]`: a part of an image is drawn anew.

use std::ops::Bound::Included;

use super::input_image::InputImage;
use super::prompting::Prompting;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// `[task.inpaint]`: a part of an image is drawn anew. Models that take the masked image beside the sample
/// see what is around the hole; for others the known part is put back after every step.
#[derive(Debug, Clone, PartialEq)]
pub struct Inpaint {
    /// The prompt and its guidance, for models that read one.
    pub prompting: Option<Prompting>,
    /// `image`, required but in a `[[stage]]`: the image.
    pub image: InputImage,
    /// `mask`, required: an image that is white where the other is to be drawn anew and black where it is to stay.
    pub mask: InputImage,
    /// `strength`: the share of the run that is done, 0 to 1; at 1 nothing is kept of what was in the hole. Absent: the
    /// default of the task's pipeline class in diffusers, such as 1.0, or 0.9999 for Stable Diffusion XL.
    pub strength: Option<f64>,
}

impl Inpaint {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let image = InputImage::read(table);
        table.require("mask", "the path of an image that is white where the other is to be drawn anew");
        Self {
            prompting: Prompting::read_if_there(table),
            image,
            mask: InputImage::File(table.file_path("mask").unwrap_or_default()),
            strength: table.number("strength", Included(0.0), Included(1.0)),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        if let Some(prompting) = &self.prompting {
            prompting.write(writer);
        }
        self.image.write("image", writer);
        self.mask.write("mask", writer);
        writer.key_if("strength", self.strength);
    }
}
