//! FLUX.1 dev and schnell.

use super::class::{PipelineClass, class, flow, guided, resized};
use super::row::{BASE, FamilyRow, Form, PreviewMap, TextForm, TextReading, Vae, side_128};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "flux",
    title: "Flux",
    classes: CLASSES,
    kin: &["flux-kontext"],
    denoiser_classes: &["FluxTransformer2DModel"],
    forms: &[Form::Packed],
    is_recognised: |signature| signature.form == Some(Form::Packed),
    vae: Vae { scaling_factor: 0.3611, shift_factor: 0.1159, ..BASE.vae },
    reads_sample_size: false,
    trained_side: side_128,
    text: TextReading { form: TextForm::PooledAndT5, tokens: Some(512), ..BASE.text },
    is_flow: true,
    preview: Some(PreviewMap {
        vae: Vae { scaling_factor: 0.3611, shift_factor: 0.1159, spatial_factor: 8 },
        factors: &[
            [-0.0346, 0.0244, 0.0681],
            [0.0034, 0.0210, 0.0687],
            [0.0275, -0.0668, -0.0433],
            [-0.0174, 0.0160, 0.0617],
            [0.0859, 0.0721, 0.0329],
            [0.0004, 0.0383, 0.0115],
            [0.0405, 0.0861, 0.0915],
            [-0.0236, -0.0185, -0.0259],
            [-0.0245, 0.0250, 0.1180],
            [0.1008, 0.0755, -0.0421],
            [-0.0515, 0.0201, 0.0011],
            [0.0428, -0.0012, -0.0036],
            [0.0817, 0.0765, 0.0749],
            [-0.1264, -0.0522, -0.1103],
            [-0.0280, -0.0881, -0.0499],
            [-0.1262, -0.0982, -0.0778],
        ],
        bias: [-0.0329, -0.0718, -0.0851],
    }),
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    class("FluxPipeline", "text-to-image", flow(28, 512, guided(3.5))),
    class("FluxImg2ImgPipeline", "image-to-image", flow(28, 512, resized(7.0, 0.6))),
    class("FluxInpaintPipeline", "inpaint", flow(28, 512, resized(7.0, 0.6))),
];
