//! The convolution: transform, products, transform back, for some tiles at a time.

use std::marker::PhantomData;
use std::ops::Range;

use super::Filtering;
use super::transform::{Doubled, Four, Three, Transform, Two};
use crate::kernels::epilogue::{Epilogue, PanelEpilogue, StepRows};
use crate::kernels::instruction_set::{InstructionSet, Work, vectorized};
use crate::kernels::lane::Lane;
use crate::kernels::number::Number;
use crate::kernels::pack::PanelShape;
use crate::kernels::scratch::{AnyBits, with_scratch};
use crate::kernels::threads::{Parts, Threads, units_of_part};
use crate::kernels::tile::{Accumulator, Block, Element, TileUnit};
use crate::kernels::tile_size::{COLUMNS, GROUP_ROWS, LANES, ROWS};

/// A 3×3 convolution of images `[batch, height, width, channels]` with a border of one pixel, by minimal filtering.
#[derive(Debug, Clone, Copy)]
pub struct FilteredConvolution<'a, E> {
    /// The size of tiles.
    pub filtering: Filtering,
    /// The images.
    pub image: &'a [E],
    /// The batch size.
    pub batch: usize,
    /// The height of the result. Without its border, the image is as high, or half as high for [`Filtering::Doubled`].
    pub height: usize,
    /// The width of the result.
    pub width: usize,
    /// The channels, padded to [`Number::STEP`].
    pub channels: usize,
    /// The weights, as [`WeightTransform::pack`](super::WeightTransform::pack) made them.
    pub packed: &'a [E],
    /// The channels of the result.
    pub columns: usize,
    /// The operations after the convolution.
    pub epilogue: Epilogue<'a>,
}

/// Tiles that one task takes through all panels.
const TILES: usize = 64;
/// Bytes of the transformed windows of a task.
const TRANSFORMED_BYTES: usize = 12 << 20;
/// Bytes of sums that are transformed to tiles together.
const SUMS_BYTES: usize = 3 << 18;

impl<E: Element> FilteredConvolution<'_, E> {
    /// The shape of the weights.
    pub fn weights(&self) -> PanelShape {
        PanelShape { columns: self.columns, taps: self.filtering.products(), depth: self.channels }
    }

    /// Computes it into `out`, `[batch, height, width, columns]`.
    ///
    /// Each value is the same for any number of threads.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        let (lines, row) = self.image_size();
        assert!(self.image.len() >= self.batch * lines * row * self.channels);
        assert!(self.packed.len() >= self.weights().packed_len::<E>());
        self.epilogue.check(self.columns, self.batch);
        assert!(!self.epilogue.is_gated && self.channels.is_multiple_of(E::STEP));
        match self.filtering {
            Filtering::Two => self.run_tiles::<Two, O, 4, 2>(set, threads, out),
            Filtering::Three => self.run_tiles::<Three, O, 5, 3>(set, threads, out),
            Filtering::Four => self.run_tiles::<Four, O, 6, 4>(set, threads, out),
            Filtering::Doubled => self.run_tiles::<Doubled, O, 6, 4>(set, threads, out),
        }
    }

    fn run_tiles<T: Transform<W, S>, O: Number, const W: usize, const S: usize>(
        &self,
        set: InstructionSet,
        threads: &dyn Threads,
        out: &mut [O],
    ) {
        let tiles = self.batch * self.height.div_ceil(S) * self.width.div_ceil(S);
        let bytes = self.filtering.products() * self.channels * size_of::<E>();
        let most = (TRANSFORMED_BYTES / bytes.max(1) / ROWS).clamp(1, TILES / ROWS) * ROWS;
        let panels = self.weights().panels();
        let wanted = 3 * threads.count();
        let out = Parts::new(out);
        let chunk = if tiles < wanted * ROWS {
            // Few tiles: threads share them, and divide the panels.
            2 * most
        } else {
            ROWS * units_of_part(tiles.div_ceil(ROWS), most / ROWS, threads.count())
        };
        let chunks = |at: usize| at * chunk..tiles.min((at + 1) * chunk);
        let len = chunk * self.filtering.products() * self.channels;
        let count = tiles.div_ceil(chunk);
        if tiles >= wanted * ROWS {
            threads.each(count, &|at| {
                with_scratch(len, |transformed: &mut [E]| {
                    let (all, to) = (chunks(at), Parts::new(transformed));
                    self.forward::<T, W, S>(set, all.clone(), all.clone(), &to);
                    self.products::<T, O, W, S>(set, all, 0..panels, transformed, &out);
                });
            });
            return;
        }
        const AT_ONCE: usize = 8;
        let per_part = units_of_part(panels, panels, threads.count());
        for all in (0..count).map(chunks) {
            with_scratch(len, |transformed: &mut [E]| {
                let to = Parts::new(transformed);
                threads.each(all.len().div_ceil(AT_ONCE), &|at| {
                    let first = all.start + at * AT_ONCE;
                    self.forward::<T, W, S>(set, all.clone(), first..all.end.min(first + AT_ONCE), &to);
                });
                threads.each(panels.div_ceil(per_part), &|at| {
                    let panels = at * per_part..panels.min((at + 1) * per_part);
                    self.products::<T, O, W, S>(set, all.clone(), panels, transformed, &out);
                });
            });
        }
    }

    /// Transforms the windows of `tiles`, some of `all` that `to` has room for.
    fn forward<T: Transform<W, S>, const W: usize, const S: usize>(
        &self,
        set: InstructionSet,
        all: Range<usize>,
        tiles: Range<usize>,
        to: &Parts<'_, E>,
    ) {
        vectorized(set, Forward::<T, E, W, S> { of: self, all, tiles, out: to, transform: PhantomData });
    }

    /// Computes some panels of the result from transformed windows.
    fn products<T: Transform<W, S>, O: Number, const W: usize, const S: usize>(
        &self,
        set: InstructionSet,
        tiles: Range<usize>,
        panels: Range<usize>,
        transformed: &[E],
        out: &Parts<'_, O>,
    ) {
        let blocks = tiles.len().div_ceil(ROWS) * self.filtering.products();
        let at_once = (SUMS_BYTES / size_of::<Sums>() / blocks).clamp(1, panels.len().max(1));
        with_scratch(blocks * at_once, |sums: &mut [Sums]| {
            let transform = PhantomData;
            vectorized(
                set,
                Products::<T, E, O, W, S> { of: self, set, tiles, transformed, panels, sums, out, transform },
            );
        });
    }

    /// The height and width of the image, with its border.
    fn image_size(&self) -> (usize, usize) {
        let times = self.times_larger();
        (self.height / times + 2, self.width / times + 2)
    }

    fn times_larger(&self) -> usize {
        if self.filtering == Filtering::Doubled { 2 } else { 1 }
    }

    /// The image of a tile, and the first row and column of the tile in the result.
    #[inline(always)]
    fn place(&self, tile: usize, side: usize) -> (usize, usize, usize) {
        let (down, across) = (self.height.div_ceil(side), self.width.div_ceil(side));
        (tile / (down * across), tile / across % down * side, tile % across * side)
    }

    /// The beginnings of the pixels of a tile's window. Where the window of a last tile goes beyond the border, they are the
    /// first pixel of the border: what is made of them is not in the result.
    #[inline(always)]
    fn window<const W: usize, const S: usize>(&self, tile: usize) -> [[usize; W]; W] {
        let ((lines, row), times) = (self.image_size(), self.times_larger());
        let (image, y, x) = self.place(tile, S);
        let mut starts = [[0; W]; W];
        for (y, starts) in (y / times..lines).zip(&mut starts) {
            for (x, start) in (x / times..row).zip(starts) {
                *start = ((image * lines + y) * row + x) * self.channels;
            }
        }
        starts
    }
}

/// Transforms windows to `[products, tiles, channels]`.
struct Forward<'t, 'a, T, E, const W: usize, const S: usize> {
    of: &'t FilteredConvolution<'a, E>,
    /// The tiles that `out` has room for.
    all: Range<usize>,
    /// The tiles that this task transforms.
    tiles: Range<usize>,
    out: &'t Parts<'t, E>,
    transform: PhantomData<T>,
}

impl<T: Transform<W, S>, E: Element, const W: usize, const S: usize> Work for Forward<'_, '_, T, E, W, S> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { of, all, tiles, out, .. } = self;
        let (channels, step) = (of.channels, all.len() * of.channels);
        // Out here, so that it is not filled with zeros each time.
        let mut window = [[L::zero(); W]; W];
        for tile in tiles {
            let starts = of.window::<W, S>(tile);
            let to = (tile - all.start) * channels;
            for first in (0..channels).step_by(LANES) {
                let count = LANES.min(channels - first);
                for (row, starts) in window.iter_mut().zip(starts).take(T::PIXELS) {
                    for (lane, start) in row.iter_mut().zip(starts).take(T::PIXELS) {
                        *lane = L::read(&of.image[start + first..][..count]);
                    }
                    T::forward(row);
                }
                for wx in 0..W {
                    let mut column = [L::zero(); W];
                    for (lane, row) in column.iter_mut().zip(&window).take(T::PIXELS) {
                        *lane = row[wx];
                    }
                    T::forward(&mut column);
                    for (wy, lane) in column.iter().enumerate() {
                        // SAFETY: each tile is transformed by one task.
                        lane.write(unsafe { out.range((wy * W + wx) * step + to + first, count) });
                    }
                }
            }
        }
    }
}

/// Sums of one product of 32 tiles. Apart by more than a multiple of 4096 bytes, so that the sums of one tile are in
/// different sets of the first cache.
#[repr(C, align(64))]
struct Sums {
    sums: Accumulator,
    apart: [f32; COLUMNS],
}

// SAFETY: float32 values, at multiples of 64.
unsafe impl AnyBits for Sums {}

/// The products of some tiles, transformed to tiles of the result.
struct Products<'t, 'a, T, E, O, const W: usize, const S: usize> {
    of: &'t FilteredConvolution<'a, E>,
    set: InstructionSet,
    /// The tiles that are transformed.
    tiles: Range<usize>,
    transformed: &'t [E],
    panels: Range<usize>,
    /// Room for the sums of some panels.
    sums: &'t mut [Sums],
    out: &'t Parts<'t, O>,
    transform: PhantomData<T>,
}

impl<T: Transform<W, S>, E: Element, O: Number, const W: usize, const S: usize> Work
    for Products<'_, '_, T, E, O, W, S>
{
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { of, set, tiles, transformed, panels, sums, out, .. } = self;
        let mut unit = TileUnit::new::<E>(set);
        let (products, channels, count) = (of.filtering.products(), of.channels, tiles.len());
        let blocks = count.div_ceil(ROWS);
        let at_once = sums.len() / (products * blocks);
        let matrix_len = channels * COLUMNS;
        for first in panels.clone().step_by(at_once) {
            let group = first..panels.end.min(first + at_once);
            // One matrix of transformed windows stays in the second cache meanwhile.
            for (product, panel) in (0..products).flat_map(|product| group.clone().map(move |panel| (product, panel))) {
                let packed = &of.packed[(panel * products + product) * matrix_len..][..matrix_len];
                for block in 0..blocks {
                    let to = ((panel - first) * blocks + block) * products + product;
                    let rows = ROWS.min(count - block * ROWS);
                    let start = (product * count + block * ROWS) * channels;
                    let left = Block {
                        left: transformed,
                        starts: [start, if rows > GROUP_ROWS { start + GROUP_ROWS * channels } else { 0 }],
                        rows: [rows.min(GROUP_ROWS), rows.saturating_sub(GROUP_ROWS)],
                        stride: channels,
                        taps: &[0],
                        depth: channels,
                        panels: &[packed],
                        ahead: &[],
                    };
                    E::multiply(&mut unit, &left, false, &mut [&mut sums[to].sums]);
                }
            }
            for (panel, sums) in group.zip(sums.chunks_exact(products * blocks)) {
                for (sums, first) in sums.chunks_exact(products).zip(tiles.clone().step_by(ROWS)) {
                    of.back::<L, T, O, W, S>(panel, first..tiles.end.min(first + ROWS), sums, out);
                }
            }
        }
    }
}

impl<E: Element> FilteredConvolution<'_, E> {
    /// Transforms products to tiles of the result, and writes those.
    #[inline(always)]
    fn back<L: Lane, T: Transform<W, S>, O: Number, const W: usize, const S: usize>(
        &self,
        panel: usize,
        tiles: Range<usize>,
        sums: &[Sums],
        out: &Parts<'_, O>,
    ) {
        let mut after: Option<(usize, PanelEpilogue<'_, L>)> = None;
        let (mut lines, mut pixels) = ([[L::zero(); S]; W], [[[0.0; COLUMNS]; S]; S]);
        for (row, tile) in tiles.enumerate() {
            let (image, y, x) = self.place(tile, S);
            let (_, after) = match &mut after {
                Some(after) if after.0 == image => after,
                after => after.insert((image, PanelEpilogue::new(self.epilogue, self.columns, panel, image))),
            };
            for half in (0..COLUMNS).step_by(LANES) {
                for (line, sums) in lines.iter_mut().zip(sums.chunks_exact(W)) {
                    let mut numbers = [L::zero(); W];
                    for (number, sums) in numbers.iter_mut().zip(sums) {
                        *number = L::read(&sums.sums.0[row][half..half + LANES]);
                    }
                    *line = T::back(&numbers);
                }
                for px in 0..S {
                    let mut column = [L::zero(); W];
                    for (lane, line) in column.iter_mut().zip(&lines) {
                        *lane = line[px];
                    }
                    for (pixels, lane) in pixels.iter_mut().zip(T::back(&column)) {
                        lane.write(&mut pixels[px][half..half + LANES]);
                    }
                }
            }
            for (py, line) in pixels.iter_mut().take(self.height - y).enumerate() {
                let first = (image * self.height + y + py) * self.width + x;
                let rows = StepRows { first, step: 1, count: S.min(self.width - x) };
                // SAFETY: each tile and panel of the result is written by one task.
                unsafe { after.write(rows, line, out) };
            }
        }
    }
}
