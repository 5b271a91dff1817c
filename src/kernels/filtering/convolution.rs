//! The convolution: transform, products, transform back, for some tiles at a time.

use std::marker::PhantomData;
use std::ops::Range;

use super::Filtering;
use super::cancellation::Cancellation;
use super::transform::{Doubled, Four, Three, Transform, Two};
use super::weights::{PanelTransform, product_stride};
use super::windows::{Forward, TiledImages};
use crate::kernels::epilogue::{Epilogue, PanelEpilogue, StepRows};
use crate::kernels::instruction_set::{InstructionSet, Work, vectorized};
use crate::kernels::lane::Lane;
use crate::kernels::number::Number;
use crate::kernels::operator::OperandType;
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
    /// The weights, as [`PanelShape::pack`] made them. They are transformed as the convolution runs: transformed before, they
    /// would be up to four times as many bytes to keep and to read.
    pub packed: &'a [E],
    /// The channels of the result.
    pub columns: usize,
    /// The operations after the convolution.
    pub epilogue: Epilogue<'a>,
}

/// Tiles that one task takes through all panels.
const TILES: usize = 64;
/// Tiles of a convolution that has many: its weights are transformed once for all of them.
const MANY_TILES: usize = 6 * ROWS;
/// Bytes of the transformed windows of a task.
const TRANSFORMED_BYTES: usize = 12 << 20;
/// Bytes of transformed weights that are made for the tiles at hand, so that they stay in the second cache.
const WEIGHTS_BYTES: usize = 600 << 10;
/// Bytes of sums that are transformed to tiles together.
const SUMS_BYTES: usize = 3 << 18;

impl<E: Element> FilteredConvolution<'_, E> {
    /// Bytes of transformed weights up to which a convolution of many tiles keeps them until it has ended.
    pub const KEPT_WEIGHTS_BYTES: usize = 48 << 20;

    /// The shape of the weights.
    pub fn weights(&self) -> PanelShape {
        PanelShape { columns: self.columns, taps: 9, depth: self.channels }
    }

    /// Computes it into `out`, `[batch, height, width, columns]`.
    ///
    /// Each value is the same for any number of threads.
    ///
    /// # Panics
    /// If an operand is shorter than its shape says.
    pub fn run<O: Number>(&self, set: InstructionSet, threads: &dyn Threads, out: &mut [O]) {
        let (lines, row) = self.tiled().size();
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
        let number_bytes = self.filtering.products() * size_of::<E>();
        let most = (TRANSFORMED_BYTES / (number_bytes * self.channels).max(1) / ROWS).clamp(1, TILES / ROWS) * ROWS;
        let weights_bytes = number_bytes * self.channels * self.weights().panels() * COLUMNS;
        let out = Parts::new(out);
        if tiles < MANY_TILES || weights_bytes > Self::KEPT_WEIGHTS_BYTES {
            let blocks = tiles.min(2 * most).div_ceil(ROWS) * self.filtering.products();
            let step = E::STEP.max(LANES);
            let most_depth = WEIGHTS_BYTES / self.panels_at_once(blocks) / (number_bytes * COLUMNS) / step * step;
            let depth = self.channels.div_ceil(self.channels.div_ceil(most_depth)).next_multiple_of(step);
            let weights = TransformedWeights { kept: None, depth: depth.min(self.channels) };
            return self.by_panels::<T, O, W, S>(set, threads, (tiles, 2 * most), weights, &out);
        }
        let panel_len = self.filtering.products() * product_stride(self.channels);
        with_scratch(self.weights().panels() * panel_len, |kept: &mut [E]| {
            self.keep::<T, W, S>(set, threads, kept);
            let weights = TransformedWeights { kept: Some(kept), depth: self.channels };
            if tiles >= 3 * threads.count() * ROWS {
                let chunk = ROWS * units_of_part(tiles.div_ceil(ROWS), most / ROWS, threads.count());
                self.by_tiles::<T, O, W, S>(set, threads, (tiles, chunk), weights, &out);
            } else {
                self.by_panels::<T, O, W, S>(set, threads, (tiles, 2 * most), weights, &out);
            }
        });
    }

    /// Transforms all weights.
    fn keep<T: Transform<W, S>, const W: usize, const S: usize>(
        &self,
        set: InstructionSet,
        threads: &dyn Threads,
        kept: &mut [E],
    ) {
        let cancellation = (E::TYPE == OperandType::Bf16).then(|| Cancellation::new(self.filtering));
        let panels = self.weights().panels();
        let (panel_len, kept) = (kept.len() / panels.max(1), Parts::new(kept));
        threads.each(panels, &|panel| {
            // SAFETY: each panel is one task's.
            let out = unsafe { kept.range(panel * panel_len, panel_len) };
            let transform = self.panel_transform::<T, W, S>(panel, 0..self.channels, out);
            vectorized(set, PanelTransform { cancellation: cancellation.as_ref(), ..transform });
        });
    }

    /// Panels that are multiplied together, of so many blocks of sums.
    fn panels_at_once(&self, blocks: usize) -> usize {
        (SUMS_BYTES / size_of::<Sums>() / blocks.max(1)).clamp(1, 2)
    }

    /// Many tiles: threads share them, and each takes its own through all panels.
    fn by_tiles<T: Transform<W, S>, O: Number, const W: usize, const S: usize>(
        &self,
        set: InstructionSet,
        threads: &dyn Threads,
        (tiles, chunk): (usize, usize),
        weights: TransformedWeights<'_, E>,
        out: &Parts<'_, O>,
    ) {
        threads.each(tiles.div_ceil(chunk), &|at| {
            let all = at * chunk..tiles.min((at + 1) * chunk);
            with_scratch(all.len() * self.filtering.products() * self.channels, |windows: &mut [E]| {
                self.forward::<T, W, S>(set, (all.clone(), weights.depth), all.clone(), &Parts::new(windows));
                self.products::<T, O, W, S>(set, all, 0..self.weights().panels(), (windows, weights), out);
            });
        });
    }

    /// Few tiles for the threads, or many weights: threads share the tiles' windows, and then the panels.
    fn by_panels<T: Transform<W, S>, O: Number, const W: usize, const S: usize>(
        &self,
        set: InstructionSet,
        threads: &dyn Threads,
        (tiles, chunk): (usize, usize),
        weights: TransformedWeights<'_, E>,
        out: &Parts<'_, O>,
    ) {
        const AT_ONCE: usize = 8;
        let panels = self.weights().panels();
        let per_part = units_of_part(panels, panels, threads.count());
        for all in (0..tiles).step_by(chunk).map(|first| first..tiles.min(first + chunk)) {
            with_scratch(all.len() * self.filtering.products() * self.channels, |windows: &mut [E]| {
                let to = Parts::new(windows);
                threads.each(all.len().div_ceil(AT_ONCE), &|at| {
                    let first = all.start + at * AT_ONCE;
                    let tiles = first..all.end.min(first + AT_ONCE);
                    self.forward::<T, W, S>(set, (all.clone(), weights.depth), tiles, &to);
                });
                threads.each(panels.div_ceil(per_part), &|at| {
                    let panels = at * per_part..panels.min((at + 1) * per_part);
                    self.products::<T, O, W, S>(set, all.clone(), panels, (windows, weights), out);
                });
            });
        }
    }

    fn tiled(&self) -> TiledImages<'_, E> {
        let times_larger = if self.filtering == Filtering::Doubled { 2 } else { 1 };
        let &Self { image, height, width, channels, .. } = self;
        TiledImages { image, height, width, channels, times_larger }
    }

    /// Transforms the windows of `tiles`, some of `all` that `to` has room for, in blocks of `depth` depths.
    fn forward<T: Transform<W, S>, const W: usize, const S: usize>(
        &self,
        set: InstructionSet,
        (all, depth): (Range<usize>, usize),
        tiles: Range<usize>,
        to: &Parts<'_, E>,
    ) {
        vectorized(set, Forward::<T, E, W, S> { of: self.tiled(), all, depth, tiles, out: to, transform: PhantomData });
    }

    fn panel_transform<'t, T: Transform<W, S>, const W: usize, const S: usize>(
        &'t self,
        panel: usize,
        depths: Range<usize>,
        out: &'t mut [E],
    ) -> PanelTransform<'t, T, E, W, S> {
        let len = self.weights().panel_len::<E>();
        let panel = &self.packed[panel * len..][..len];
        let (first, depth, transform) = (depths.start, depths.len(), PhantomData);
        PanelTransform { panel, first, depth, cancellation: None, out, transform }
    }

    /// Computes some panels of the result from transformed windows.
    fn products<T: Transform<W, S>, O: Number, const W: usize, const S: usize>(
        &self,
        set: InstructionSet,
        tiles: Range<usize>,
        panels: Range<usize>,
        (windows, weights): (&[E], TransformedWeights<'_, E>),
        out: &Parts<'_, O>,
    ) {
        let products = self.filtering.products();
        let blocks = tiles.len().div_ceil(ROWS) * products;
        let (at_once, own) = match weights.kept {
            Some(_) => ((SUMS_BYTES / size_of::<Sums>() / blocks).clamp(1, panels.len().max(1)), 0),
            None => (self.panels_at_once(blocks), products * product_stride(weights.depth)),
        };
        with_scratch(at_once * own, |room: &mut [E]| {
            with_scratch(blocks * at_once, |sums: &mut [Sums]| {
                let transform = PhantomData;
                vectorized(
                    set,
                    Products::<T, E, O, W, S> {
                        of: self,
                        set,
                        tiles,
                        windows,
                        weights,
                        panels,
                        room,
                        sums,
                        out,
                        transform,
                    },
                );
            });
        });
    }
}

/// The transformed weights.
#[derive(Debug, Clone, Copy)]
struct TransformedWeights<'t, E> {
    /// All of them by panel, `[products, depth]`; `None` if they are transformed for the tiles at hand.
    kept: Option<&'t [E]>,
    /// The depths of a block, of which the last may have fewer: all, or as many as are transformed together.
    depth: usize,
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
    /// Their transformed windows.
    windows: &'t [E],
    weights: TransformedWeights<'t, E>,
    panels: Range<usize>,
    /// Room for the transformed weights of a block of depths, if they are transformed here.
    room: &'t mut [E],
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
        let Self { of, set, tiles, windows, weights, panels, room, sums, out, .. } = self;
        let mut unit = TileUnit::new::<E>(set);
        let (products, channels, count) = (of.filtering.products(), of.channels, tiles.len());
        let blocks = count.div_ceil(ROWS);
        let at_once = sums.len() / (products * blocks);
        for first in panels.clone().step_by(at_once) {
            let group = first..panels.end.min(first + at_once);
            for start in (0..channels).step_by(weights.depth) {
                let depth = weights.depth.min(channels - start);
                let matrix_len = product_stride(depth);
                let (transformed, origin) = match weights.kept {
                    Some(kept) => (kept, 0),
                    None => {
                        for (panel, room) in group.clone().zip(room.chunks_exact_mut(products * matrix_len)) {
                            of.panel_transform::<T, W, S>(panel, start..start + depth, room).run::<L>();
                        }
                        (&*room, first)
                    }
                };
                let windows = &windows[start * products * count..];
                // One matrix of transformed windows stays in the second cache meanwhile.
                for (product, panel) in
                    (0..products).flat_map(|product| group.clone().map(move |panel| (product, panel)))
                {
                    let packed = &transformed[((panel - origin) * products + product) * matrix_len..][..matrix_len];
                    for block in 0..blocks {
                        let to = ((panel - first) * blocks + block) * products + product;
                        let rows = ROWS.min(count - block * ROWS);
                        let start_of_rows = (product * count + block * ROWS) * depth;
                        let left = Block {
                            left: windows,
                            starts: [
                                start_of_rows,
                                if rows > GROUP_ROWS { start_of_rows + GROUP_ROWS * depth } else { 0 },
                            ],
                            rows: [rows.min(GROUP_ROWS), rows.saturating_sub(GROUP_ROWS)],
                            stride: depth,
                            taps: &[0],
                            depth,
                            panels: &[packed],
                            ahead: &[],
                        };
                        E::multiply(&mut unit, &left, start > 0, &mut [&mut sums[to].sums]);
                    }
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
        let tiled = self.tiled();
        let mut after: Option<(usize, PanelEpilogue<'_, L>)> = None;
        let (mut lines, mut pixels) = ([[L::zero(); S]; W], [[[0.0; COLUMNS]; S]; S]);
        for (row, tile) in tiles.enumerate() {
            let (image, y, x) = tiled.place(tile, S);
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
