//! The convolution: transform, products, transform back, for some tiles at a time.

use std::marker::PhantomData;
use std::ops::Range;

use super::Filtering;
use super::transform::{Four, Transform, Two};
use crate::kernels::epilogue::{Epilogue, PanelEpilogue, StepRows};
use crate::kernels::instruction_set::{InstructionSet, Work, vectorized};
use crate::kernels::lane::Lane;
use crate::kernels::number::Number;
use crate::kernels::pack::PanelShape;
use crate::kernels::scratch::{AnyBits, with_scratch};
use crate::kernels::threads::{Parts, Threads};
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
    /// The height of the result. Without its border, the image is as high.
    pub height: usize,
    /// The width of the result.
    pub width: usize,
    /// True if every pixel of the image, whose sides are half of the result's, is doubled in both directions before.
    pub upsamples: bool,
    /// The channels, padded to [`Number::STEP`].
    pub channels: usize,
    /// The weights, as [`PanelShape::pack`] made them of [`WeightTransform::weight`](super::WeightTransform::weight). Taps are the products.
    pub packed: &'a [E],
    /// The channels of the result.
    pub columns: usize,
    /// The operations after the convolution.
    pub epilogue: Epilogue<'a>,
}

/// Tiles that one task takes through all panels.
const TILES: usize = 128;
/// Bytes of the transformed windows of a task.
const TRANSFORMED_BYTES: usize = 12 << 20;
/// Bytes of sums that are transformed to tiles together.
const SUMS_BYTES: usize = 3 << 19;

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
            Filtering::Two => self.run_tiles::<Two, O>(set, threads, out),
            Filtering::Four => self.run_tiles::<Four, O>(set, threads, out),
        }
    }

    fn run_tiles<T: Transform, O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        let tiles = self.batch * self.height.div_ceil(T::TILE) * self.width.div_ceil(T::TILE);
        let bytes = self.filtering.products() * self.channels * size_of::<E>();
        let most = (TRANSFORMED_BYTES / bytes.max(1) / ROWS).clamp(1, TILES / ROWS) * ROWS;
        let panels = self.weights().panels();
        let wanted = 3 * threads.count();
        let out = Parts::new(out);
        let chunk = if tiles < wanted * ROWS {
            // Few tiles: threads share them, and divide the panels.
            2 * most
        } else {
            tiles.div_ceil(wanted).next_multiple_of(ROWS).min(most)
        };
        let chunks = |at: usize| at * chunk..tiles.min((at + 1) * chunk);
        let len = chunk * self.filtering.products() * self.channels;
        let count = tiles.div_ceil(chunk);
        if tiles >= wanted * ROWS {
            threads.each(count, &|at| {
                with_scratch(len, |transformed: &mut [E]| {
                    let (all, to) = (chunks(at), Parts::new(transformed));
                    self.forward::<T>(set, all.clone(), all.clone(), &to);
                    self.products::<T, O>(set, all, 0..panels, transformed, &out);
                });
            });
            return;
        }
        const AT_ONCE: usize = 8;
        let per_part = panels.div_ceil(wanted);
        for all in (0..count).map(chunks) {
            with_scratch(len, |transformed: &mut [E]| {
                let to = Parts::new(transformed);
                threads.each(all.len().div_ceil(AT_ONCE), &|at| {
                    let first = all.start + at * AT_ONCE;
                    self.forward::<T>(set, all.clone(), first..all.end.min(first + AT_ONCE), &to);
                });
                threads.each(panels.div_ceil(per_part), &|at| {
                    let panels = at * per_part..panels.min((at + 1) * per_part);
                    self.products::<T, O>(set, all.clone(), panels, transformed, &out);
                });
            });
        }
    }

    /// Transforms the windows of `tiles`, some of `all` that `to` has room for.
    fn forward<T: Transform>(&self, set: InstructionSet, all: Range<usize>, tiles: Range<usize>, to: &Parts<'_, E>) {
        vectorized(set, Forward::<T, E> { of: self, all, tiles, out: to, transform: PhantomData });
    }

    /// Computes some panels of the result from transformed windows.
    fn products<T: Transform, O: Number>(
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
            vectorized(set, Products::<T, E, O> { of: self, set, tiles, transformed, panels, sums, out, transform });
        });
    }

    /// The height and width of the image, with its border.
    fn image_size(&self) -> (usize, usize) {
        if self.upsamples { (self.height / 2 + 2, self.width / 2 + 2) } else { (self.height + 2, self.width + 2) }
    }

    /// The image of a tile, and the first row and column of the tile in the result.
    #[inline(always)]
    fn place<T: Transform>(&self, tile: usize) -> (usize, usize, usize) {
        let (down, across) = (self.height.div_ceil(T::TILE), self.width.div_ceil(T::TILE));
        (tile / (down * across), tile / across % down * T::TILE, tile % across * T::TILE)
    }
}

/// Transforms windows to `[products, tiles, channels]`.
struct Forward<'t, 'a, T, E> {
    of: &'t FilteredConvolution<'a, E>,
    /// The tiles that `out` has room for.
    all: Range<usize>,
    /// The tiles that this task transforms.
    tiles: Range<usize>,
    out: &'t Parts<'t, E>,
    transform: PhantomData<T>,
}

impl<T: Transform, E: Element> Work for Forward<'_, '_, T, E> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { of, all, tiles, out, .. } = self;
        let (channels, (lines, row)) = (of.channels, of.image_size());
        for tile in tiles {
            let (image, y, x) = of.place::<T>(tile);
            // Windows of the last tiles go beyond the border.
            let start = |wy: usize, wx: usize| {
                let is_within = y + wy < of.height + 2 && x + wx < of.width + 2;
                let (wy, wx) = match of.upsamples {
                    true => ((y + wy).div_ceil(2), (x + wx).div_ceil(2)),
                    false => (y + wy, x + wx),
                };
                is_within.then_some(((image * lines + wy) * row + wx) * channels)
            };
            for first in (0..channels).step_by(LANES) {
                let count = LANES.min(channels - first);
                let mut window = [[L::zero(); 6]; 6];
                for (wy, row) in window[..T::WINDOW].iter_mut().enumerate() {
                    for (wx, lane) in row[..T::WINDOW].iter_mut().enumerate() {
                        if let Some(at) = start(wy, wx) {
                            *lane = L::read(&of.image[at + first..][..count]);
                        }
                    }
                    T::forward(row);
                }
                for wx in 0..T::WINDOW {
                    let mut column = [L::zero(); 6];
                    column.iter_mut().zip(&window).for_each(|(lane, row)| *lane = row[wx]);
                    T::forward(&mut column);
                    for (wy, lane) in column[..T::WINDOW].iter().enumerate() {
                        let number = wy * T::WINDOW + wx;
                        let at = (number * all.len() + tile - all.start) * channels + first;
                        // SAFETY: each tile is transformed by one task.
                        lane.write(unsafe { out.range(at, count) });
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
struct Products<'t, 'a, T, E, O> {
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

impl<T: Transform, E: Element, O: Number> Work for Products<'_, '_, T, E, O> {
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
                    of.back::<L, T, O>(panel, first..tiles.end.min(first + ROWS), sums, out);
                }
            }
        }
    }
}

impl<E: Element> FilteredConvolution<'_, E> {
    /// Transforms products to tiles of the result, and writes those.
    #[inline(always)]
    fn back<L: Lane, T: Transform, O: Number>(
        &self,
        panel: usize,
        tiles: Range<usize>,
        sums: &[Sums],
        out: &Parts<'_, O>,
    ) {
        let mut after: Option<(usize, PanelEpilogue<'_, L>)> = None;
        for (row, tile) in tiles.enumerate() {
            let (image, y, x) = self.place::<T>(tile);
            let (_, after) = match &mut after {
                Some(after) if after.0 == image => after,
                after => after.insert((image, PanelEpilogue::new(self.epilogue, self.columns, panel, image))),
            };
            let mut pixels = [[[0.0; COLUMNS]; 4]; 4];
            for half in (0..COLUMNS).step_by(LANES) {
                let mut lines = [[L::zero(); 4]; 6];
                for (line, sums) in lines.iter_mut().zip(sums.chunks_exact(T::WINDOW)) {
                    let mut numbers = [L::zero(); 6];
                    for (number, sums) in numbers.iter_mut().zip(sums) {
                        *number = L::read(&sums.sums.0[row][half..half + LANES]);
                    }
                    *line = T::back(&numbers);
                }
                for px in 0..T::TILE {
                    let mut column = [L::zero(); 6];
                    column.iter_mut().zip(&lines).for_each(|(lane, line)| *lane = line[px]);
                    for (py, lane) in T::back(&column)[..T::TILE].iter().enumerate() {
                        lane.write(&mut pixels[py][px][half..half + LANES]);
                    }
                }
            }
            for (py, line) in pixels[..T::TILE.min(self.height - y)].iter_mut().enumerate() {
                let first = (image * self.height + y + py) * self.width + x;
                let rows = StepRows { first, step: 1, count: T::TILE.min(self.width - x) };
                // SAFETY: each tile and panel of the result is written by one task.
                unsafe { after.write(rows, line, out) };
            }
        }
    }
}
