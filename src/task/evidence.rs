//! The properties of a model directory that decide which tasks it can do.

use crate::bundle::{Autoencoder, Bundle, ComponentKind, DenoiserSignature, Role};

/// The properties of a model directory that decide which tasks it can do. What is an error says why.
pub(crate) struct ModelEvidence {
    /// The number of channels that the denoiser takes.
    pub(super) in_channels: usize,
    /// The number of channels of the latents.
    pub(super) latent_channels: usize,
    /// The text encoders and tokenizers, for a denoiser that takes text.
    pub(super) text: Result<(), String>,
    /// The VAE encoder.
    pub(super) encoder: Result<(), String>,
    /// The VAE decoder.
    pub(super) decoder: Result<(), String>,
    /// True if the denoiser has cross-attention conditioning.
    pub(super) has_context: bool,
    /// True if the denoiser has an input for classes.
    pub(super) has_classes: bool,
    /// True if the directory has a graph that embeds classes.
    pub(super) embeds_classes: bool,
    /// The folders of the directory with graphs for other conditions.
    pub(super) conditioners: Vec<String>,
    /// True for a refiner, which takes an aesthetic score.
    pub(super) is_refiner: bool,
    /// True for a model without a VAE.
    pub(super) in_pixels: bool,
    /// True if samples are packed into tokens, as Flux's are.
    pub(super) is_packed: bool,
    /// True if the model is trained to follow an image packed behind the sample; `None` if no name tells.
    pub(super) follows_packed_image: Option<bool>,
}

impl ModelEvidence {
    pub(super) fn new(bundle: &Bundle, signature: &DenoiserSignature) -> Self {
        let latent_channels = bundle.facts.latent_channels.value;
        let in_pixels = bundle.facts.autoencoder == Autoencoder::Pixels;
        let need = |there: bool, what: &str| if there { Ok(()) } else { Err(format!("the directory has no {what}")) };
        let has_tokenizer = bundle.text_encoders().any(|e| bundle.tokenizer(e.kind).is_some());
        let text = if !signature.takes(Role::Context) {
            Err("the denoiser takes no text".to_owned())
        } else {
            need(bundle.text_encoders().next().is_some(), "text encoder")
                .and_then(|()| need(has_tokenizer, "tokenizer"))
        };
        Self {
            in_channels: signature.in_channels.unwrap_or(latent_channels),
            latent_channels,
            text,
            encoder: need(bundle.encoder().is_some() || in_pixels, "VAE's encoder"),
            decoder: need(bundle.decoder().is_some() || in_pixels, "VAE's decoder"),
            has_context: signature.takes(Role::Context),
            has_classes: signature.takes(Role::ClassLabels),
            embeds_classes: bundle.component(ComponentKind::ClassEmbedder).is_some(),
            conditioners: bundle.conditioners.clone(),
            is_refiner: signature.time_ids_width() == Some(5),
            in_pixels,
            is_packed: signature.is_packed(),
            follows_packed_image: bundle.named_family().map(|family| family.row().follows_packed_image),
        }
    }

    /// Requires that the denoiser takes this number of channels besides the latents'.
    pub(super) fn require_channels(&self, extra: usize, description: &str) -> Result<(), String> {
        let expected = self.latent_channels.saturating_add(extra);
        if self.in_channels == expected {
            return Ok(());
        }
        Err(format!("the denoiser takes {} channels, not {expected} ({description})", self.in_channels))
    }

    /// Requires that the denoiser takes the latents alone.
    pub(super) fn require_plain(&self) -> Result<(), String> {
        self.require_channels(0, "latents alone")
    }

    /// Requires text encoders, the VAE encoder and the VAE decoder, in this order.
    pub(super) fn require_text_and_vae(&self) -> Result<(), String> {
        self.text.clone().and(self.encoder.clone()).and(self.decoder.clone())
    }

    /// Requires a VAE.
    pub(super) fn require_vae(&self) -> Result<(), String> {
        if self.in_pixels { Err("the model has no VAE".to_owned()) } else { Ok(()) }
    }
}
