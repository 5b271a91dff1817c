//! Normalization by groups of an image's channels.

use std::ops::Range;

use super::functions::Activation;
use super::instruction_set::{InstructionSet, Work, vectorized};
use super::lane::Lane;
use super::number::Number;
use super::threads::{Parts, Threads};
use super::tile_size::LANES;

/// Pixels whose sums are float32. Each such strip has a mean and a variance of its own, which are joined in float64, in
/// their order.
const STRIP: usize = 64;
/// Pixels whose strips one task joins.
const SPAN: usize = 16 * STRIP;
/// Lanes of channels that are summed at a time: those of a strip stay in the first cache.
const AT_ONCE: usize = 4;

/// The means of some pixels' channels, and the sums of squared differences from them.
#[derive(Debug, Clone)]
struct Moments {
    count: f64,
    means: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn new(channels: usize) -> Self {
        Self { count: 0.0, means: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    /// Joins those of `count` other pixels, of the channels `first` on (Chan, Golub and LeVeque 1979). The number of pixels is
    /// left to the caller.
    #[inline(always)]
    fn join<'m>(&mut self, first: usize, count: f64, others: impl Iterator<Item = (&'m f64, &'m f64)>) {
        let of_all = count / (self.count + count);
        let both = self.count * of_all;
        for ((mean, squares), (other, others)) in
            self.means[first..].iter_mut().zip(&mut self.squares[first..]).zip(others)
        {
            let delta = other - *mean;
            *mean += delta * of_all;
            *squares += others + delta * delta * both;
        }
    }
}

/// Group normalization of images `[batch, height, width, channels]`, of which the channels may come from two images side
/// by side.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a, E> {
    /// One or two images with their channels. The second may be empty.
    pub images: [(&'a [E], usize); 2],
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

impl<E: Number> GroupNorm<'_, E> {
    fn channels(&self) -> usize {
        self.images[0].1 + self.images[1].1
    }

    /// Computes it into `out`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        let spans = (self.height * self.width).div_ceil(SPAN);
        let mut found = vec![Moments::new(0); self.batch * spans];
        let parts = Parts::new(&mut found);
        threads.each(self.batch * spans, &|span| {
            // SAFETY: each span has its own.
            let found = unsafe { parts.range(span, 1) };
            vectorized(set, Sums { norm: self, image: span / spans, from: span % spans * SPAN, found: &mut found[0] });
        });
        let affine: Vec<Affine> = found.chunks_exact(spans.max(1)).map(|found| self.affine(found)).collect();
        let out = Parts::new(out);
        threads.each(self.batch * self.height, &|line| {
            let affine = &affine[line / self.height];
            vectorized(set, Line { norm: self, line, affine, out: &out });
        });
    }

    /// Joins the moments of an image's pixels and returns the factor and the offset of each channel.
    fn affine(&self, found: &[Moments]) -> Affine {
        let channels = self.channels();
        let mut all = Moments::new(channels);
        for found in found {
            all.join(0, found.count, found.means.iter().zip(&found.squares));
            all.count += found.count;
        }
        let per_group = channels / self.groups;
        let mut affine = Affine { factors: vec![0.0; channels], offsets: vec![0.0; channels] };
        for group in 0..self.groups {
            let of = group * per_group..(group + 1) * per_group;
            let mut joined = Moments::new(1);
            for channel in of.clone() {
                joined.join(0, all.count, [(&all.means[channel], &all.squares[channel])].into_iter());
                joined.count += all.count;
            }
            let inverse = 1.0 / (joined.squares[0] / joined.count + f64::from(self.epsilon)).sqrt();
            for channel in of {
                let factor = f64::from(self.scale[channel]) * inverse;
                affine.factors[channel] = factor as f32;
                affine.offsets[channel] = (f64::from(self.shift[channel]) - joined.means[0] * factor) as f32;
            }
        }
        affine
    }
}

/// A factor and an offset for each channel.
struct Affine {
    factors: Vec<f32>,
    offsets: Vec<f32>,
}

/// The moments of a span of pixels.
struct Sums<'t, 'a, E> {
    norm: &'t GroupNorm<'a, E>,
    image: usize,
    from: usize,
    found: &'t mut Moments,
}

impl<E: Number> Work for Sums<'_, '_, E> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { norm, image, from, found } = self;
        let pixels = norm.height * norm.width;
        *found = Moments::new(norm.channels());
        for from in (from..pixels.min(from + SPAN)).step_by(STRIP) {
            let count = STRIP.min(pixels - from);
            let mut at = 0;
            for (values, channels) in norm.images.into_iter().filter(|(_, channels)| *channels > 0) {
                let strip = &values[(image * pixels + from) * channels..][..count * channels];
                let mut first = 0;
                while first < channels {
                    let lanes = if channels - first >= AT_ONCE * LANES { AT_ONCE } else { 1 };
                    let here = (lanes * LANES).min(channels - first);
                    let (mut means, mut squares) = ([0.0; AT_ONCE * LANES], [0.0; AT_ONCE * LANES]);
                    if lanes == AT_ONCE {
                        sum_strip::<L, E, AT_ONCE>(strip, channels, first..first + here, &mut means, &mut squares);
                    } else {
                        sum_strip::<L, E, 1>(strip, channels, first..first + here, &mut means, &mut squares);
                    }
                    found.join(at + first, count as f64, means[..here].iter().zip(&squares[..here]));
                    first += here;
                }
                at += channels;
            }
            found.count += count as f64;
        }
    }
}

/// The means of some channels of a strip, and the sums of squared differences from them, in two passes, of which the second one
/// finds the strip in the first cache.
#[inline(always)]
fn sum_strip<L: Lane, E: Number, const N: usize>(
    strip: &[E],
    channels: usize,
    of: Range<usize>,
    means: &mut [f64; AT_ONCE * LANES],
    squares: &mut [f64; AT_ONCE * LANES],
) {
    let part = |number: usize| of.start + number * LANES..of.end.min(of.start + (number + 1) * LANES);
    let mut sums = [L::zero(); N];
    for pixel in strip.chunks_exact(channels) {
        for (number, sum) in sums.iter_mut().enumerate() {
            *sum = sum.plus(L::read(&pixel[part(number)]));
        }
    }
    let inverse = L::all(1.0 / (strip.len() / channels) as f32);
    for sum in &mut sums {
        *sum = sum.times(inverse);
    }
    let mut of_squares = [L::zero(); N];
    for pixel in strip.chunks_exact(channels) {
        for (number, square) in of_squares.iter_mut().enumerate() {
            let difference = L::read(&pixel[part(number)]).minus(sums[number]);
            *square = square.plus_times(difference, difference);
        }
    }
    for number in 0..N {
        let (mean, square) = (sums[number].values(), of_squares[number].values());
        for at in 0..LANES {
            means[number * LANES + at] = f64::from(mean[at]);
            squares[number * LANES + at] = f64::from(square[at]);
        }
    }
}

/// A line of the result.
struct Line<'t, 'a, E, O> {
    norm: &'t GroupNorm<'a, E>,
    line: usize,
    affine: &'t Affine,
    out: &'t Parts<'t, O>,
}

impl<E: Number, O: Number> Work for Line<'_, '_, E, O> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { norm, line, affine, out } = self;
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
        for (x, out) in whole[border * all..(width + border) * all].chunks_exact_mut(all).enumerate() {
            let pixel = line * width + x;
            let mut at = 0;
            for (values, channels) in norm.images {
                let values = &values[pixel * channels..][..channels];
                let (factors, offsets) = (&affine.factors[at..at + channels], &affine.offsets[at..at + channels]);
                for (number, out) in out[at..at + channels].chunks_mut(LANES).enumerate() {
                    let part = number * LANES..channels.min((number + 1) * LANES);
                    let offset = L::read(&offsets[part.clone()]);
                    let made = offset.plus_times(L::read(&values[part.clone()]), L::read(&factors[part]));
                    made.activated::<O>(norm.activation).write(out);
                }
                at += channels;
            }
        }
    }
}
