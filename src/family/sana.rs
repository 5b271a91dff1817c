//! Sana 1.0 and 1.5 (Xie et al. 2024, arXiv 2410.10629): a transformer with linear attention over the latents of a deep
//! compression autoencoder, and Gemma 2.

use super::class::{DefaultSize, Defaults, PipelineClass, class, guided};
use super::row::{BASE, FamilyRow, Form, TextForm, TextReading, TokenizerKind, Vae};

/// The row of the family.
pub(super) static ROW: FamilyRow = FamilyRow {
    name: "sana",
    title: "Sana",
    classes: CLASSES,
    denoiser_classes: &["SanaTransformer2DModel"],
    vae_classes: &["AutoencoderDC"],
    text_models: &["gemma2"],
    // Without its mask the transformer is refused where the mask is missed.
    forms: &[Form::MaskedWithoutVariance, Form::PlainTransformer],
    is_recognised: |signature| {
        signature.form == Some(Form::MaskedWithoutVariance) && signature.spatial_factor == Some(32)
    },
    vae: Vae { scaling_factor: 0.41407, shift_factor: 0.0, spatial_factor: 32 },
    trained_side: |_| (32, "that of the family: 32 latent values"),
    text: TextReading {
        form: TextForm::Masked(TokenizerKind::Gemma),
        tokens: Some(300),
        instruction: &[
            "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image \
             generation. Evaluate the level of detail in the user prompt:",
            "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial \
             relationships to create vivid and concrete scenes.",
            "- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.",
            "Here are examples of how to transform or refine prompts:",
            "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping \
             peacefully on a warm sunny windowsill, surrounded by pots of blooming red flowers.",
            "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street \
             lamps, a diverse crowd of people in colorful clothing, and a double-decker bus passing by towering glass \
             skyscrapers.",
            "Please generate only the enhanced description for the prompt below and avoid including any additional \
             commentary or evaluations:",
            "User Prompt: ",
        ],
    },
    is_flow: true,
    ..BASE
};

static CLASSES: &[PipelineClass] = &[class("SanaPipeline", "text-to-image", DEFAULTS)];

const DEFAULTS: Defaults =
    Defaults { steps: 20, max_sequence_length: Some(300), size: DefaultSize::Binned, ..guided(4.5) };
