//! Latents to pixels.

use ndarray::{ArrayD, ArrayViewD};

use super::Scaling;
use super::single::{self, Ports};
use crate::bundle::VaeDecoderContract;
use crate::error::Result;
use crate::session::{Cancel, Session};
use crate::tiles::Tiles;

/// A first stage's decoder graph.
pub struct Decoder {
    session: Session,
    contract: VaeDecoderContract,
    scaling: Scaling,
}

impl Decoder {
    /// Joins an open graph with the scaling of its latents.
    pub fn new(session: Session, contract: VaeDecoderContract, scaling: Scaling) -> Self {
        Self { session, contract, scaling }
    }

    /// Decodes one picture: latents `[1, c, h, w]` as the diffusion leaves them, to pixels `[1, 3, f·h, f·w]` in
    /// about [-1, 1].
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) where the pixels hold NaN or infinity, and whatever the graph fails with.
    pub fn decode(&mut self, latents: ArrayViewD<'_, f32>, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let z = latents.mapv(|v| self.scaling.undo(v));
        self.run(z, cancel)
    }

    /// As [`Decoder::decode`], tile by tile; `factor` is f.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_tiled(
        &mut self,
        latents: ArrayViewD<'_, f32>,
        tiles: Tiles,
        factor: usize,
        cancel: &Cancel,
    ) -> Result<ArrayD<f32>> {
        let z = latents.mapv(|v| self.scaling.undo(v));
        tiles.blend(z.view(), factor, |tile| self.run(tile, cancel))
    }

    fn run(&mut self, z: ArrayD<f32>, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let ports = Ports {
            input: &self.contract.latent,
            output: &self.contract.output,
            switches: &self.contract.switches,
            batch: self.contract.batch,
        };
        single::run(&mut self.session, &ports, z.view(), "the decoded picture", cancel)
    }
}
