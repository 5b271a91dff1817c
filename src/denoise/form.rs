//! The form of a graph's sample: planes, or packed into a sequence of tokens.

use std::path::Path;

use ndarray::{Array2, ArrayD, ArrayViewD, Axis, Ix4, IxDyn};

use super::packing;
use crate::bundle::{DenoiserSignature, Role};
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;

/// The form of a graph's sample, prediction and timestep. Schedulers and tasks see samples as `[n, c, h, w]`: they work
/// value by value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'c> {
    /// `[n, c, h, w]`, and the timestep of training.
    Planes,
    /// Flux: `[n, h/2 · w/2, 4 c]`, the position of each token, and the timestep as a share of training's 1000. An image that
    /// is followed is concatenated to the sample, in as many channels, and becomes as many tokens more.
    Packed {
        /// The inputs for the positions of the sample's tokens, and of the text's.
        positions: [&'c TensorInfo; 2],
        /// The channels of one image, c.
        channels: usize,
    },
}

impl<'c> Form<'c> {
    /// The form of samples of this many channels for a denoiser of this signature.
    pub fn of(signature: &'c DenoiserSignature, channels: usize) -> Self {
        match (signature.input(Role::ImagePositions), signature.input(Role::TextPositions)) {
            (Some(image), Some(text)) => {
                Self::Packed { positions: [image, text], channels: signature.in_channels.unwrap_or(channels) }
            }
            _ => Self::Planes,
        }
    }

    /// The number of images in `taken` channels, the sample among them.
    pub fn images(self, taken: usize) -> usize {
        match self {
            Self::Packed { channels, .. } if channels > 0 && taken.is_multiple_of(channels) => {
                (taken / channels).max(1)
            }
            _ => 1,
        }
    }

    /// Requires that samples of this height and width, in `taken` channels, can have this form in a graph of this signature.
    pub fn check(self, signature: &DenoiserSignature, graph: &Path, [taken, height, width]: [usize; 3]) -> Result<()> {
        let Self::Packed { .. } = self else { return Ok(()) };
        let name = &signature.sample.name;
        if !height.is_multiple_of(packing::SIDE) || !width.is_multiple_of(packing::SIDE) {
            return Err(Error::model(
                graph,
                format!("input {name} takes squares of two by two latents, and the run has {height}×{width}"),
                "choose a height and a width that are even in latents",
            ));
        }
        let tokens = self.images(taken) * (height / packing::SIDE) * (width / packing::SIDE);
        match signature.sequence_length.filter(|&fixed| fixed != tokens) {
            None => Ok(()),
            Some(fixed) => Err(Error::model(
                graph,
                format!("input {name}: the number of tokens is fixed at {fixed}, the run needs {tokens}"),
                "choose the width and height the graph was exported for, or export it with free axes",
            )),
        }
    }

    /// The timestep in the graph's unit. diffusers divides in float32.
    pub fn time(self, timestep: f64) -> f64 {
        match self {
            Self::Planes => timestep,
            Self::Packed { .. } => f64::from(timestep as f32 / 1000.0),
        }
    }

    /// Returns `[n, c, h, w]` in the form of the graph, written to `room` if that is another.
    pub fn sample<'v>(self, sample: ArrayViewD<'v, f32>, room: &'v mut Vec<f32>) -> Result<ArrayViewD<'v, f32>> {
        let (Self::Packed { .. }, Ok(planes)) = (self, sample.view().into_dimensionality::<Ix4>()) else {
            return Ok(sample);
        };
        room.resize(planes.len(), 0.0);
        let (n, taken, height, width) = planes.dim();
        let images = self.images(taken);
        packing::pack(planes, images, room);
        let tokens = images * (height / packing::SIDE) * (width / packing::SIDE);
        let shape = IxDyn(&[n, tokens, taken / images * packing::SIDE * packing::SIDE]);
        ArrayViewD::from_shape(shape, room).map_err(|e| Error::internal("latents", e.to_string()))
    }

    /// Returns the shape of the graph's output for `rows` samples of `taken` channels, of which the prediction is
    /// `[channels, height, width]`.
    pub fn output_shape(self, rows: usize, taken: usize, [channels, height, width]: [usize; 3]) -> Vec<usize> {
        match self {
            Self::Planes => vec![rows, channels, height, width],
            Self::Packed { .. } => {
                let tokens = self.images(taken) * (height / packing::SIDE) * (width / packing::SIDE);
                vec![rows, tokens, channels * packing::SIDE * packing::SIDE]
            }
        }
    }

    /// The positions of the tokens, by the name of the input: those of `[channels, height, width]`, and those of `text_tokens`
    /// tokens of text, which are zero.
    pub fn positions(
        self,
        rows: usize,
        [taken, height, width]: [usize; 3],
        text_tokens: usize,
    ) -> Vec<(&'c str, ArrayD<f32>)> {
        let Self::Packed { positions: [image, text], .. } = self else { return Vec::new() };
        [(image, packing::position_ids(self.images(taken), height, width)), (text, Array2::zeros((text_tokens, 3)))]
            .map(|(info, places)| (info.name.as_str(), with_rank_of(info, places, rows)))
            .into()
    }

    /// Has `run` write a prediction in the form of the graph, to `room` if that is another, and writes it to `out` as
    /// `[n, c, h, w]`: that of the sample, not those of the other images in `taken` channels.
    pub fn prediction(
        self,
        taken: usize,
        shape: [usize; 3],
        out: &mut [f32],
        room: &mut Vec<f32>,
        run: impl FnOnce(&mut [f32]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Planes => run(out),
            Self::Packed { .. } => {
                let images = self.images(taken);
                room.resize(images * out.len(), 0.0);
                run(room)?;
                packing::unpack(room, images, shape, out);
                Ok(())
            }
        }
    }
}

/// Returns `[tokens, 3]`, or the same for each of `rows` if the graph's input has a batch axis.
fn with_rank_of(info: &TensorInfo, places: Array2<f32>, rows: usize) -> ArrayD<f32> {
    if info.shape.len() != 3 {
        return places.into_dyn();
    }
    let rows = info.shape.first().and_then(|rows| rows.fixed()).unwrap_or(rows);
    let one = places.insert_axis(Axis(0));
    let shape = (rows, one.dim().1, one.dim().2);
    one.broadcast(shape).map_or_else(|| one.clone(), |all| all.to_owned()).into_dyn()
}
