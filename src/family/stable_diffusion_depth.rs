//! Stable Diffusion 2's depth-to-image model.

use super::class::{PipelineClass, class, from_image};
use super::row::{BASE, FamilyRow, Form};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "stable-diffusion-depth",
    title: "Stable Diffusion 2 depth-to-image",
    classes: CLASSES,
    kin: &["stable-diffusion"],
    denoiser_classes: &["UNet2DConditionModel"],
    forms: &[Form::Unet],
    is_recognised: |signature| signature.is_stable_diffusion_unet() && signature.extra_channels() == Some(1),
    ..BASE
};

static CLASSES: &[PipelineClass] = &[PipelineClass {
    corrects_old_sample_size: true,
    ..class("StableDiffusionDepth2ImgPipeline", "image-to-image", from_image(7.5, 0.8))
}];
