//! PixArt-α (Chen et al. 2023, arXiv 2310.00426).

use super::class::{Defaults, PipelineClass, class, guided};
use super::row::{BASE, FamilyRow, Form, TextForm, TextReading, TokenizerKind, side_128};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "pixart-alpha",
    title: "PixArt-α",
    classes: CLASSES,
    named_as: Some(&super::pixart_sigma::ROW),
    is_told_apart: |signature| signature.takes_resolution,
    is_recognised: |signature| signature.form == Some(Form::MaskedWithResolution),
    denoiser_classes: &["PixArtTransformer2DModel", "Transformer2DModel"],
    // Without its mask the transformer is refused where the mask is missed.
    forms: &[Form::Masked, Form::MaskedWithResolution, Form::PlainTransformer],
    patch: 2,
    trained_side: side_128,
    text: TextReading { form: TextForm::Masked(TokenizerKind::T5), tokens: Some(120), ..BASE.text },
    ..BASE
};

static CLASSES: &[PipelineClass] = &[class("PixArtAlphaPipeline", "text-to-image", DEFAULTS)];

const DEFAULTS: Defaults = Defaults { steps: 20, max_sequence_length: Some(120), ..guided(4.5) };
