//! What is known of published families, for directories that do not say it.

use super::roles::DenoiserContract;

/// The families whose constants differ, told apart where no configuration gives the constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    StableDiffusion,
    Xl,
    Upscaler,
    StableDiffusion3,
    Flux,
    PixArt(PixArt),
}

/// What a family is told by, beside what its denoiser takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs<'a> {
    /// The pipeline class that model_index.json names.
    pub class: Option<&'a str>,
    pub latent_channels: usize,
    /// Whether there is a scheduler for the noise over a small picture.
    pub is_upscaler: bool,
    pub has_second_encoder: bool,
}

impl Family {
    pub(super) fn of(contract: Option<&DenoiserContract>, signs: Signs<'_>) -> Self {
        let Signs { class, latent_channels, is_upscaler, has_second_encoder } = signs;
        let is_told_sizes = contract.is_some_and(|c| c.text_embeds.is_some() || c.time_ids.is_some());
        // A small picture of three channels behind the latents, and how much noise lies over it.
        let takes_picture = contract
            .is_some_and(|c| c.class_labels.is_some() && c.in_channels == Some(latent_channels.saturating_add(3)));
        if contract.is_some_and(|c| c.positions.is_some()) {
            Self::Flux
        } else if let Some(pixart) = contract.and_then(|contract| PixArt::of(class, contract)) {
            Self::PixArt(pixart)
        } else if latent_channels >= 16 {
            Self::StableDiffusion3
        } else if is_upscaler || takes_picture {
            Self::Upscaler
        } else if is_told_sizes || has_second_encoder {
            Self::Xl
        } else {
            Self::StableDiffusion
        }
    }

    /// The name, the scaling factor and the shift factor of the family's published first stage.
    pub(super) fn constants(self) -> (&'static str, f64, f64) {
        match self {
            Self::StableDiffusion => ("Stable Diffusion 1 and 2", 0.18215, 0.0),
            Self::Xl => ("Stable Diffusion XL", 0.13025, 0.0),
            Self::Upscaler => ("the x4 upscaler", 0.08333, 0.0),
            Self::StableDiffusion3 => ("Stable Diffusion 3", 1.5305, 0.0609),
            Self::Flux => ("Flux", 0.3611, 0.1159),
            Self::PixArt(PixArt::Alpha) => (PixArt::Alpha.name(), 0.18215, 0.0),
            Self::PixArt(PixArt::Sigma) => (PixArt::Sigma.name(), 0.13025, 0.0),
        }
    }
}

/// The two generations of PixArt: transformers that attend to T5's tokens under a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixArt {
    /// PixArt-α (Chen et al. 2023, arXiv 2310.00426).
    Alpha,
    /// PixArt-Σ (Chen et al. 2024, arXiv 2403.04692).
    Sigma,
}

impl PixArt {
    /// Tells which of them a model is, if either: α for 1024 pixels alone is told the picture's height and width; else by
    /// the pipeline's class where it is one of theirs; else Σ where the denoiser takes a mask over its tokens.
    pub fn of(class: Option<&str>, denoiser: &DenoiserContract) -> Option<Self> {
        let is_masked = denoiser.context_mask.is_some();
        match class {
            _ if is_masked && denoiser.resolution.is_some() => Some(Self::Alpha),
            Some(class) if class.contains("PixArtAlpha") => Some(Self::Alpha),
            Some(class) if class.contains("PixArtSigma") => Some(Self::Sigma),
            _ => is_masked.then_some(Self::Sigma),
        }
    }

    /// How many tokens T5 reads where nobody says: diffusers' default of `max_sequence_length`.
    pub fn tokens(self) -> usize {
        match self {
            Self::Alpha => 120,
            Self::Sigma => 300,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpha => "PixArt-α",
            Self::Sigma => "PixArt-Σ",
        }
    }
}
