//! Stable Diffusion 1 and 2, their inpainting and InstructPix2Pix models included.

use super::class::{
    DefaultSize, INSTRUCT, OFFSET_AND_CLIP, OFFSET_AND_PRK, PipelineClass, class, controlled, from_image, guided,
    resized, square,
};
use super::row::{BASE, FamilyRow, Form, PreviewMap, Training, Vae};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "stable-diffusion",
    title: "Stable Diffusion 1 and 2",
    classes: CLASSES,
    kin: &["stable-diffusion-upscaler"],
    denoiser_classes: &["UNet2DConditionModel"],
    forms: &[Form::Unet],
    is_recognised: |signature| signature.is_stable_diffusion_unet() && signature.extra_channels() != Some(1),
    trained_side: |training| match training {
        Training { context_width: Some(1024), predicts_v: true } => {
            (96, "that of Stable Diffusion 2 with v-prediction: 96 latent values")
        }
        _ => (BASE.trained_side)(training),
    },
    preview: Some(PreviewMap {
        vae: Vae { scaling_factor: 0.18215, shift_factor: 0.0, spatial_factor: 8 },
        factors: &[
            [0.3512, 0.2297, 0.3227],
            [0.3250, 0.4974, 0.2350],
            [-0.2829, 0.1762, 0.2721],
            [-0.2120, -0.2616, -0.7177],
        ],
        bias: [0.0; 3],
    }),
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    PipelineClass {
        corrections: OFFSET_AND_CLIP,
        corrects_old_sample_size: true,
        ..class("StableDiffusionPipeline", "text-to-image", guided(7.5))
    },
    PipelineClass {
        corrections: OFFSET_AND_CLIP,
        corrects_old_sample_size: true,
        ..class("StableDiffusionImg2ImgPipeline", "image-to-image", from_image(7.5, 0.8))
    },
    PipelineClass {
        corrections: OFFSET_AND_PRK,
        corrects_old_sample_size: true,
        ..class("StableDiffusionInpaintPipeline", "inpaint", resized(7.5, 1.0))
    },
    class("StableDiffusionInstructPix2PixPipeline", "instruct", INSTRUCT),
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionControlNetPipeline",
            "text-to-image",
            controlled(1.0, DefaultSize::ControlImage, guided(7.5)),
        )
    },
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionControlNetImg2ImgPipeline",
            "image-to-image",
            controlled(0.8, DefaultSize::InputImage, from_image(7.5, 0.8)),
        )
    },
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionControlNetInpaintPipeline",
            "inpaint",
            controlled(0.5, DefaultSize::InputImage, from_image(7.5, 1.0)),
        )
    },
    PipelineClass {
        is_onnx: true,
        corrections: OFFSET_AND_CLIP,
        ..class("OnnxStableDiffusionPipeline", "text-to-image", square(guided(7.5)))
    },
    PipelineClass {
        is_onnx: true,
        corrections: OFFSET_AND_CLIP,
        ..class("OnnxStableDiffusionImg2ImgPipeline", "image-to-image", from_image(7.5, 0.8))
    },
    PipelineClass {
        is_onnx: true,
        corrections: OFFSET_AND_CLIP,
        ..class("OnnxStableDiffusionInpaintPipeline", "inpaint", square(guided(7.5)))
    },
];
