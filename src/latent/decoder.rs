//! Latents to pixels.

use ndarray::{ArrayD, ArrayViewD};

use super::Scaling;
use super::single::{self, Ports};
use crate::bundle::VaeDecoderContract;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tiles::Tiles;

/// A first stage's decoder graph.
pub struct Decoder {
    session: Session,
    contract: VaeDecoderContract,
    scaling: Scaling,
    /// f, where the pictures' size is to be held to it.
    factor: Option<usize>,
}

impl Decoder {
    /// Joins an open graph with the scaling of its latents.
    pub fn new(session: Session, contract: VaeDecoderContract, scaling: Scaling) -> Self {
        Self { session, contract, scaling, factor: None }
    }

    /// Requires that pictures have `factor` pixels a side for one latent: decoders that do not come with the model may
    /// be another model's.
    pub fn of_factor(self, factor: usize) -> Self {
        Self { factor: Some(factor), ..self }
    }

    /// Decodes one picture: latents `[1, c, h, w]` as the diffusion leaves them, to pixels `[1, 3, f·h, f·w]` in
    /// about [-1, 1].
    ///
    /// # Errors
    /// [`Error::NonFinite`] where the pixels hold NaN or infinity, and whatever the graph fails with.
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
        let pixels = single::run(&mut self.session, &ports, z.view(), "the decoded picture", cancel)?;
        let side = |axis: usize, factor: usize| z.shape().get(axis).map(|side| side * factor);
        match self.factor {
            Some(f) if (2..4).any(|axis| pixels.shape().get(axis).copied() != side(axis, f)) => Err(Error::model(
                self.session.path(),
                format!(
                    "it makes {:?} of latents {:?}, and the model's pictures are {f} times as large as its latents",
                    pixels.shape(),
                    z.shape()
                ),
                "take the small decoder that was made for this model's first stage",
            )),
            _ => Ok(pixels),
        }
    }
}
