//! Normalizations: by groups of an image's channels, and by rows.

use super::functions::{Activation, activate};
use super::instruction_set::{InstructionSet, Work, vectorized};
use super::lane::Lane;
use super::number::Number;
use super::threads::{Parts, Threads};

/// Pixels whose sums are float32. Each such strip has a mean and a variance of its own, which are joined in float64, in
/// their order.
const STRIP: usize = 64;

/// Group normalization of images `[batch, height, width, channels]`, of which the channels may come from two images side
/// by side.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// One or two images with their channels. The second may be empty.
    pub images: [(&'a [f32], usize); 2],
    /// The batch size.
    pub batch: usize,
    /// The height in pixels.
    pub height: usize,
    /// The width in pixels.
    pub width: usize,
    /// The number of groups that the channels are divided into.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// A factor for each channel.
    pub scale: &'a [f32],
    /// A number added to each channel.
    pub shift: &'a [f32],
    /// The activation of the result.
    pub activation: Activation,
    /// True if the result has a border of one pixel of zeros.
    pub has_border: bool,
}

impl GroupNorm<'_> {
    fn channels(&self) -> usize {
        self.images[0].1 + self.images[1].1
    }

    /// Computes it into `out`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        let channels = self.channels();
        let pixels = self.height * self.width;
        let strips = pixels.div_ceil(STRIP);
        let mut found = vec![0.0f64; self.batch * strips * 2 * channels];
        let parts = Parts::new(&mut found);
        threads.each(self.batch * strips, &|strip| {
            // SAFETY: each strip has its own part.
            let found = unsafe { parts.range(strip * 2 * channels, 2 * channels) };
            vectorized(set, Sums { norm: self, image: strip / strips, from: strip % strips * STRIP, found });
        });
        let affine: Vec<(Vec<f32>, Vec<f32>)> =
            found.chunks_exact((strips * 2 * channels).max(1)).map(|found| self.affine(found, pixels)).collect();
        let out = Parts::new(out);
        threads.each(self.batch * self.height, &|line| {
            let affine = &affine[line / self.height];
            vectorized(set, Line { norm: self, line, affine, out: &out });
        });
    }

    /// Joins the sums of the strips and returns the factor and the offset of each channel.
    fn affine(&self, found: &[f64], pixels: usize) -> (Vec<f32>, Vec<f32>) {
        let channels = self.channels();
        let per_group = channels / self.groups;
        let (mut factors, mut offsets) = (vec![0.0; channels], vec![0.0; channels]);
        for group in 0..self.groups {
            let of = group * per_group..(group + 1) * per_group;
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for (strip, found) in found.chunks_exact(2 * channels).enumerate() {
                let here = STRIP.min(pixels - strip * STRIP) as f64;
                for channel in of.clone() {
                    // Chan, Golub and LeVeque 1979.
                    let (its_mean, its_squares) = (found[channel], found[channels + channel]);
                    let (delta, all) = (its_mean - mean, count + here);
                    mean += delta * here / all;
                    squares += its_squares + delta * delta * count * here / all;
                    count = all;
                }
            }
            let inverse = 1.0 / (squares / count + f64::from(self.epsilon)).sqrt();
            for channel in of {
                let factor = f64::from(self.scale[channel]) * inverse;
                factors[channel] = factor as f32;
                offsets[channel] = (f64::from(self.shift[channel]) - mean * factor) as f32;
            }
        }
        (factors, offsets)
    }
}

/// The mean of each channel of a strip, and the sum of squared differences from it.
struct Sums<'t, 'a> {
    norm: &'t GroupNorm<'a>,
    image: usize,
    from: usize,
    found: &'t mut [f64],
}

impl Work for Sums<'_, '_> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { norm, image, from, found } = self;
        let pixels = norm.height * norm.width;
        let count = STRIP.min(pixels - from);
        let (means, squares) = found.split_at_mut(norm.channels());
        let mut at = 0;
        for (values, channels) in norm.images.into_iter().filter(|(_, channels)| *channels > 0) {
            let strip = &values[(image * pixels + from) * channels..][..count * channels];
            let mut sums = vec![0.0f32; channels];
            for pixel in strip.chunks_exact(channels) {
                sums.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x);
            }
            let inverse = 1.0 / count as f32;
            sums.iter_mut().for_each(|sum| *sum *= inverse);
            let mut differences = vec![0.0f32; channels];
            for pixel in strip.chunks_exact(channels) {
                for ((sum, x), mean) in differences.iter_mut().zip(pixel).zip(&sums) {
                    *sum = (x - mean).mul_add(x - mean, *sum);
                }
            }
            for channel in 0..channels {
                means[at + channel] = f64::from(sums[channel]);
                squares[at + channel] = f64::from(differences[channel]);
            }
            at += channels;
        }
    }
}

/// A line of the result.
struct Line<'t, 'a, O> {
    norm: &'t GroupNorm<'a>,
    line: usize,
    affine: &'t (Vec<f32>, Vec<f32>),
    out: &'t Parts<'t, O>,
}

impl<O: Number> Work for Line<'_, '_, O> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { norm, line, affine: (factors, offsets), out } = self;
        let (height, width, all) = (norm.height, norm.width, norm.channels());
        let border = usize::from(norm.has_border);
        let (image, y) = (line / height, line % height);
        let out_width = width + 2 * border;
        let out_line = (image * (height + 2 * border) + y + border) * out_width;
        // SAFETY: this line, and the border above or below it, is this task's.
        let whole = unsafe {
            if norm.has_border && y == 0 {
                out.range((out_line - out_width) * all, out_width * all).fill(O::default());
            }
            if norm.has_border && y + 1 == height {
                out.range((out_line + out_width) * all, out_width * all).fill(O::default());
            }
            out.range(out_line * all, out_width * all)
        };
        whole[..border * all].fill(O::default());
        whole[(width + border) * all..].fill(O::default());
        let mut row = vec![0.0f32; all];
        for x in 0..width {
            let pixel = line * width + x;
            let mut at = 0;
            for (values, channels) in norm.images {
                row[at..at + channels].copy_from_slice(&values[pixel * channels..][..channels]);
                at += channels;
            }
            for ((x, factor), offset) in row.iter_mut().zip(factors).zip(offsets) {
                *x = x.mul_add(*factor, *offset);
            }
            activate(norm.activation, &mut row);
            let to = &mut whole[(x + border) * all..][..all];
            to.iter_mut().zip(&row).for_each(|(to, x)| *to = O::from_f32(*x));
        }
    }
}

/// Normalization of the rows of a matrix: `(x - mean) / sqrt(variance + epsilon) · scale + shift`, or without the mean
/// (RMS). Scale and shift may differ from image to image, as adaptive normalization has them.
#[derive(Debug, Clone, Copy)]
pub struct RowNorm<'a> {
    /// The matrix.
    pub rows: &'a [f32],
    /// Its width.
    pub width: usize,
    /// The rows that belong to one image.
    pub rows_per_image: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// True if the mean is subtracted.
    pub centers: bool,
    /// Factors: one row, or one for each image.
    pub scale: Option<&'a [f32]>,
    /// Offsets: one row, or one for each image.
    pub shift: Option<&'a [f32]>,
    /// True if 1 is added to the factors.
    pub adds_one: bool,
}

impl RowNorm<'_> {
    /// Computes it into `out`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        const AT_ONCE: usize = 16;
        assert_eq!(self.rows.len(), out.len());
        let count = self.rows.len() / self.width.max(1);
        let out = Parts::new(out);
        threads.each(count.div_ceil(AT_ONCE), &|task| {
            let first = task * AT_ONCE;
            let rows = first..count.min(first + AT_ONCE);
            // SAFETY: these rows are this task's.
            let out = unsafe { out.range(first * self.width, rows.len() * self.width) };
            vectorized(set, NormRows { norm: self, first, out });
        });
    }
}

struct NormRows<'t, 'a, O> {
    norm: &'t RowNorm<'a>,
    first: usize,
    out: &'t mut [O],
}

impl<O: Number> Work for NormRows<'_, '_, O> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { norm, first, out } = self;
        let width = norm.width;
        for (number, out) in out.chunks_exact_mut(width).enumerate() {
            let row = &norm.rows[(first + number) * width..][..width];
            let image = (first + number) / norm.rows_per_image;
            let mean = if norm.centers { sum(row, |x| x) / width as f32 } else { 0.0 };
            let variance = sum(row, |x| (x - mean) * (x - mean)) / width as f32;
            let inverse = 1.0 / (variance + norm.epsilon).sqrt();
            let one = if norm.adds_one { 1.0 } else { 0.0 };
            const PIECE: usize = 64;
            let (mut scale, mut shift) = ([0.0; PIECE], [0.0; PIECE]);
            for at in (0..width).step_by(PIECE) {
                let here = PIECE.min(width - at);
                let part = |values: Option<&[f32]>, to: &mut [f32; PIECE], otherwise: f32| match values {
                    Some(values) => {
                        let start = if values.len() == width { at } else { image * width + at };
                        to[..here].copy_from_slice(&values[start..start + here]);
                    }
                    None => to.fill(otherwise),
                };
                part(norm.scale, &mut scale, 1.0 - one);
                part(norm.shift, &mut shift, 0.0);
                let values = row[at..at + here].iter().zip(&scale).zip(&shift);
                for (out, ((x, scale), shift)) in out[at..at + here].iter_mut().zip(values) {
                    *out = O::from_f32(((x - mean) * inverse).mul_add(scale + one, *shift));
                }
            }
        }
    }
}

/// The sum of a function of the values, in 16 lanes.
#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += of(*x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += of(*x));
    lanes.iter().sum()
}
