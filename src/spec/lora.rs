//! `[[lora]]`: low-rank changes of the model's weights.

use crate::keys::{Table, Writer};
use std::ops::Bound::Unbounded;
use std::path::PathBuf;

/// `[[lora]]`, any number: a file of low-rank changes, added to the model's weights when it is opened.
///
/// A scale of 0 leaves the weights as they are, bit for bit; a negative one takes away what the LoRA would add.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoraSpec {
    /// `path`, required: a .safetensors file in the naming of kohya's scripts, diffusers or PEFT.
    pub path: PathBuf,
    /// `scale = 1.0`: the factor of the changes.
    pub scale: f64,
    /// `unet_scale`: the scale for the denoiser, instead of `scale`.
    pub unet_scale: Option<f64>,
    /// `text_encoder_scale`: the scale for every text encoder, instead of `scale`.
    pub text_encoder_scale: Option<f64>,
}

impl LoraSpec {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        table.require("path", "the path of a .safetensors file");
        let lora = Self {
            path: table.file_path("path").unwrap_or_default(),
            scale: table.number("scale", Unbounded, Unbounded).unwrap_or(1.0),
            unet_scale: table.number("unet_scale", Unbounded, Unbounded),
            text_encoder_scale: table.number("text_encoder_scale", Unbounded, Unbounded),
        };
        table.finish();
        lora
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array_table("lora");
        writer.path("path", &self.path);
        writer.key("scale", self.scale);
        writer.key_if("unet_scale", self.unet_scale);
        writer.key_if("text_encoder_scale", self.text_encoder_scale);
    }
}
