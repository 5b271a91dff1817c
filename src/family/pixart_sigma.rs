//! PixArt-Σ (Chen et al. 2024, arXiv 2403.04692).

use super::class::{Defaults, PipelineClass, class, guided};
use super::row::{BASE, FamilyRow, Form, TextForm, TextReading, TokenizerKind, Vae, side_128};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "pixart-sigma",
    title: "PixArt-Σ",
    classes: CLASSES,
    is_recognised: |signature| signature.form == Some(Form::Masked),
    denoiser_classes: &["PixArtTransformer2DModel", "Transformer2DModel"],
    // Without its mask the transformer is refused where the mask is missed.
    forms: &[Form::Masked, Form::MaskedWithResolution, Form::PlainTransformer],
    vae: Vae { scaling_factor: 0.13025, ..BASE.vae },
    patch: 2,
    trained_side: side_128,
    text: TextReading { form: TextForm::Masked(TokenizerKind::T5), tokens: Some(300), ..BASE.text },
    ..BASE
};

static CLASSES: &[PipelineClass] = &[class("PixArtSigmaPipeline", "text-to-image", DEFAULTS)];

const DEFAULTS: Defaults = Defaults { steps: 20, max_sequence_length: Some(300), ..guided(4.5) };
