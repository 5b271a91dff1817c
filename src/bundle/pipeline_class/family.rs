//! Model families.

/// A family of models: those that share the form of the denoiser, the text encoders and the VAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Stable Diffusion 1 and 2, their inpainting and InstructPix2Pix models included.
    StableDiffusion,
    /// Stable Diffusion 2's depth-to-image model.
    StableDiffusionDepth,
    /// The x4 upscaler of Stable Diffusion 2.
    Upscaler,
    /// Latent consistency models distilled from Stable Diffusion.
    LatentConsistency,
    /// Stable Diffusion XL and its refiner.
    StableDiffusionXl,
    /// Stable Diffusion 3 and 3.5.
    StableDiffusion3,
    /// FLUX.1 dev and schnell.
    Flux,
    /// FLUX.1 Kontext.
    FluxKontext,
    /// PixArt-α (Chen et al. 2023, arXiv 2310.00426).
    PixArtAlpha,
    /// PixArt-Σ (Chen et al. 2024, arXiv 2403.04692).
    PixArtSigma,
    /// The systems of the latent diffusion paper (Rombach et al. 2022, arXiv 2112.10752).
    LatentDiffusion,
    /// Unconditional models without a VAE (Ho et al. 2020, arXiv 2006.11239).
    PixelDiffusion,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 12] = [
        Self::StableDiffusion,
        Self::StableDiffusionDepth,
        Self::Upscaler,
        Self::LatentConsistency,
        Self::StableDiffusionXl,
        Self::StableDiffusion3,
        Self::Flux,
        Self::FluxKontext,
        Self::PixArtAlpha,
        Self::PixArtSigma,
        Self::LatentDiffusion,
        Self::PixelDiffusion,
    ];

    /// Its name in pipeline.toml, such as `stable-diffusion`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StableDiffusion => "stable-diffusion",
            Self::StableDiffusionDepth => "stable-diffusion-depth",
            Self::Upscaler => "stable-diffusion-upscaler",
            Self::LatentConsistency => "latent-consistency",
            Self::StableDiffusionXl => "stable-diffusion-xl",
            Self::StableDiffusion3 => "stable-diffusion-3",
            Self::Flux => "flux",
            Self::FluxKontext => "flux-kontext",
            Self::PixArtAlpha => "pixart-alpha",
            Self::PixArtSigma => "pixart-sigma",
            Self::LatentDiffusion => "latent-diffusion",
            Self::PixelDiffusion => "pixel-diffusion",
        }
    }

    /// Its published name, such as `Stable Diffusion XL`.
    pub fn title(self) -> &'static str {
        match self {
            Self::StableDiffusion => "Stable Diffusion 1 and 2",
            Self::StableDiffusionDepth => "Stable Diffusion 2 depth-to-image",
            Self::Upscaler => "the x4 upscaler",
            Self::LatentConsistency => "latent consistency models",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusion3 => "Stable Diffusion 3",
            Self::Flux => "Flux",
            Self::FluxKontext => "Flux Kontext",
            Self::PixArtAlpha => "PixArt-α",
            Self::PixArtSigma => "PixArt-Σ",
            Self::LatentDiffusion => "latent diffusion",
            Self::PixelDiffusion => "diffusion in pixel space",
        }
    }

    /// Finds a family by its name in pipeline.toml.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// The families among whose pipeline classes a task's class is looked for, in this order.
    pub(super) fn search_order(self) -> &'static [Self] {
        match self {
            Self::StableDiffusion => &[Self::StableDiffusion, Self::Upscaler],
            Self::StableDiffusionDepth => &[Self::StableDiffusionDepth, Self::StableDiffusion],
            Self::Upscaler => &[Self::Upscaler, Self::StableDiffusion],
            Self::LatentConsistency => &[Self::LatentConsistency, Self::StableDiffusion],
            Self::StableDiffusionXl => &[Self::StableDiffusionXl],
            Self::StableDiffusion3 => &[Self::StableDiffusion3],
            Self::Flux => &[Self::Flux, Self::FluxKontext],
            Self::FluxKontext => &[Self::FluxKontext, Self::Flux],
            Self::PixArtAlpha => &[Self::PixArtAlpha],
            Self::PixArtSigma => &[Self::PixArtSigma],
            Self::LatentDiffusion => &[Self::LatentDiffusion],
            Self::PixelDiffusion => &[Self::PixelDiffusion],
        }
    }
}
