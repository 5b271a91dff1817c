//! The operands of attention.

use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::lane::Lane;
use crate::kernels::number::Number;
use crate::kernels::tile::Element;
use crate::kernels::tile_size::{GROUP_ROWS, LANES};

/// Keys whose weights are made before they are multiplied with the values.
pub const KEYS: usize = 256;

/// A matrix `[batch, rows, heads * width]` within a larger one.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a, E> {
    /// The values, from the first one of the first head on.
    pub values: &'a [E],
    /// The rows of a batch entry.
    pub rows: usize,
    /// The distance of two rows, `heads * width` or more.
    pub stride: usize,
}

impl<E: Element> Heads<'_, E> {
    /// Returns the row of a head.
    #[inline(always)]
    pub fn row(&self, batch: usize, row: usize, head: usize, width: usize) -> &[E] {
        &self.values[(batch * self.rows + row) * self.stride + head * width..][..width]
    }
}

/// A mask of keys, which is added to their scores: 0, or a large negative number for a key that is masked.
#[derive(Debug, Clone, Copy)]
pub struct KeyMask<'a> {
    /// The numbers, `[batch, heads, keys]`. Those below -45426 count as that, so that such a key weighs nothing if another
    /// one is not masked.
    pub values: &'a [f32],
    /// The batch size, or 1 for a mask of all entries.
    pub batch: usize,
    /// The number of heads, or 1 for a mask of all heads.
    pub heads: usize,
}

impl KeyMask<'_> {
    /// The numbers of a head's keys.
    #[inline(always)]
    pub fn row(&self, batch: usize, head: usize, keys: usize) -> &[f32] {
        let (batch, head) = (batch.min(self.batch - 1), head.min(self.heads - 1));
        &self.values[(batch * self.heads + head) * keys..][..keys]
    }
}

/// Attention of `queries` to `keys`, and its weights times `values`.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a, E> {
    /// The queries.
    pub queries: Heads<'a, E>,
    /// The keys.
    pub keys: Heads<'a, E>,
    /// The values, one for each key.
    pub values: Heads<'a, E>,
    /// The mask that is added to the scaled scores.
    pub mask: Option<KeyMask<'a>>,
    /// The batch size.
    pub batch: usize,
    /// The number of heads.
    pub heads: usize,
    /// The width of a head.
    pub width: usize,
    /// The factor of the scores.
    pub scale: f32,
}

/// A head's operands: keys in padded rows, and transposed values in pieces of some keys, `[pieces, rows, keys of a piece]`.
#[derive(Debug, Clone, Copy)]
pub struct HeadSizes {
    /// Width of the rows of keys.
    pub key_width: usize,
    /// Numbers of the keys.
    pub keys_len: usize,
    /// Rows of transposed values.
    pub value_rows: usize,
    /// Keys of a piece of the values. Tiles of AMX are contiguous then.
    pub piece: usize,
    /// Numbers of the values.
    pub values_len: usize,
}

impl<E: Element> Attention<'_, E> {
    /// The sizes of a head's operands for an instruction set.
    pub fn sizes(&self, set: InstructionSet) -> HeadSizes {
        let (step, rows) = (E::step(set), self.keys.rows);
        let key_width = self.width.next_multiple_of(step);
        let piece = if E::supported(set) == InstructionSet::Amx { step } else { KEYS };
        let value_rows = self.width.next_multiple_of(GROUP_ROWS);
        let keys_len = rows.next_multiple_of(GROUP_ROWS) * key_width;
        HeadSizes { key_width, keys_len, value_rows, piece, values_len: rows.next_multiple_of(piece) * value_rows }
    }
}

/// The square of a row's norm.
#[inline(always)]
pub fn square<L: Lane, E: Number>(row: &[E]) -> f32 {
    let mut squares = L::zero();
    for part in row.chunks(LANES) {
        let part = L::read(part);
        squares = squares.plus_times(part, part);
    }
    squares.values().iter().sum()
}

/// The larger of two numbers, or NaN if one of them is.
#[inline(always)]
pub fn larger_or_nan(one: f32, other: f32) -> f32 {
    if one.is_nan() || one > other { one } else { other }
}
