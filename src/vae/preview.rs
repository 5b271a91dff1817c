//! Small preview images of a run in progress.

use ndarray::{ArrayD, ArrayViewD};

use super::{LinearColors, VaeDecoder};
use crate::error::Result;
use crate::session::Cancel;
use crate::tiles::Tiles;

/// A decoder for previews of latents.
pub enum Preview {
    /// A tiny autoencoder (TAESD): images of the full size.
    Decoder(Box<VaeDecoder>),
    /// A weighted sum per color: images of the size of the latents.
    Linear(LinearColors),
    /// None: the model works on pixels.
    Pixels,
}

impl Preview {
    /// Converts the diffusion's latents `[1, c, h/f, w/f]` to an image `[1, 3, h, w]` in about [-1, 1], in tiles if
    /// given.
    ///
    /// # Errors
    /// As [`VaeDecoder::decode`].
    pub fn image(
        &mut self,
        latents: ArrayViewD<'_, f32>,
        tiles: Option<Tiles>,
        cancel: &Cancel,
    ) -> Result<ArrayD<f32>> {
        match (self, tiles) {
            (Self::Decoder(decoder), Some(tiles)) => decoder.decode_tiled(latents, tiles, cancel),
            (Self::Decoder(decoder), None) => decoder.decode(latents, cancel),
            (Self::Linear(map), _) => map.colors(latents),
            (Self::Pixels, _) => Ok(latents.to_owned()),
        }
    }
}
