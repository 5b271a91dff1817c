//! Decodes latents to pixels.

use ndarray::{ArrayD, ArrayViewD};

use super::Scaling;
use super::single::{self, Ports};
use crate::bundle::VaeDecoderSignature;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tiles::Tiles;

/// A VAE decoder graph.
pub struct VaeDecoder {
    session: Session,
    signature: VaeDecoderSignature,
    scaling: Scaling,
    /// f: pixels per latent along each side.
    factor: usize,
}

impl VaeDecoder {
    /// Combines an open graph with the scaling of its latents. `factor` is the number of pixels per latent along each
    /// side.
    pub fn new(session: Session, signature: VaeDecoderSignature, scaling: Scaling, factor: usize) -> Self {
        Self { session, signature, scaling, factor }
    }

    /// Returns the open graph.
    pub fn into_session(self) -> Session {
        self.session
    }

    /// Decodes one image: the diffusion's latents `[1, c, h, w]` to pixels `[1, 3, f·h, f·w]` in about [-1, 1].
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the pixels contain NaN or infinity, [`Error::Model`] if their number does not match the
    /// latents, and all errors of the graph.
    pub fn decode(&mut self, latents: ArrayViewD<'_, f32>, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let z = latents.mapv(|v| self.scaling.undo(v));
        self.run(z, cancel)
    }

    /// As [`VaeDecoder::decode`], tile by tile.
    ///
    /// # Errors
    /// As [`VaeDecoder::decode`].
    pub fn decode_tiled(&mut self, latents: ArrayViewD<'_, f32>, tiles: Tiles, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let z = latents.mapv(|v| self.scaling.undo(v));
        tiles.blend(z.view(), self.factor, |tile| self.run(tile, cancel))
    }

    fn run(&mut self, z: ArrayD<f32>, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let ports = Ports {
            input: &self.signature.latent,
            output: &self.signature.output,
            switches: &self.signature.switches,
            batch: self.signature.batch,
        };
        let pixels = single::run(&mut self.session, &ports, z.view(), cancel)?;
        let sides = |shape: &[usize], factor| shape.get(2..).map(|sides| sides.iter().map(|s| s * factor).collect());
        let [expected, found]: [Option<Vec<usize>>; 2] = [sides(z.shape(), self.factor), sides(pixels.shape(), 1)];
        if expected == found {
            return Ok(pixels);
        }
        Err(Error::model(
            self.session.path(),
            format!(
                "output {} is {:?} for latents {:?}: expected {} pixels per latent along each side",
                self.signature.output.name,
                pixels.shape(),
                z.shape(),
                self.factor
            ),
            "the decoder belongs to another model, or the VAE's config.json does; copy both from the model again",
        ))
    }
}
