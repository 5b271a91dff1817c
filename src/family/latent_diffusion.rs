//! The systems of the latent diffusion paper (Rombach et al. 2022, arXiv 2112.10752).

use super::class::{DefaultSize, Defaults, PipelineClass, class, guided, unguided};
use super::row::{BASE, FamilyRow, Form};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "latent-diffusion",
    title: "latent diffusion",
    classes: CLASSES,
    // The class name of scripts/export.py.
    other_names: &["LatentDiffusion"],
    has_class_defaults: false,
    denoiser_classes: &["UNet2DConditionModel", "UNet2DModel", "UNetModel"],
    forms: &[Form::Unet, Form::UnetWithoutTokens],
    is_recognised: |signature| match signature.form {
        Some(Form::Unet) => signature.has_vae && (signature.has_codebook || signature.reads_bert),
        Some(Form::UnetWithoutTokens) => signature.has_vae,
        _ => false,
    },
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    class("LDMTextToImagePipeline", "text-to-image", guided(1.0)),
    class("LDMSuperResolutionPipeline", "super-resolution", Defaults { size: DefaultSize::Upscaled, ..unguided(100) }),
    class("LDMPipeline", "unconditional", unguided(50)),
];
