//! Conversion between pixels and tensors, in the arithmetic of diffusers' `VaeImageProcessor`.

use ndarray::{Array4, ArrayViewD, Axis};

use super::Rgb8;
use crate::error::{Error, Result};

/// Converts pixels in [0, 255] to `[1, 3, h, w]` float32 in [-1, 1]: `2 (v / 255) − 1`.
pub fn to_tensor(image: &Rgb8) -> Array4<f32> {
    map_pixels(image, |v| 2.0 * (v / 255.0) - 1.0)
}

/// Converts pixels in [0, 255] to `[1, 3, h, w]` float32 in [0, 1]: `v / 255`.
pub fn to_unit_tensor(image: &Rgb8) -> Array4<f32> {
    map_pixels(image, |v| v / 255.0)
}

fn map_pixels(image: &Rgb8, value: impl Fn(f32) -> f32) -> Array4<f32> {
    let values: [f32; 256] = std::array::from_fn(|v| value(v as f32));
    let mut tensor = Array4::zeros((1, 3, image.height, image.width));
    for (c, mut plane) in tensor.index_axis_mut(Axis(0), 0).outer_iter_mut().enumerate() {
        for (value, pixel) in plane.iter_mut().zip(image.pixels()) {
            *value = values[usize::from(pixel[c])];
        }
    }
    tensor
}

/// Returns the luma of each pixel in [0, 255], rows from the top, as in Pillow's conversion to `L`: ITU-R 601-2.
pub fn luma(image: &Rgb8) -> Vec<u8> {
    let weighted = |&[r, g, b]: &[u8; 3]| u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471;
    image.pixels().iter().map(|pixel| ((weighted(pixel) + 0x8000) >> 16) as u8).collect()
}

/// Converts `[1, 3, h, w]` or `[3, h, w]` float32 in about [-1, 1] to pixels: `255 clamp(v / 2 + 1/2, 0, 1)`, rounded
/// half to even. One channel becomes three equal channels. NaN becomes 0.
///
/// # Errors
///
/// [`Error::Input`] for another number of channels or images, or for no pixels.
pub fn from_tensor(pixels: ArrayViewD<'_, f32>) -> Result<Rgb8> {
    let shape = pixels.shape().to_vec();
    let fail = || {
        let problem = format!("expected a decoded tensor of shape [1, 3, height, width], found {shape:?}");
        Error::input("image", problem, "check the vae_decoder of the model directory")
    };
    let image = match shape.as_slice() {
        [1, _, _, _] => pixels.index_axis_move(Axis(0), 0),
        _ => pixels,
    };
    let &[channels @ (1 | 3), height, width] = image.shape() else { return Err(fail()) };
    let mut data = vec![0_u8; 3 * height * width];
    for c in 0..3 {
        let plane = image.index_axis(Axis(0), c % channels);
        for (pixel, &v) in data.as_chunks_mut::<3>().0.iter_mut().zip(&plane) {
            pixel[c] = ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        }
    }
    Rgb8::new(width, height, data).ok_or_else(fail)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::{InputLimit, load};
    use super::*;
    use crate::npy::read_f32;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/image").join(name)
    }

    #[test]
    fn pixels_become_the_tensor_that_diffusers_makes() {
        let image = load(&golden("levels.png"), InputLimit::default()).unwrap();
        assert_eq!(to_tensor(&image).into_dyn(), read_f32(golden("levels.npy")).unwrap());
    }

    #[test]
    fn a_tensor_becomes_the_pixels_that_diffusers_makes() {
        let tensor = read_f32(golden("decoded.npy")).unwrap();
        assert_eq!(from_tensor(tensor.view()).unwrap(), load(&golden("decoded.png"), InputLimit::default()).unwrap());
        let three = tensor.index_axis(Axis(0), 0);
        assert_eq!(from_tensor(three).unwrap(), load(&golden("decoded.png"), InputLimit::default()).unwrap());
    }

    #[test]
    fn every_byte_survives_a_round_trip() {
        let data: Vec<u8> = (0..=255).flat_map(|v| [v, 255 - v, v / 2]).collect();
        let image = Rgb8::new(16, 16, data).unwrap();
        assert_eq!(from_tensor(to_tensor(&image).into_dyn().view()).unwrap(), image);
    }

    #[test]
    fn one_channel_becomes_gray() {
        let gray = ndarray::arr3(&[[[-1.0_f32, 0.2], [f32::NAN, 9.0]]]).into_dyn();
        assert_eq!(from_tensor(gray.view()).unwrap().data(), [0, 0, 0, 153, 153, 153, 0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn other_shapes_are_refused() {
        for shape in [&[1, 4, 2, 2][..], &[2, 3, 2, 2], &[3, 2], &[1, 3, 0, 2]] {
            let tensor = ndarray::ArrayD::zeros(shape);
            assert!(from_tensor(tensor.view()).unwrap_err().to_string().contains(&format!("{shape:?}")));
        }
    }
}
