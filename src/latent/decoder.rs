//! Latents to pixels.

use ndarray::{ArrayD, ArrayViewD};

use super::Scaling;
use super::single::{self, Ports};
use crate::bundle::VaeDecoderContract;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tiles::Tiles;

/// A VAE's decoder graph.
pub struct Decoder {
    session: Session,
    contract: VaeDecoderContract,
    scaling: Scaling,
    /// f: pixels a side for one latent.
    factor: usize,
}

impl Decoder {
    /// Joins an open graph with the scaling of its latents. `factor` is the number of pixels a side for one latent.
    pub fn new(session: Session, contract: VaeDecoderContract, scaling: Scaling, factor: usize) -> Self {
        Self { session, contract, scaling, factor }
    }

    /// Gives back the open graph.
    pub fn into_session(self) -> Session {
        self.session
    }

    /// Decodes one image: latents `[1, c, h, w]` as the diffusion leaves them, to pixels `[1, 3, f·h, f·w]` in
    /// about [-1, 1].
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the pixels hold NaN or infinity, [`Error::Model`] if they are not as many as the latents
    /// stand for, and whatever the graph fails with.
    pub fn decode(&mut self, latents: ArrayViewD<'_, f32>, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let z = latents.mapv(|v| self.scaling.undo(v));
        self.run(z, cancel)
    }

    /// As [`Decoder::decode`], tile by tile.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_tiled(&mut self, latents: ArrayViewD<'_, f32>, tiles: Tiles, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let z = latents.mapv(|v| self.scaling.undo(v));
        tiles.blend(z.view(), self.factor, |tile| self.run(tile, cancel))
    }

    fn run(&mut self, z: ArrayD<f32>, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let ports = Ports {
            input: &self.contract.latent,
            output: &self.contract.output,
            switches: &self.contract.switches,
            batch: self.contract.batch,
        };
        let pixels = single::run(&mut self.session, &ports, z.view(), "the decoded image", cancel)?;
        let sides = |shape: &[usize], factor| shape.get(2..).map(|sides| sides.iter().map(|s| s * factor).collect());
        let [expected, found]: [Option<Vec<usize>>; 2] = [sides(z.shape(), self.factor), sides(pixels.shape(), 1)];
        if expected == found {
            return Ok(pixels);
        }
        Err(Error::model(
            self.session.path(),
            format!(
                "output {} is {:?} for latents {:?}: expected {} pixels a side for one latent",
                self.contract.output.name,
                pixels.shape(),
                z.shape(),
                self.factor
            ),
            "the decoder belongs to another model, or the VAE's config.json does; copy both from the model again",
        ))
    }
}
