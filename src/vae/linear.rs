//! Computes colors directly from latents: one weighted sum per color, at the latents' own resolution.

use std::ops::Range;

use ndarray::{Array2, ArrayD, ArrayViewD, Axis, IxDyn, Slice};

use super::{Scaling, VaeDecoder};
use crate::error::{Error, Result};
use crate::family::Family;
use crate::session::Cancel;

/// An affine map from the channels of the diffusion's latents to red, green and blue in about [-1, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct LinearColors {
    /// One row per channel.
    factors: Vec<[f32; 3]>,
    bias: [f32; 3],
}

impl LinearColors {
    /// Returns the published map of the VAE with these channels, this scaling and f pixels per latent along each side,
    /// if any.
    pub fn published(channels: usize, scaling: Scaling, factor: usize) -> Option<Self> {
        Family::all().filter_map(|family| family.row().preview.as_ref()).find_map(|map| {
            let of = Scaling { factor: map.vae.scaling_factor, shift: map.vae.shift_factor };
            let is_it = of == scaling && map.factors.len() == channels && map.vae.spatial_factor == factor;
            is_it.then(|| Self { factors: map.factors.to_vec(), bias: map.bias })
        })
    }

    /// Fits the map to a decoder's output for flat patches of random latents, by least squares. `channels` is the
    /// number of its latent channels, `height` and `width` are the size of the latents that it receives, `factor` is f.
    ///
    /// The patches are flat because a decoder turns noise into texture, whose mean color says little about uniform
    /// latents.
    ///
    /// # Errors
    /// All errors of the decoder.
    pub fn fit(
        decoder: &mut VaeDecoder,
        channels: usize,
        [height, width]: [usize; 2],
        factor: usize,
        cancel: &Cancel,
    ) -> Result<Self> {
        /// The side of a patch in latents: wide enough for its middle to be independent of its neighbors.
        const PATCH: usize = 8;
        let (rows, columns) = ((height / PATCH).max(1), (width / PATCH).max(1));
        let wanted = 4 * (channels + 1);
        let mut normal = crate::rng::Stream::default().seeded(0);
        let mut inputs = Vec::new();
        let mut seen = Vec::new();
        while seen.len() < wanted {
            let mut drawn = vec![0.0; rows * columns * channels];
            normal.normal(&mut drawn);
            let patch = |y: usize, x: usize| (y * rows / height) * columns + x * columns / width;
            let latents = ArrayD::from_shape_fn(IxDyn(&[1, channels, height, width]), |at| {
                drawn[patch(at[2], at[3]) * channels + at[1]]
            });
            let pixels = decoder.decode(latents.view(), cancel)?;
            for row in 0..rows {
                for column in 0..columns {
                    let middle = |at: usize, of: usize, length: usize| {
                        let (from, to) = (at * length * factor / of, (at + 1) * length * factor / of);
                        let quarter = (to - from) / 4;
                        from + quarter..(to - quarter).max(from + quarter + 1)
                    };
                    let (ys, xs) = (middle(row, rows, height), middle(column, columns, width));
                    seen.push(mean_color(pixels.view(), ys, xs)?);
                    inputs.push(drawn[(row * columns + column) * channels..][..channels].to_vec());
                }
            }
        }
        least_squares(&inputs, &seen)
    }

    /// Converts latents `[1, c, h, w]` to colors `[1, 3, h, w]`.
    ///
    /// # Errors
    /// [`Error::Input`] for another number of channels.
    pub fn colors(&self, latents: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        let &[1, channels, height, width] = latents.shape() else {
            return Err(other_latents(latents.shape(), self.factors.len()));
        };
        if channels != self.factors.len() {
            return Err(other_latents(latents.shape(), self.factors.len()));
        }
        let mut colors = ArrayD::zeros(IxDyn(&[1, 3, height, width]));
        for (color, mut plane) in colors.index_axis_mut(Axis(0), 0).outer_iter_mut().enumerate() {
            plane.fill(self.bias[color]);
            for (factors, channel) in self.factors.iter().zip(latents.index_axis(Axis(0), 0).outer_iter()) {
                plane.scaled_add(factors[color], &channel);
            }
        }
        Ok(colors)
    }
}

fn other_latents(shape: &[usize], channels: usize) -> Error {
    Error::internal("preview", format!("expected latents [1, {channels}, h, w], found {shape:?}"))
}

/// Returns the mean color of a part of `[1, 3, h, w]`; a decoder with one channel gives grays.
fn mean_color(pixels: ArrayViewD<'_, f32>, ys: Range<usize>, xs: Range<usize>) -> Result<[f32; 3]> {
    let fits = matches!(pixels.shape(), &[1, 1 | 3, height, width] if ys.end <= height && xs.end <= width);
    if !fits {
        let problem = format!("the decoder's output has shape {:?}", pixels.shape());
        return Err(Error::input("preview", problem, "leave out --preview"));
    }
    let part = pixels.slice_axis(Axis(2), Slice::from(ys)).slice_axis_move(Axis(3), Slice::from(xs));
    let mean = |color: usize| part.index_axis(Axis(1), color % part.shape()[1]).mean().unwrap_or_default();
    Ok([mean(0), mean(1), mean(2)])
}

/// Returns the map that minimizes the squared distance to `seen`, by the normal equations; the last unknown is the
/// bias.
fn least_squares(inputs: &[Vec<f32>], seen: &[[f32; 3]]) -> Result<LinearColors> {
    let unknowns = inputs.first().map_or(0, Vec::len) + 1;
    let mut equations = Array2::<f64>::zeros((unknowns, unknowns + 3));
    for (latent, color) in inputs.iter().zip(seen) {
        let row: Vec<f64> = latent.iter().map(|&v| f64::from(v)).chain([1.0]).collect();
        for (i, a) in row.iter().enumerate() {
            let right = color.iter().map(|&v| f64::from(v));
            for (j, b) in row.iter().copied().chain(right).enumerate() {
                equations[[i, j]] += a * b;
            }
        }
    }
    // Gauss-Jordan elimination; this kind of matrix needs no pivoting.
    for pivot in 0..unknowns {
        let own = equations.row(pivot).mapv(|v| v / equations[[pivot, pivot]]);
        for (i, mut row) in equations.outer_iter_mut().enumerate() {
            if i == pivot {
                row.assign(&own);
            } else {
                let factor = row[pivot];
                row.scaled_add(-factor, &own);
            }
        }
    }
    let color = |i: usize| std::array::from_fn(|c| equations[[i, unknowns + c]] as f32);
    let colors = LinearColors { factors: (0..unknowns - 1).map(color).collect(), bias: color(unknowns - 1) };
    if colors.factors.iter().chain([&colors.bias]).flatten().any(|v| !v.is_finite()) {
        return Err(Error::input("preview", "no linear map fits the decoder", "leave out --preview"));
    }
    Ok(colors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_affine_map_is_found_again() {
        let inputs: Vec<Vec<f32>> =
            (0..9_i16).map(|i| vec![f32::from(i), f32::from(i * i % 7), f32::from(i % 3)]).collect();
        let colors = LinearColors {
            factors: vec![[0.5, -0.25, 0.125], [0.0, 1.0, -2.0], [3.0, 0.25, 0.0]],
            bias: [0.1, -0.2, 0.3],
        };
        let seen: Vec<[f32; 3]> = inputs
            .iter()
            .map(|row| {
                let latents = ArrayD::from_shape_fn(IxDyn(&[1, 3, 1, 1]), |at| row[at[1]]);
                let color = colors.colors(latents.view()).unwrap();
                std::array::from_fn(|c| color[[0, c, 0, 0]])
            })
            .collect();
        let found = least_squares(&inputs, &seen).unwrap();
        let all = |map: &LinearColors| map.factors.iter().chain([&map.bias]).flatten().copied().collect::<Vec<_>>();
        assert!(all(&found).iter().zip(all(&colors)).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        assert!(least_squares(&inputs[..2], &seen[..2]).is_err(), "two colors do not determine four unknowns");
    }

    #[test]
    fn published_maps_are_told_by_their_first_stage() {
        let of = |channels, factor, shift, side| {
            LinearColors::published(channels, Scaling { factor, shift }, side).map(|map| map.bias)
        };
        assert_eq!(of(4, 0.18215, 0.0, 8), Some([0.0; 3]));
        assert_eq!(of(4, 0.13025, 0.0, 8), Some([0.1084, -0.0175, -0.0011]));
        assert_eq!(of(16, 1.5305, 0.0609, 8), Some([0.2394, 0.2135, 0.1925]));
        assert_eq!(of(16, 0.3611, 0.1159, 8), Some([-0.0329, -0.0718, -0.0851]));
        assert_eq!(of(4, 0.18215, 0.0, 4), None);
        assert_eq!(of(16, 0.3611, 0.0, 8), None);
    }

    #[test]
    fn latents_of_other_channels_are_refused() {
        let map = LinearColors { factors: vec![[1.0; 3]; 4], bias: [0.0; 3] };
        for shape in [&[1, 3, 2, 2][..], &[2, 4, 2, 2], &[4, 2, 2]] {
            assert!(map.colors(ArrayD::zeros(shape).view()).is_err());
        }
    }
}
