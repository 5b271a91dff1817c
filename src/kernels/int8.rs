//! Operands of linear layers in int8, with a scale for each strip of the depth.
//!
//! A number is `scale · q` with `q` from -127 to 127, and `scale` the largest magnitude of its strip by 127. A strip has up to
//! [`MOST`] values, so that large numbers in one strip take no digits from the others. A row of the left operand holds for each
//! strip a header of [`HEADER`] bytes (the scale, in float32, and four zeros), and after it the bytes `q + 128`. A panel of the
//! right operand holds for each strip as much for each of its columns: the scales of all of them, in float32; `-128 · Σq` of
//! each, which takes the 128 out of the sums, in int32; and after them all `q`, four depths of a column side by side.

use super::number::OperandValue;
use super::pack::PanelShape;
use super::tile_size::COLUMNS;

/// Bytes before a strip.
pub const HEADER: usize = 8;
/// Values of the longest strip: those of two panels stay in the first cache.
const MOST: usize = 384;
/// The length of a strip is a multiple of this.
const STEP: usize = 16;
/// The largest magnitude of a value.
pub const LARGEST: f32 = 127.0;

impl OperandValue for u8 {
    const GROUP: usize = 4;

    fn padded(depth: usize) -> usize {
        let strips = depth.div_ceil(MOST).max(1);
        strips * (HEADER + depth.div_ceil(strips).next_multiple_of(STEP))
    }
}

/// The bytes of a strip with its header, in an operand whose depth takes `padded` bytes.
pub fn strip(padded: usize) -> usize {
    padded / padded.div_ceil(HEADER + MOST).max(1)
}

/// Packs a right operand of one tap whose value for a column and a depth is `value`.
pub fn pack_int8(shape: PanelShape, value: impl Fn(usize, usize) -> f32) -> Vec<u8> {
    let panel_len = shape.panel_len::<u8>();
    let strip = strip(shape.padded_depth::<u8>());
    let values = strip - HEADER;
    let mut packed = vec![0; shape.packed_len::<u8>()];
    for column in 0..shape.columns {
        let (panel, within) = (column / COLUMNS, column % COLUMNS);
        for (number, first) in (0..shape.depth).step_by(values).enumerate() {
            let of_strip: Vec<f32> = (first..shape.depth.min(first + values)).map(|at| value(column, at)).collect();
            // A number that is none is the largest, and makes the scale and the products so.
            let largest = of_strip.iter().map(|x| x.abs()).max_by(f32::total_cmp).unwrap_or(0.0);
            let factor = if largest > 0.0 { LARGEST / largest } else { 0.0 };
            let packed = &mut packed[panel * panel_len + number * strip * COLUMNS..][..strip * COLUMNS];
            let (scales, rest) = packed.split_at_mut(4 * COLUMNS);
            let (offsets, packed) = rest.split_at_mut(4 * COLUMNS);
            let mut sum = 0;
            for (at, x) in of_strip.iter().enumerate() {
                let q = (x * factor).round_ties_even() as i8;
                packed[at / 4 * 4 * COLUMNS + within * 4 + at % 4] = q.cast_unsigned();
                sum += i32::from(q);
            }
            scales[4 * within..][..4].copy_from_slice(&(largest / LARGEST).to_le_bytes());
            offsets[4 * within..][..4].copy_from_slice(&(-128 * sum).to_le_bytes());
        }
    }
    packed
}
