//! VAEs: encode pixels to latents and decode latents to pixels.
//!
//! A VAE (arXiv 2112.10752, section 3.1) compresses an image by a factor f along each side. The diffusion works on
//! latents scaled to about unit variance: `z = (latent − shift) · scale`.

mod decoder;
mod encoder;
mod linear;
mod preview;
mod single;

pub use decoder::VaeDecoder;
pub use encoder::{EncodedImage, Posterior, VaeEncoder};
pub use linear::LinearColors;
pub use preview::Preview;

/// The affine map between a VAE's latents and those of the diffusion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// `scaling_factor`: multiplies latents after encoding and divides them before decoding.
    pub factor: f64,
    /// `shift_factor`: subtracted before that multiplication, and added after that division.
    pub shift: f64,
}

impl Scaling {
    /// Converts the diffusion's latents to the VAE's.
    pub fn undo(&self, z: f32) -> f32 {
        z / self.factor as f32 + self.shift as f32
    }

    /// Converts the VAE's latents to the diffusion's.
    pub fn apply(&self, latent: f32) -> f32 {
        (latent - self.shift as f32) * self.factor as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_undoes_apply() {
        let scaling = Scaling { factor: 1.5305, shift: 0.0609 };
        for v in [-3.0, 0.0, 0.25, 7.0] {
            assert!((scaling.undo(scaling.apply(v)) - v).abs() < 1e-5);
        }
    }
}
