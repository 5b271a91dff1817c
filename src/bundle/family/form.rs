//! The form of a denoiser's inputs.

use crate::bundle::component::ComponentKind;
use crate::bundle::pipeline_class::Family;
use crate::bundle::roles::{DenoiserSignature, Role};

/// The form of a denoiser's inputs, which whole families share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Stable Diffusion 1 and 2 and their relatives.
    Unet,
    /// A UNet that takes no tokens.
    UnetWithoutTokens,
    UnetWithSizes,
    Multimodal,
    Packed,
    Masked,
    MaskedWithResolution,
    /// A transformer that takes tokens alone, or a class.
    PlainTransformer,
    /// A form of no family, with what is known of it.
    Unknown(&'static str),
}

impl Form {
    /// The form of a denoiser of these inputs.
    pub(super) fn of(
        signature: &DenoiserSignature,
        kind: ComponentKind,
        latent_channels: usize,
        spatial_factor: usize,
    ) -> Self {
        let is_of_latents = signature.in_channels.is_none_or(|taken| taken == latent_channels);
        let is_transformer = kind == ComponentKind::Transformer;
        if signature.is_packed() {
            return match (signature.takes(Role::TextEmbeds), is_of_latents) {
                (true, true) => Self::Packed,
                (true, false) => {
                    Self::Unknown("packed samples with further channels, as FLUX.1 Fill and Control take them")
                }
                (false, _) => Self::Unknown("packed samples and no pooled text, as FLUX.2 and Chroma take them"),
            };
        }
        if signature.takes(Role::ContextMask) {
            if spatial_factor > 8 {
                return Self::Unknown(
                    "a mask over its tokens and a VAE with more than 8 pixels per latent, as Sana has it",
                );
            }
            let predicts_variance = signature.out_channels.is_none_or(|given| Some(given) != signature.in_channels);
            return match (signature.takes(Role::Resolution), predicts_variance) {
                (true, _) => Self::MaskedWithResolution,
                (false, true) => Self::Masked,
                (false, false) => {
                    Self::Unknown("a mask over its tokens and no variance in its prediction, as Sana has it")
                }
            };
        }
        match (signature.takes(Role::TimeIds), signature.takes(Role::TextEmbeds), signature.takes(Role::Context)) {
            (true, _, _) => Self::UnetWithSizes,
            (false, true, _) if is_transformer => Self::Multimodal,
            (false, true, _) => Self::Unknown("a pooled vector and no sizes, as no UNet of a known family takes it"),
            (false, false, _) if is_transformer => Self::PlainTransformer,
            (false, false, true) => Self::Unet,
            (false, false, false) => Self::UnetWithoutTokens,
        }
    }

    /// True if denoisers of this form belong to the family.
    pub(super) fn is_of(self, family: Family) -> bool {
        match family {
            Family::StableDiffusion | Family::StableDiffusionDepth | Family::Upscaler | Family::LatentConsistency => {
                self == Self::Unet
            }
            Family::StableDiffusionXl => self == Self::UnetWithSizes,
            Family::StableDiffusion3 => self == Self::Multimodal,
            Family::Flux | Family::FluxKontext => self == Self::Packed,
            // Without its mask the transformer is refused where the mask is missed, and told apart by its name until then.
            Family::PixArtAlpha | Family::PixArtSigma => {
                matches!(self, Self::Masked | Self::MaskedWithResolution | Self::PlainTransformer)
            }
            Family::LatentDiffusion => matches!(self, Self::Unet | Self::UnetWithoutTokens),
            Family::PixelDiffusion => self == Self::UnetWithoutTokens,
        }
    }

    /// A description of such a denoiser, for messages.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Unet => "a UNet that attends to tokens and takes no sizes, as those of Stable Diffusion 1 and 2",
            Self::UnetWithoutTokens => "a UNet that attends to no tokens",
            Self::UnetWithSizes => "a UNet that takes sizes (time_ids), as Stable Diffusion XL's",
            Self::Multimodal => "a transformer that takes pooled text and unpacked samples, as Stable Diffusion 3's",
            Self::Packed => "a transformer that takes packed samples with their positions, as Flux's",
            Self::Masked => "a transformer that takes a mask over its tokens, as PixArt-Σ's",
            Self::MaskedWithResolution => {
                "a transformer that takes a mask over its tokens and a resolution, as PixArt-α's"
            }
            Self::PlainTransformer => "a transformer that takes neither pooled text nor a mask over its tokens",
            Self::Unknown(what) => what,
        }
    }
}
