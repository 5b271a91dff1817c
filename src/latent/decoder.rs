//! Latents to pixels.

use ndarray::{ArrayD, ArrayViewD, Axis, Slice, concatenate};

use super::Scaling;
use crate::bundle::VaeDecoderContract;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tensor::{TensorView, require_finite};

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
    /// [`Error::NonFinite`] where the pixels hold NaN or infinity, and whatever the graph fails with.
    pub fn decode(&mut self, latents: ArrayViewD<'_, f32>, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let z = latents.mapv(|v| self.scaling.undo(v));
        let rows = self.contract.batch.unwrap_or(1).max(1);
        let z = match rows {
            1 => z,
            // A graph whose batch is fixed above one is given the same picture that often.
            _ => concatenate(Axis(0), &vec![z.view(); rows]).map_err(|e| Error::input("latents", e.to_string(), ""))?,
        };
        let inputs = [(self.contract.latent.name.as_str(), TensorView::F32(z.view()))];
        let mut outputs = self.session.run(&inputs, &[&self.contract.output.name], cancel)?;
        let mut pixels = outputs.swap_remove(0);
        if rows > 1 {
            pixels.slice_axis_inplace(Axis(0), Slice::from(..1));
        }
        if let Some(values) = pixels.as_slice() {
            require_finite(values, "the decoded picture", 0, 0)?;
        }
        Ok(pixels)
    }
}
