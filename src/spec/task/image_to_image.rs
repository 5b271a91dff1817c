//! `[task.image-to-image]`: a picture is noised in part and denoised after a prompt (SDEdit, Meng et al. 2022).

use std::ops::Bound::Included;
use std::path::PathBuf;

use super::prompting::Prompting;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// `[task.image-to-image]`: a picture is noised in part and denoised after a prompt (SDEdit, Meng et al. 2022).
#[derive(Debug, Clone, PartialEq)]
pub struct ImageToImage {
    /// The prompt and its guidance.
    pub prompting: Prompting,
    /// `image`, required: the picture to begin with.
    pub image: PathBuf,
    /// `strength = 0.8`: how much of the run is done, and so how far the result goes from the picture, 0 to 1.
    pub strength: f64,
}

impl ImageToImage {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let prompting = Prompting::read(table);
        table.require("image", "the path of a picture");
        let image = table.file_path("image").unwrap_or_default();
        let strength = table.number("strength", Included(0.0), Included(1.0)).unwrap_or(0.8);
        Self { prompting, image, strength }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.prompting.write(writer);
        writer.path("image", &self.image);
        writer.key("strength", self.strength);
    }
}
