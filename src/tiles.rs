//! Images too large for one piece: worked on tile by tile, and blended where tiles overlap.

use ndarray::{Array2, ArrayD, ArrayViewD, Axis, IxDyn, Slice};

use crate::error::{Error, Result};

/// Square tiles at regular distances.
///
/// Each value is the mean of what the tiles over it make of it, weighted by how far it lies from the nearest edge of each:
/// the scheme of the latent diffusion paper's super-resolution (arXiv 2112.10752, section 4.4, in its published notebook).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// The length of a side, in latents.
    pub size: usize,
    /// From one tile's edge to the next one's, in latents: at most the size.
    pub stride: usize,
}

impl Tiles {
    /// Whether a sample of this height and width is more than one tile.
    pub fn split(&self, height: usize, width: usize) -> bool {
        height > self.size || width > self.size
    }

    /// The height and width of the tiles of a sample.
    pub fn of(&self, height: usize, width: usize) -> (usize, usize) {
        (self.size.min(height), self.size.min(width))
    }

    /// What all tiles of a sample measure together, in latents: as much as the sample itself, or more where they overlap.
    pub fn area(&self, height: usize, width: usize) -> usize {
        let (tile_height, tile_width) = self.of(height, width);
        self.places(height).len() * tile_height * self.places(width).len() * tile_width
    }

    /// Runs `make` on each tile of `[rows, c, h, w]` and joins what comes of them: `[rows, c', f h, f w]`, where `make`
    /// makes `[rows, c', f·tile, f·tile]` of a tile.
    ///
    /// # Errors
    /// Whatever `make` fails with, and [`Error::Input`] where it makes tiles of differing shapes.
    pub fn blend(
        &self,
        whole: ArrayViewD<'_, f32>,
        factor: usize,
        mut make: impl FnMut(ArrayD<f32>) -> Result<ArrayD<f32>>,
    ) -> Result<ArrayD<f32>> {
        let &[_, _, height, width] = whole.shape() else {
            return Err(Error::internal("tile", format!("{:?} cannot be tiled", whole.shape())));
        };
        let (tile_height, tile_width) = self.of(height, width);
        let weights = weights(tile_height * factor, tile_width * factor);
        let mut total = ArrayD::zeros(IxDyn(&[]));
        let mut weight = Array2::<f32>::zeros((height * factor, width * factor));
        for y in self.places(height) {
            for x in self.places(width) {
                let mut tile = whole.view();
                tile.slice_axis_inplace(Axis(2), Slice::from(y..y + tile_height));
                tile.slice_axis_inplace(Axis(3), Slice::from(x..x + tile_width));
                let made = make(tile.as_standard_layout().into_owned())?;
                if total.ndim() == 0 {
                    let [rows, channels] = [0, 1].map(|axis| made.shape().get(axis).copied().unwrap_or(0));
                    total = ArrayD::zeros(IxDyn(&[rows, channels, height * factor, width * factor]));
                }
                let part = |axis: usize| match axis {
                    0 => Slice::from(y * factor..(y + tile_height) * factor),
                    _ => Slice::from(x * factor..(x + tile_width) * factor),
                };
                let mut place = total.view_mut();
                place.slice_axis_inplace(Axis(2), part(0));
                place.slice_axis_inplace(Axis(3), part(1));
                if place.shape() != made.shape() {
                    let problem = format!("a tile became {:?} and not {:?}", made.shape(), place.shape());
                    return Err(Error::input(
                        "run.tile",
                        problem,
                        "this model cannot be run in tiles: leave the key out",
                    ));
                }
                place.zip_mut_with(&(&made * &weights), |sum, v| *sum += v);
                let mut place = weight.view_mut().into_dyn();
                place.slice_axis_inplace(Axis(0), part(0));
                place.slice_axis_inplace(Axis(1), part(1));
                place += &weights;
            }
        }
        Ok(total / &weight)
    }

    /// Where tiles begin along a side, the last one flush with its end.
    fn places(&self, length: usize) -> Vec<usize> {
        let last = length.saturating_sub(self.size);
        let mut places: Vec<usize> = (0..=last).step_by(self.stride.max(1)).collect();
        if places.last() != Some(&last) {
            places.push(last);
        }
        places
    }
}

/// Each place's distance to the nearest edge as a share of the side, in [0.01, 0.5].
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
    fn what_every_tile_leaves_as_it_is_stays_as_it_is() {
        let whole = ArrayD::from_shape_fn(IxDyn(&[2, 3, 13, 7]), |at| (at[1] * 100 + at[2] * 10 + at[3]) as f32);
        let joined = Tiles { size: 4, stride: 3 }.blend(whole.view(), 1, Ok).unwrap();
        assert!(joined.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn the_last_tile_reaches_the_edge() {
        let tiles = Tiles { size: 4, stride: 3 };
        assert_eq!(tiles.places(13), [0, 3, 6, 9]);
        assert_eq!(tiles.places(12), [0, 3, 6, 8]);
        assert_eq!(tiles.places(3), [0]);
    }
}
