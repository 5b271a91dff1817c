//! The kind of a model's autoencoder.

/// The kind of the autoencoder between pixels and the denoiser's latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autoencoder {
    /// An autoencoder with KL regularization (VAE).
    Kl,
    /// An autoencoder with a codebook (VQ).
    Vq,
    /// None: the denoiser works on pixels.
    Pixels,
}

impl std::fmt::Display for Autoencoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kl => "KL autoencoder",
            Self::Vq => "VQ autoencoder",
            Self::Pixels => "none (pixel space)",
        })
    }
}

/// The mean and the standard deviation of each latent channel.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentStatistics {
    /// The means.
    pub mean: Vec<f64>,
    /// The standard deviations.
    pub std: Vec<f64>,
}
