//! Flux's form of a sample: each square of two by two latents, in all channels, is one token of a sequence.

use ndarray::{Array2, ArrayView4};

/// The side of a square of latents that is one token.
pub(super) const SIDE: usize = 2;

/// Writes `[n, c, h, w]` to `out` as the row-major `[n, h/2 · w/2, 4 c]`, which has as many values: tokens row by row,
/// and in each of them, channel by channel, the square's two rows (diffusers' `FluxPipeline._pack_latents`). Height and
/// width are even.
pub(super) fn pack(sample: ArrayView4<'_, f32>, out: &mut [f32]) {
    let (_, c, height, width) = sample.dim();
    let (columns, values) = (width / SIDE, c * SIDE * SIDE);
    for (planes, out) in sample.outer_iter().zip(out.chunks_exact_mut((c * height * width).max(1))) {
        for (channel, plane) in planes.outer_iter().enumerate() {
            for (y, row) in plane.outer_iter().enumerate() {
                for (x, &value) in row.iter().enumerate() {
                    let token = y / SIDE * columns + x / SIDE;
                    out[token * values + (channel * SIDE + y % SIDE) * SIDE + x % SIDE] = value;
                }
            }
        }
    }
}

/// Writes the row-major `[n, h/2 · w/2, 4 c]` of `packed` to `out` as `[n, c, h, w]`, which has as many values.
pub(super) fn unpack(packed: &[f32], [c, height, width]: [usize; 3], out: &mut [f32]) {
    let (columns, values) = (width / SIDE, c * SIDE * SIDE);
    let each = c * height * width;
    for (packed, out) in packed.chunks_exact(each.max(1)).zip(out.chunks_exact_mut(each.max(1))) {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let (channel, row) = (row / height, row % height);
            for (column, out) in out.iter_mut().enumerate() {
                let token = row / SIDE * columns + column / SIDE;
                *out = packed[token * values + (channel * SIDE + row % SIDE) * SIDE + column % SIDE];
            }
        }
    }
}

/// Where the tokens of latents of this size stand, `[h/2 · w/2, 3]`: 0, the row, the column.
pub(super) fn places(height: usize, width: usize) -> Array2<f32> {
    let columns = width / SIDE;
    Array2::from_shape_fn((height / SIDE * columns, 3), |(token, number)| match number {
        1 => (token / columns) as f32,
        2 => (token % columns) as f32,
        _ => 0.0,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4, array};

    use super::*;

    #[test]
    fn a_token_is_a_square_in_every_channel() {
        let sample = Array4::from_shape_fn((2, 3, 4, 6), |(n, c, y, x)| (n * 1000 + c * 100 + y * 10 + x) as f32);
        let mut packed = Array3::zeros((2, 6, 12));
        pack(sample.view(), packed.as_slice_mut().unwrap());
        // The second square of the second row of the second sample.
        let token = packed.slice(ndarray::s![1, 4, ..]);
        let expected = [1022, 1023, 1032, 1033, 1122, 1123, 1132, 1133, 1222, 1223, 1232, 1233].map(|v| v as f32);
        assert_eq!(token.to_vec(), expected);
    }

    #[test]
    fn unpacking_undoes_packing() {
        let sample = Array4::from_shape_fn((2, 3, 4, 10), |(n, c, y, x)| (n * 1000 + c * 100 + y * 10 + x) as f32);
        let (mut packed, mut out) = (vec![0.0; sample.len()], vec![0.0; sample.len()]);
        pack(sample.view(), &mut packed);
        unpack(&packed, [3, 4, 10], &mut out);
        assert_eq!(out, sample.as_slice().unwrap());
    }

    #[test]
    fn tokens_stand_row_by_row() {
        let places = places(4, 6);
        let expected = array![[0., 0., 0.], [0., 0., 1.], [0., 0., 2.], [0., 1., 0.], [0., 1., 1.], [0., 1., 2.]]
            .mapv(|v| v as f32);
        assert_eq!(places, expected);
    }
}
