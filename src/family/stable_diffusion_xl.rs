//! Stable Diffusion XL and its refiner (Podell et al. 2023, arXiv 2307.01952).

use super::class::{DefaultSize, Defaults, INSTRUCT, PipelineClass, class, controlled, from_image, guided, resized};
use super::row::{BASE, FamilyRow, Form, PreviewMap, TextForm, TextReading, Vae, side_128};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "stable-diffusion-xl",
    title: "Stable Diffusion XL",
    classes: CLASSES,
    denoiser_classes: &["UNet2DConditionModel"],
    forms: &[Form::UnetWithSizes],
    is_recognised: |signature| signature.form == Some(Form::UnetWithSizes) && !signature.has_lone_first_encoder,
    vae: Vae { scaling_factor: 0.13025, ..BASE.vae },
    trained_side: side_128,
    text: TextReading { form: TextForm::Penultimate, ..BASE.text },
    zeros_for_no_prompt: true,
    scales_followed_image: true,
    preview: Some(PreviewMap {
        vae: Vae { scaling_factor: 0.13025, shift_factor: 0.0, spatial_factor: 8 },
        factors: &[
            [0.3651, 0.4232, 0.4341],
            [-0.2533, -0.0042, 0.1068],
            [0.1076, 0.1111, -0.0362],
            [-0.3165, -0.2492, -0.2188],
        ],
        bias: [0.1084, -0.0175, -0.0011],
    }),
    upcasts_vae: true,
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    class("StableDiffusionXLPipeline", "text-to-image", guided(5.0)),
    class("StableDiffusionXLImg2ImgPipeline", "image-to-image", from_image(5.0, 0.3)),
    class("StableDiffusionXLInpaintPipeline", "inpaint", resized(7.5, 0.9999)),
    class(
        "StableDiffusionXLInstructPix2PixPipeline",
        "instruct",
        Defaults { guidance_scale: Some(5.0), size: DefaultSize::Model, ..INSTRUCT },
    ),
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionXLControlNetPipeline",
            "text-to-image",
            controlled(1.0, DefaultSize::ControlImage, guided(5.0)),
        )
    },
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionXLControlNetImg2ImgPipeline",
            "image-to-image",
            controlled(0.8, DefaultSize::InputImage, from_image(5.0, 0.8)),
        )
    },
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionXLControlNetInpaintPipeline",
            "inpaint",
            controlled(1.0, DefaultSize::InputImage, from_image(5.0, 0.9999)),
        )
    },
];
