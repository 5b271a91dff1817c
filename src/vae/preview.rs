//! Small images of what a run is at.

use ndarray::{ArrayD, ArrayViewD};

use super::{Decoder, LinearColors};
use crate::error::Result;
use crate::session::Cancel;
use crate::tiles::Tiles;

/// What makes previews of latents.
pub enum Preview {
    /// A small decoder: images of the full size.
    Decoder(Box<Decoder>),
    /// A weighted sum a color: images of the size of the latents.
    Linear(LinearColors),
    /// Nothing: the model works on pixels.
    Pixels,
}

impl Preview {
    /// Makes an image `[1, 3, h, w]` in about [-1, 1] of latents `[1, c, h/f, w/f]` as the diffusion leaves them, tile
    /// by tile where a decoder is to work so.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
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
