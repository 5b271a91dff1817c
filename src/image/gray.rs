//! Single-channel images, such as depth maps.

use std::path::Path;

use ::image::DynamicImage;
use ndarray::Array2;

use super::load::decode;
use super::{InputLimit, Rgb8, luma};
use crate::error::{Error, Result};

/// Loads an image as brightness in [0, 1], `[height, width]`. Eight-bit and sixteen-bit images are supported; colors
/// are converted to luma.
///
/// # Errors
///
/// As [`load`](fn@super::load).
pub fn load_gray(path: &Path, limit: InputLimit) -> Result<Array2<f32>> {
    let image = decode(path, limit)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let values = match image {
        DynamicImage::ImageLuma16(p) => p.iter().map(|&v| f32::from(v) / 65535.0).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().map(|p| f32::from(p.0[0]) / 65535.0).collect(),
        DynamicImage::ImageLuma8(p) => p.iter().map(|&v| f32::from(v) / 255.0).collect(),
        other => match Rgb8::new(width, height, other.into_rgb8().into_raw()) {
            Some(image) => luma(&image).iter().map(|&v| f32::from(v) / 255.0).collect(),
            None => Vec::new(),
        },
    };
    Array2::from_shape_vec((height, width), values)
        .map_err(|e| Error::input(path.display().to_string(), e.to_string(), "save the image again"))
}

/// Resizes `[h, w]` by cubic convolution without antialiasing: torch's `interpolate` with mode `bicubic` (Keys 1981,
/// with a = −3/4).
pub fn resize_bicubic(from: &Array2<f32>, height: usize, width: usize) -> Array2<f32> {
    let (from_height, from_width) = from.dim();
    let (rows, columns) = (taps(from_height, height), taps(from_width, width));
    Array2::from_shape_fn((height, width), |(y, x)| {
        let (ys, by_row) = &rows[y];
        let (xs, by_column) = &columns[x];
        let row = |y: usize| xs.iter().zip(by_column).map(|(&x, w)| from[[y, x]] * w).sum::<f32>();
        ys.iter().zip(by_row).map(|(&y, w)| row(y) * w).sum()
    })
}

/// Returns the four source indices and weights of each output index.
fn taps(from: usize, to: usize) -> Vec<([usize; 4], [f32; 4])> {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|i| {
            let position = scale * (i as f32 + 0.5) - 0.5;
            let fraction = position - position.floor();
            let index = |offset: isize| {
                let index = position.floor() as isize + offset;
                index.clamp(0, from.saturating_sub(1) as isize) as usize
            };
            let weights = [far(fraction + 1.0), near(fraction), near(1.0 - fraction), far(2.0 - fraction)];
            ([-1, 0, 1, 2].map(index), weights)
        })
        .collect()
}
