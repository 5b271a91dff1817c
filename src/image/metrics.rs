//! Image metrics: PSNR and SSIM.

use super::Rgb8;

/// Computes the peak signal-to-noise ratio of two images in dB, over all values of all channels; infinite for equal
/// images. `None` if their sizes differ.
pub fn psnr(one: &Rgb8, other: &Rgb8) -> Option<f64> {
    if (one.width, one.height) != (other.width, other.height) {
        return None;
    }
    let squares = one.data.iter().zip(&other.data).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / one.data.len() as f64;
    Some(10.0 * (255.0 * 255.0 / mean).log10())
}

/// The side of the window.
const WINDOW: usize = 11;

/// The standard deviation of the window's Gaussian.
const SIGMA: f64 = 1.5;

/// Computes the structural similarity (SSIM) of two images, in [-1, 1] (Wang et al. 2004, "Image Quality Assessment:
/// From Error Visibility to Structural Similarity", equation 13 and section III.C): windows of 11×11 pixels weighted by
/// a Gaussian with a standard deviation of 1.5, K₁ = 0.01, K₂ = 0.03, averaged over all windows within the image and
/// over the three channels. `None` if the sizes differ or are smaller than a window.
///
/// Results equal scikit-image's `structural_similarity(…, gaussian_weights=True, use_sample_covariance=False,
/// channel_axis=2)`.
pub fn ssim(one: &Rgb8, other: &Rgb8) -> Option<f64> {
    let (width, height) = (one.width, one.height);
    if (width, height) != (other.width, other.height) || width < WINDOW || height < WINDOW {
        return None;
    }
    let channels = (0..3).map(|channel| {
        let plane = |image: &Rgb8| image.pixels().iter().map(|p| f64::from(p[channel])).collect::<Vec<_>>();
        plane_ssim(&plane(one), &plane(other), width)
    });
    Some(channels.sum::<f64>() / 3.0)
}

/// Computes the structural similarity of two planes with rows of `width` values in [0, 255].
fn plane_ssim(x: &[f64], y: &[f64], width: usize) -> f64 {
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let mean = |f: &dyn Fn(f64, f64) -> f64| {
        let values: Vec<f64> = x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect();
        gaussian_means(&values, width)
    };
    let (mean_x, mean_y) = (mean(&|x, _| x), mean(&|_, y| y));
    let (mean_xx, mean_yy, mean_xy) = (mean(&|x, _| x * x), mean(&|_, y| y * y), mean(&|x, y| x * y));
    let mut sum = 0.0;
    for ((((mx, my), xx), yy), xy) in mean_x.iter().zip(&mean_y).zip(&mean_xx).zip(&mean_yy).zip(&mean_xy) {
        let (vx, vy, covariance) = (xx - mx * mx, yy - my * my, xy - mx * my);
        let similar = (2.0 * mx * my + C1) * (2.0 * covariance + C2);
        sum += similar / ((mx * mx + my * my + C1) * (vx + vy + C2));
    }
    sum / mean_x.len() as f64
}

/// Returns the Gaussian mean of each window within a plane with rows of `width` values: first along the rows, then
/// along the columns.
fn gaussian_means(plane: &[f64], width: usize) -> Vec<f64> {
    let middle = (WINDOW / 2) as f64;
    let weights: [f64; WINDOW] = std::array::from_fn(|i| (-(i as f64 - middle).powi(2) / (2.0 * SIGMA * SIGMA)).exp());
    let total: f64 = weights.iter().sum();
    let weights = weights.map(|weight| weight / total);
    let weighted = |values: &mut dyn Iterator<Item = f64>| values.zip(weights).map(|(v, w)| v * w).sum::<f64>();
    let across: Vec<f64> = plane
        .chunks(width)
        .flat_map(|row| row.windows(WINDOW).map(|window| weighted(&mut window.iter().copied())))
        .collect();
    let output_width = width - WINDOW + 1;
    let rows = across.len() / output_width;
    let down = (0..=rows - WINDOW).flat_map(|row| {
        let across = &across;
        (0..output_width).map(move |column| (0..WINDOW).map(move |i| across[(row + i) * output_width + column]))
    });
    down.map(|mut window| weighted(&mut window)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: usize, height: usize, value: impl Fn(usize) -> u8) -> Rgb8 {
        Rgb8::new(width, height, (0..width * height * 3).map(value).collect()).unwrap()
    }

    #[test]
    fn an_image_equals_itself() {
        let one = image(16, 12, |i| (i * 7 % 251) as u8);
        assert_eq!(psnr(&one, &one), Some(f64::INFINITY));
        assert!((ssim(&one, &one).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_difference_of_one_level_is_48_decibels() {
        let (one, other) = (image(16, 12, |_| 100), image(16, 12, |_| 101));
        assert!((psnr(&one, &other).unwrap() - 48.1308).abs() < 1e-4);
    }

    #[test]
    fn incomparable_images_have_no_metric() {
        let (small, other) = (image(10, 20, |_| 0), image(20, 10, |_| 0));
        assert_eq!(psnr(&small, &other), None);
        assert_eq!(ssim(&small, &small), None);
        assert_eq!(ssim(&small, &other), None);
    }
}
