//! Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206).

use super::class::{PipelineClass, class, flow, guided, resized};
use super::row::{BASE, FamilyRow, Form, PreviewMap, TextForm, TextReading, Vae, side_128};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "stable-diffusion-3",
    title: "Stable Diffusion 3",
    classes: CLASSES,
    denoiser_classes: &["SD3Transformer2DModel"],
    forms: &[Form::Multimodal],
    is_recognised: |signature| signature.form == Some(Form::Multimodal),
    vae: Vae { scaling_factor: 1.5305, shift_factor: 0.0609, ..BASE.vae },
    patch: 2,
    trained_side: side_128,
    text: TextReading { form: TextForm::Multimodal, tokens: Some(256), ..BASE.text },
    is_flow: true,
    preview: Some(PreviewMap {
        vae: Vae { scaling_factor: 1.5305, shift_factor: 0.0609, spatial_factor: 8 },
        factors: &[
            [-0.0922, -0.0175, 0.0749],
            [0.0311, 0.0633, 0.0954],
            [0.1994, 0.0927, 0.0458],
            [0.0856, 0.0339, 0.0902],
            [0.0587, 0.0272, -0.0496],
            [-0.0006, 0.1104, 0.0309],
            [0.0978, 0.0306, 0.0427],
            [-0.0042, 0.1038, 0.1358],
            [-0.0194, 0.0020, 0.0669],
            [-0.0488, 0.0130, -0.0268],
            [0.0922, 0.0988, 0.0951],
            [-0.0278, 0.0524, -0.0542],
            [0.0332, 0.0456, 0.0895],
            [-0.0069, -0.0030, -0.0810],
            [-0.0596, -0.0465, -0.0293],
            [-0.1448, -0.1463, -0.1189],
        ],
        bias: [0.2394, 0.2135, 0.1925],
    }),
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    class("StableDiffusion3Pipeline", "text-to-image", flow(28, 256, guided(7.0))),
    class("StableDiffusion3Img2ImgPipeline", "image-to-image", flow(50, 256, resized(7.0, 0.6))),
    class("StableDiffusion3InpaintPipeline", "inpaint", flow(50, 256, resized(7.0, 0.6))),
];
