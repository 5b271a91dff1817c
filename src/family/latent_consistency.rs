//! Latent consistency models distilled from Stable Diffusion (Luo et al. 2023, arXiv 2310.04378).

use super::class::{Defaults, PipelineClass, class, from_image, guided};
use super::row::{BASE, FamilyRow, Form};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "latent-consistency",
    title: "latent consistency models",
    classes: CLASSES,
    kin: &["stable-diffusion"],
    denoiser_classes: &["UNet2DConditionModel"],
    forms: &[Form::Unet],
    is_recognised: |signature| {
        signature.is_unet_of_latents() && !signature.takes_low_res_image() && signature.takes_guidance_embedding
    },
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    class("LatentConsistencyModelPipeline", "text-to-image", consistent(guided(8.5))),
    PipelineClass {
        counts_strength_in_training: true,
        ..class("LatentConsistencyModelImg2ImgPipeline", "image-to-image", consistent(from_image(8.5, 0.8)))
    },
];

const fn consistent(defaults: Defaults) -> Defaults {
    Defaults { steps: 4, eta: None, ..defaults }
}
