//! The kind of a model's VAE.

/// The kind of VAE between pixels and what is denoised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autoencoder {
    /// An autoencoder regularised towards a normal distribution.
    Kl,
    /// An autoencoder with a codebook.
    Vq,
    /// Nothing: the denoiser works on pixels.
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
