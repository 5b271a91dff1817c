//! Tiling: processes a large image tile by tile and blends the overlaps.

use ndarray::{Array2, ArrayD, ArrayViewD, Axis, IxDyn, Slice};

use crate::error::{Error, Result};

/// Overlapping square tiles at regular distances.
///
/// Each value is the mean of the overlapping tiles' outputs, weighted by the distance to the nearest edge of each tile:
/// the scheme of the latent diffusion paper's super-resolution (arXiv 2112.10752, section 4.4, in its published
/// notebook).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// The side of a tile, in latents.
    pub size: usize,
    /// The distance between the edges of adjacent tiles, in latents, at most `size`.
    pub stride: usize,
}

impl Tiles {
    /// Tiles of a decoder, which overlap by a quarter of their side.
    pub fn of_decoder(size: usize) -> Self {
        Self { size, stride: size - size / 4 }
    }

    /// Returns true if a sample of this size needs more than one tile.
    pub fn is_split(&self, height: usize, width: usize) -> bool {
        height > self.size || width > self.size
    }

    /// Returns the height and width of the tiles of a sample.
    pub fn tile_size(&self, height: usize, width: usize) -> (usize, usize) {
        (self.size.min(height), self.size.min(width))
    }

    /// Returns the total area of all tiles of a sample, in latents, overlaps counted repeatedly.
    pub fn area(&self, height: usize, width: usize) -> usize {
        let (tile_height, tile_width) = self.tile_size(height, width);
        self.offsets(height).len() * tile_height * self.offsets(width).len() * tile_width
    }

    /// Applies `process` to each tile of `[rows, c, h, w]` and blends the results to `[rows, c', f h, f w]`, where
    /// `process` turns `[rows, c, tile, tile]` into `[rows, c', f·tile, f·tile]`.
    ///
    /// # Errors
    /// The errors of `process`, and [`Error::Input`] if its results differ in shape.
    pub fn blend(
        &self,
        whole: ArrayViewD<'_, f32>,
        factor: usize,
        mut process: impl FnMut(ArrayD<f32>) -> Result<ArrayD<f32>>,
    ) -> Result<ArrayD<f32>> {
        let &[_, _, height, width] = whole.shape() else {
            return Err(Error::internal("tile", format!("{:?} cannot be tiled", whole.shape())));
        };
        let (tile_height, tile_width) = self.tile_size(height, width);
        let weights = weights(tile_height * factor, tile_width * factor);
        let mut total = ArrayD::zeros(IxDyn(&[]));
        let mut weight = Array2::<f32>::zeros((height * factor, width * factor));
        for y in self.offsets(height) {
            for x in self.offsets(width) {
                let mut tile = whole.view();
                tile.slice_axis_inplace(Axis(2), Slice::from(y..y + tile_height));
                tile.slice_axis_inplace(Axis(3), Slice::from(x..x + tile_width));
                let output = process(tile.as_standard_layout().into_owned())?;
                if total.ndim() == 0 {
                    let [rows, channels] = [0, 1].map(|axis| output.shape().get(axis).copied().unwrap_or(0));
                    total = ArrayD::zeros(IxDyn(&[rows, channels, height * factor, width * factor]));
                }
                let part = |axis: usize| match axis {
                    0 => Slice::from(y * factor..(y + tile_height) * factor),
                    _ => Slice::from(x * factor..(x + tile_width) * factor),
                };
                let mut place = total.view_mut();
                place.slice_axis_inplace(Axis(2), part(0));
                place.slice_axis_inplace(Axis(3), part(1));
                if place.shape() != output.shape() {
                    let problem = format!("expected a tile of shape {1:?}, found {0:?}", output.shape(), place.shape());
                    return Err(Error::input("run.tile", problem, "this model does not support tiles: remove the key"));
                }
                place.zip_mut_with(&(&output * &weights), |sum, v| *sum += v);
                let mut place = weight.view_mut().into_dyn();
                place.slice_axis_inplace(Axis(0), part(0));
                place.slice_axis_inplace(Axis(1), part(1));
                place += &weights;
            }
        }
        Ok(total / &weight)
    }

    /// Returns the offsets of the tiles along a side; the last tile ends at the side's end.
    fn offsets(&self, length: usize) -> Vec<usize> {
        let last = length.saturating_sub(self.size);
        let mut offsets: Vec<usize> = (0..=last).step_by(self.stride.max(1)).collect();
        if offsets.last() != Some(&last) {
            offsets.push(last);
        }
        offsets
    }
}

/// Returns the weight of each value, its distance to the nearest edge as a fraction of the side, in [0.01, 0.5].
fn weights(height: usize, width: usize) -> Array2<f32> {
    let inwards = |i: usize, length: usize| {
        let along = i as f32 / length.saturating_sub(1).max(1) as f32;
        along.min(1.0 - along)
    };
    Array2::from_shape_fn((height, width), |(y, x)| inwards(y, height).min(inwards(x, width)).clamp(0.01, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_tiles_blend_to_the_original() {
        let whole = ArrayD::from_shape_fn(IxDyn(&[2, 3, 13, 7]), |at| (at[1] * 100 + at[2] * 10 + at[3]) as f32);
        let joined = Tiles { size: 4, stride: 3 }.blend(whole.view(), 1, Ok).unwrap();
        assert!(joined.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn the_last_tile_reaches_the_edge() {
        let tiles = Tiles { size: 4, stride: 3 };
        assert_eq!(tiles.offsets(13), [0, 3, 6, 9]);
        assert_eq!(tiles.offsets(12), [0, 3, 6, 8]);
        assert_eq!(tiles.offsets(3), [0]);
    }
}
