//! Unconditional models without a VAE (Ho et al. 2020, arXiv 2006.11239).

use super::class::{Defaults, PipelineClass, class, unguided};
use super::row::{BASE, FamilyRow, Form};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "pixel-diffusion",
    title: "diffusion in pixel space",
    classes: CLASSES,
    denoiser_classes: &["UNet2DModel"],
    forms: &[Form::UnetWithoutTokens],
    is_recognised: |signature| signature.form == Some(Form::UnetWithoutTokens) && !signature.has_vae,
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    class("DDPMPipeline", "unconditional", Defaults { eta: None, ..unguided(1000) }),
    PipelineClass { scheduler: Some("DDIMScheduler"), ..class("DDIMPipeline", "unconditional", unguided(50)) },
    PipelineClass {
        scheduler: Some("PNDMScheduler"),
        ..class("PNDMPipeline", "unconditional", Defaults { eta: None, ..unguided(50) })
    },
];
