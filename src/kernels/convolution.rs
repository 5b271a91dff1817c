//! Convolutions as products: 3×3 windows of an image that has a border.

use super::epilogue::Epilogue;
use super::instruction_set::InstructionSet;
use super::number::Number;
use super::pack::PanelShape;
use super::product::{OutRows, Product, ProductRows};
use super::threads::Threads;
use super::tile::Element;
use super::tile_size::COLUMNS;

/// The windows of a 3×3 convolution of images `[batch, height, width, channels]` with a border of one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageConvolution {
    /// The batch size.
    pub batch: usize,
    /// The height with the border.
    pub height: usize,
    /// The width with the border.
    pub width: usize,
    /// The channels, padded to [`Number::STEP`].
    pub channels: usize,
    /// The distance of two windows.
    pub stride: usize,
    /// The first pixel of the first window, in both directions.
    pub offset: usize,
    /// True if every pixel is doubled in both directions before. The weights are then four sets of 2×2, of [`merged`], for
    /// the pixels at even and odd places.
    pub upsamples: bool,
    /// Pixels of the result side by side whose channels are columns of one panel: [`ImageConvolution::pixels_per_panel`], or 1.
    /// The weights are those of the window of all of them, of [`spread_weight`].
    pub pixels: usize,
}

impl ImageConvolution {
    /// The height and width of the result; `None` if no window fits.
    pub fn out_size(&self) -> Option<(usize, usize)> {
        let side = |length: usize| Some(length.checked_sub(3 + self.offset)? / self.stride.max(1) + 1);
        let (height, width) = (side(self.height)?, side(self.width)?);
        Some(if self.upsamples { (2 * height, 2 * width) } else { (height, width) })
    }

    /// The pixels side by side that fit into a panel, of a result of `columns` channels and this width. A panel of few columns
    /// takes as long as a full one.
    pub fn pixels_per_panel(columns: usize, width: usize) -> usize {
        let sizes = [8, 4, 2].into_iter();
        sizes.filter(|pixels| pixels * columns <= COLUMNS).find(|pixels| width.is_multiple_of(*pixels)).unwrap_or(1)
    }

    /// The shape of its weights, for `columns` channels of the result. With upsampling that of one of the four sets.
    pub fn weights(&self, columns: usize, depth: usize) -> PanelShape {
        let taps = if self.upsamples { 4 } else { 3 * (self.pixels + 2) };
        PanelShape { columns: columns * self.pixels, taps, depth }
    }

    /// The number of values of its packed weights.
    pub fn packed_len<E: Element>(&self, columns: usize) -> usize {
        self.weights(columns, self.channels).packed_len::<E>() * if self.upsamples { 4 } else { 1 }
    }

    /// Computes it into `out`, `[batch, height, width, columns]`.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says, no window fits, or pixels side by side are not a part of the width.
    pub fn run<E: Element, O: Number>(
        &self,
        (image, packed, columns): (&[E], &[E], usize),
        epilogue: Epilogue<'_>,
        set: InstructionSet,
        threads: &dyn Threads,
        out: &mut [O],
    ) {
        let shape = self.weights(columns, self.channels);
        let Some((height, width)) = self.out_size() else { panic!("a window is larger than the image") };
        if !self.upsamples {
            assert!(width.is_multiple_of(self.pixels) && (self.pixels == 1 || self.stride == 1));
            let taps = self.taps(0..3, 0..self.pixels + 2, self.offset);
            let width = width / self.pixels;
            let out_rows = OutRows { first: 0, line_step: width, step: 1 };
            let rows = self.rows(height, width, taps, out_rows);
            let product = Product { left: image, rows, packed, shape, epilogue };
            if self.pixels == 1 {
                return product.run(set, threads, out);
            }
            let of_images = |values: &[f32]| values.chunks(columns).flat_map(|one| one.repeat(self.pixels)).collect();
            let [bias, added]: [Option<Vec<f32>>; 2] = [epilogue.bias, epilogue.added].map(|of| of.map(of_images));
            let epilogue = Epilogue { bias: bias.as_deref(), added: added.as_deref(), ..epilogue };
            return Product { epilogue, ..product }.run(set, threads, out);
        }
        for (phase, packed) in packed.chunks_exact(shape.packed_len::<E>()).take(4).enumerate() {
            let (y, x) = (phase / 2, phase % 2);
            let taps = self.taps(y..y + 2, x..x + 2, 0);
            let out_rows = OutRows { first: y * width + x, line_step: 2 * width, step: 2 };
            let rows = self.rows(height / 2, width / 2, taps, out_rows);
            Product { left: image, rows, packed, shape, epilogue }.run(set, threads, out);
        }
    }

    fn taps(&self, ys: std::ops::Range<usize>, xs: std::ops::Range<usize>, offset: usize) -> Vec<usize> {
        let at = |y: usize, x: usize| ((y + offset) * self.width + x + offset) * self.channels;
        ys.flat_map(|y| xs.clone().map(move |x| at(y, x))).collect()
    }

    fn rows(&self, height: usize, width: usize, taps: Vec<usize>, out: OutRows) -> ProductRows {
        ProductRows {
            lines: self.batch * height,
            lines_per_image: height,
            line_rows: width,
            image_stride: self.height * self.width * self.channels,
            line_stride: self.stride * self.width * self.channels,
            row_stride: self.stride * self.pixels * self.channels,
            taps,
            out,
        }
    }
}

/// A weight of the window of some pixels side by side, at `tap`, for one of their channels: that of the pixel's own 3×3 window,
/// `kernel` by channel and tap, or 0 beside it.
pub fn spread_weight(
    kernel: impl Fn(usize, usize) -> f32,
    (columns, pixels): (usize, usize),
    column: usize,
    tap: usize,
) -> f32 {
    let (pixel, channel) = (column / columns, column % columns);
    let (y, x) = (tap / (pixels + 2), tap % (pixels + 2));
    if (pixel..pixel + 3).contains(&x) { kernel(channel, 3 * y + x - pixel) } else { 0.0 }
}

/// The weight of a 2×2 window at `tap` that equals that of a 3×3 one, `kernel`, where pixels are doubled: for the pixels at
/// even or odd places `phase` (0 to 3, rows first) of the result. Sums are float64.
pub fn merged(kernel: impl Fn(usize) -> f32, phase: usize, tap: usize) -> f32 {
    let range = |phase: usize, tap: usize| match (phase, tap) {
        (0, 0) => 0..1,
        (0, _) => 1..3,
        (_, 0) => 0..2,
        _ => 2..3,
    };
    let (ys, xs) = (range(phase / 2, tap / 2), range(phase % 2, tap % 2));
    let places = ys.flat_map(|y| xs.clone().map(move |x| 3 * y + x));
    places.map(|at| f64::from(kernel(at))).sum::<f64>() as f32
}
