//! FLUX.1 Kontext: Flux that follows an image. A denoiser's inputs do not tell it from Flux.

use super::class::{DefaultSize, Defaults, PipelineClass, class, flow, guided};
use super::row::{BASE, FamilyRow, Form, TextForm, TextReading, Vae, side_128};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "flux-kontext",
    title: "Flux Kontext",
    classes: CLASSES,
    kin: &["flux"],
    denoiser_classes: &["FluxTransformer2DModel"],
    forms: &[Form::Packed],
    vae: Vae { scaling_factor: 0.3611, shift_factor: 0.1159, ..BASE.vae },
    reads_sample_size: false,
    trained_side: side_128,
    text: TextReading { form: TextForm::PooledAndT5, tokens: Some(512), ..BASE.text },
    is_flow: true,
    follows_packed_image: true,
    ..BASE
};

static CLASSES: &[PipelineClass] = &[
    class("FluxKontextPipeline", "instruct", KONTEXT),
    class("FluxKontextPipeline", "text-to-image", KONTEXT),
    class("FluxKontextPipeline", "image-to-image", KONTEXT),
];

const KONTEXT: Defaults = Defaults { size: DefaultSize::PreferredResolution, ..flow(28, 512, guided(3.5)) };
