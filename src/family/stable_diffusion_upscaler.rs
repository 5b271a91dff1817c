//! The x4 upscaler of Stable Diffusion 2.

use super::class::{DefaultSize, Defaults, OFFSET_AND_CLIP, PipelineClass, class, guided};
use super::row::{BASE, FamilyRow, Form, PreviewMap, Signature, Vae};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "stable-diffusion-upscaler",
    title: "the x4 upscaler",
    classes: CLASSES,
    kin: &["stable-diffusion"],
    // Exporters write the base class for the upscaler, too.
    named_as: Some(&super::stable_diffusion::ROW),
    is_told_apart: Signature::takes_low_res_image,
    denoiser_classes: &["UNet2DConditionModel"],
    forms: &[Form::Unet],
    is_recognised: |signature| signature.is_unet_of_latents() && signature.takes_low_res_image(),
    preview: Some(PreviewMap {
        vae: Vae { scaling_factor: 0.08333, shift_factor: 0.0, spatial_factor: 4 },
        factors: &[
            [-0.2340, -0.3863, -0.3257],
            [0.0994, 0.0885, -0.0908],
            [-0.2833, -0.2349, -0.3741],
            [0.2523, -0.0055, -0.1651],
        ],
        bias: [0.0; 3],
    }),
    upcasts_vae: true,
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    PipelineClass {
        is_onnx: true,
        corrections: OFFSET_AND_CLIP,
        ..class("OnnxStableDiffusionUpscalePipeline", "super-resolution", UPSCALE)
    },
    PipelineClass {
        vae_scaling_factor: Some(0.08333),
        ..class("StableDiffusionUpscalePipeline", "super-resolution", UPSCALE)
    },
];

const UPSCALE: Defaults = Defaults { steps: 75, noise_level: Some(20), size: DefaultSize::Upscaled, ..guided(9.0) };
