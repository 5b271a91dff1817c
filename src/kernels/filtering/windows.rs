//! The transform of windows.

use std::marker::PhantomData;
use std::ops::Range;

use super::transform::Transform;
use crate::kernels::instruction_set::Work;
use crate::kernels::lane::Lane;
use crate::kernels::threads::Parts;
use crate::kernels::tile::Element;
use crate::kernels::tile_size::LANES;

/// Images with a border of one pixel, of which tiles of a result are made.
#[derive(Debug, Clone, Copy)]
pub struct TiledImages<'a, E> {
    /// The images, `[batch, height, width, channels]`.
    pub image: &'a [E],
    /// The height of the result.
    pub height: usize,
    /// The width of the result.
    pub width: usize,
    /// The channels.
    pub channels: usize,
    /// How many times as high and wide the result is as an image without its border.
    pub times_larger: usize,
}

impl<E> TiledImages<'_, E> {
    /// The height and width of an image, with its border.
    pub fn size(&self) -> (usize, usize) {
        (self.height / self.times_larger + 2, self.width / self.times_larger + 2)
    }

    /// The image of a tile, and the first row and column of the tile in the result.
    #[inline(always)]
    pub fn place(&self, tile: usize, side: usize) -> (usize, usize, usize) {
        let (down, across) = (self.height.div_ceil(side), self.width.div_ceil(side));
        (tile / (down * across), tile / across % down * side, tile % across * side)
    }

    /// The beginnings of the pixels of a tile's window. Where the window of a last tile goes beyond the border, they are the
    /// first pixel of the border: what is made of them is not in the result.
    #[inline(always)]
    fn window<const W: usize, const S: usize>(&self, tile: usize) -> [[usize; W]; W] {
        let ((lines, row), times) = (self.size(), self.times_larger);
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

/// Transforms windows, by block of depths to `[products, tiles, depth]`.
pub struct Forward<'t, 'a, T, E, const W: usize, const S: usize> {
    /// The images.
    pub of: TiledImages<'a, E>,
    /// The tiles that `out` has room for.
    pub all: Range<usize>,
    /// The depths of a block.
    pub depth: usize,
    /// The tiles that this task transforms.
    pub tiles: Range<usize>,
    /// Room for the windows of all of them.
    pub out: &'t Parts<'t, E>,
    /// The transform.
    pub transform: PhantomData<T>,
}

impl<T: Transform<W, S>, E: Element, const W: usize, const S: usize> Work for Forward<'_, '_, T, E, W, S> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { of, all, depth, tiles, out, .. } = self;
        let channels = of.channels;
        // Out here, so that it is not filled with zeros each time.
        let mut window = [[L::zero(); W]; W];
        for tile in tiles {
            let starts = of.window::<W, S>(tile);
            for first in (0..channels).step_by(LANES) {
                let count = LANES.min(channels - first);
                let block = first / depth * depth;
                let depth = depth.min(channels - block);
                let step = all.len() * depth;
                let to = block * W * W * all.len() + (tile - all.start) * depth + first - block;
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
                        lane.write(unsafe { out.range((wy * W + wx) * step + to, count) });
                    }
                }
            }
        }
    }
}
