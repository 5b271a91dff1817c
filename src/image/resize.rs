//! Image resizing.

use std::f64::consts::PI;

use rayon::prelude::*;

use super::Rgb8;
use crate::error::{Error, Result};
use crate::threads::parallel;

/// Fractional bits of a weight: 32 minus the eight of a sample and two against overflow.
const PRECISION: u32 = 32 - 8 - 2;

/// The filter's radius, in pixels of the smaller of the two images.
const LOBES: f64 = 3.0;

/// Resizes an image with a Lanczos filter of three lobes, widened for downscaling.
///
/// The pixels equal those of Pillow 13's `Image.resize((width, height), LANCZOS)`: rows and columns are resized one
/// after the other, with fixed-point weights, each rounded to eight bits. Earlier versions always resize the rows
/// first; version 13 does so unless the image loses far more rows than columns. The versions differ where the first
/// pass clips to black or white. An image that already has the size is returned unchanged.
///
/// Source: `src/libImaging/Resample.c` of Pillow.
///
/// # Errors
///
/// [`Error::Input`] for a size of 0, or one whose number of values overflows.
pub fn resize(image: &Rgb8, width: usize, height: usize) -> Result<Rgb8> {
    let fail = || {
        let problem = format!("cannot be resized to {width}×{height} pixels");
        Error::input("image", problem, "choose a usual width and height")
    };
    width.checked_mul(height).and_then(|n| n.checked_mul(3)).filter(|&n| n > 0).ok_or_else(fail)?;

    let rows = |image: Rgb8| if width == image.width { image } else { resize_rows(&image, width) };
    let columns = |image: Rgb8| if height == image.height { image } else { resize_columns(&image, height) };
    let image = image.clone();
    let lost_rows = image.height.saturating_sub(height);
    let lost_columns = image.width.saturating_sub(width);
    // If no columns are lost, losing any row counts as losing far more rows.
    Ok(parallel(|| if lost_rows > 2 * lost_columns { rows(columns(image)) } else { columns(rows(image)) }))
}

fn resize_rows(image: &Rgb8, width: usize) -> Rgb8 {
    let taps = taps(image.width, width);
    let mut data = vec![0; 3 * width * image.height];
    let pixels = image.pixels();
    data.par_chunks_exact_mut(3 * width).zip(pixels.par_chunks_exact(image.width)).for_each(|(out, row)| {
        for (out, taps) in out.as_chunks_mut::<3>().0.iter_mut().zip(&taps) {
            let mut sums = [HALF; 3];
            for (pixel, &weight) in row[taps.begin..].iter().zip(&taps.weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(sample) * weight;
                }
            }
            *out = sums.map(rounded);
        }
    });
    Rgb8 { width, height: image.height, data }
}

fn resize_columns(image: &Rgb8, height: usize) -> Rgb8 {
    let taps = taps(image.height, height);
    let stride = 3 * image.width;
    let mut data = vec![0; stride * height];
    data.par_chunks_exact_mut(stride).zip(&taps).for_each(|(out, taps)| {
        let mut sums = vec![HALF; stride];
        for (row, &weight) in image.data[taps.begin * stride..].chunks_exact(stride).zip(&taps.weights) {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = rounded(sum);
        }
    });
    Rgb8 { width: image.width, height, data }
}

/// One half, in the fixed point of the sums.
const HALF: i32 = 1 << (PRECISION - 1);

fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The source samples of one output sample, and their weights.
struct Taps {
    /// The index of the first source sample.
    begin: usize,
    /// The fixed-point weights, which sum to one.
    weights: Vec<i32>,
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let reach = LOBES * widening;
    let taps = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let begin = (center - reach + 0.5).max(0.0) as usize;
        let end = ((center + reach + 0.5) as usize).min(from);
        let weights: Vec<f64> = (begin..end).map(|x| lanczos((x as f64 - center + 0.5) * (1.0 / widening))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1 << PRECISION)).round() as i32;
        Taps { begin, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(taps).collect()
}

fn lanczos(x: f64) -> f64 {
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{InputLimit, load};
    use super::*;

    #[test]
    fn gives_the_pixels_that_pillow_gives() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/image");
        let source = load(&dir.join("resize/source.png"), InputLimit::default()).unwrap();
        let mut sizes = 0;
        for entry in std::fs::read_dir(dir.join("resize")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_stem().unwrap() == "source" {
                continue;
            }
            let want = load(&path, InputLimit::default()).unwrap();
            assert_eq!(resize(&source, want.width(), want.height()).unwrap(), want, "{}", path.display());
            sizes += 1;
        }
        assert!(sizes > 6, "{sizes} sizes");
    }

    #[test]
    fn the_same_size_changes_nothing_and_none_is_refused() {
        let image = Rgb8::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(resize(&image, 2, 1).unwrap(), image);
        for (width, height) in [(0, 1), (1, 0), (usize::MAX, 2)] {
            assert!(matches!(resize(&image, width, height), Err(Error::Input { .. })));
        }
    }
}
