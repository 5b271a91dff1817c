//! VAEs: latents to pixels and back.
//!
//! A VAE (arXiv 2112.10752, section 3.1) compresses an image by a factor f a side. The diffusion works on its
//! latents scaled to about unit variance: `z = (latent − shift) · scale`.

mod decoder;
mod encoder;
mod linear;
mod preview;
mod single;

pub use decoder::Decoder;
pub use encoder::{EncodedImage, Encoder, Posterior};
pub use linear::LinearColors;
pub use preview::Preview;

/// The affine map between a VAE's latents and those of the diffusion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// `scaling_factor`: what latents are multiplied by after encoding and divided by before decoding.
    pub factor: f64,
    /// `shift_factor`: what is subtracted before that multiplication, and added after that division.
    pub shift: f64,
}

impl Scaling {
    /// From the diffusion's latents to the VAE's.
    pub fn undo(&self, z: f32) -> f32 {
        z / self.factor as f32 + self.shift as f32
    }

    /// From the VAE's latents to the diffusion's.
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
