//! Packed latents, Flux's form of a sample: each patch of 2×2 latents, in all channels, is one token of a sequence.

use ndarray::{Array2, ArrayView4, Axis, Slice};

/// The side of a patch of latents that is one token.
pub(super) const SIDE: usize = 2;

/// Packs `[n, m · c, h, w]`, `m` images of c channels one after the other, into `out` as the row-major
/// `[n, m · h/2 · w/2, 4 c]`, which has as many values: tokens image by image and row by row, and within each token,
/// channel by channel, the two rows of the patch (diffusers' `FluxPipeline._pack_latents`). Height and width are even.
pub(super) fn pack(sample: ArrayView4<'_, f32>, images: usize, out: &mut [f32]) {
    let (_, channels, height, width) = sample.dim();
    let c = channels / images.max(1);
    let (columns, values) = (width / SIDE, c * SIDE * SIDE);
    let images = sample.outer_iter().flat_map(|row| {
        let parts = (0..images).map(move |at| Slice::from(at * c..(at + 1) * c));
        parts.map(move |part| row.slice_axis_move(Axis(0), part))
    });
    for (planes, out) in images.zip(out.chunks_exact_mut((c * height * width).max(1))) {
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

/// Unpacks the first of `m` images in each row of `packed`, the row-major `[n, m · h/2 · w/2, 4 c]`, into `out` as
/// `[n, c, h, w]`.
pub(super) fn unpack(packed: &[f32], images: usize, [c, height, width]: [usize; 3], out: &mut [f32]) {
    let (columns, values) = (width / SIDE, c * SIDE * SIDE);
    let each = (c * height * width).max(1);
    for (packed, out) in packed.chunks_exact(images * each).zip(out.chunks_exact_mut(each)) {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let (channel, row) = (row / height, row % height);
            for (column, out) in out.iter_mut().enumerate() {
                let token = row / SIDE * columns + column / SIDE;
                *out = packed[token * values + (channel * SIDE + row % SIDE) * SIDE + column % SIDE];
            }
        }
    }
}

/// Returns the position ids of the tokens of `images` latents of this size, `[m · h/2 · w/2, 3]`: image, row and
/// column.
pub(super) fn position_ids(images: usize, height: usize, width: usize) -> Array2<f32> {
    let columns = width / SIDE;
    let each = height / SIDE * columns;
    Array2::from_shape_fn((images * each, 3), |(token, number)| match number {
        0 => (token / each) as f32,
        1 => (token % each / columns) as f32,
        _ => (token % columns) as f32,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4, array, concatenate, s};

    use super::*;

    #[test]
    fn a_token_is_a_patch_in_every_channel() {
        let sample = Array4::from_shape_fn((2, 3, 4, 6), |(n, c, y, x)| (n * 1000 + c * 100 + y * 10 + x) as f32);
        let mut packed = Array3::zeros((2, 6, 12));
        pack(sample.view(), 1, packed.as_slice_mut().unwrap());
        // The second patch of the second row of the second sample.
        let token = packed.slice(s![1, 4, ..]);
        let expected = [1022, 1023, 1032, 1033, 1122, 1123, 1132, 1133, 1222, 1223, 1232, 1233].map(|v| v as f32);
        assert_eq!(token.to_vec(), expected);
    }

    #[test]
    fn unpacking_undoes_packing() {
        let sample = Array4::from_shape_fn((2, 3, 4, 10), |(n, c, y, x)| (n * 1000 + c * 100 + y * 10 + x) as f32);
        let (mut packed, mut out) = (vec![0.0; sample.len()], vec![0.0; sample.len()]);
        pack(sample.view(), 1, &mut packed);
        unpack(&packed, 1, [3, 4, 10], &mut out);
        assert_eq!(out, sample.as_slice().unwrap());
    }

    #[test]
    fn a_second_image_adds_tokens() {
        let sample = Array4::from_shape_fn((2, 3, 4, 6), |(n, c, y, x)| (n * 1000 + c * 100 + y * 10 + x) as f32);
        let both = concatenate![Axis(1), sample, -&sample];
        let (mut one, mut packed) = (Array3::zeros((2, 6, 12)), Array3::zeros((2, 12, 12)));
        pack(sample.view(), 1, one.as_slice_mut().unwrap());
        pack(both.view(), 2, packed.as_slice_mut().unwrap());
        assert_eq!(packed, concatenate![Axis(1), one, -&one]);
        let mut out = vec![0.0; sample.len()];
        unpack(packed.as_slice().unwrap(), 2, [3, 4, 6], &mut out);
        assert_eq!(out, sample.as_slice().unwrap());
        let ids = position_ids(2, 4, 6);
        assert_eq!(ids.slice(s![6.., 1..]), ids.slice(s![..6, 1..]));
        assert_eq!(ids.column(0).to_vec(), [[0.0; 6], [1.0; 6]].concat());
    }

    #[test]
    fn tokens_are_in_row_major_order() {
        let ids = position_ids(1, 4, 6);
        let expected = array![[0., 0., 0.], [0., 0., 1.], [0., 0., 2.], [0., 1., 0.], [0., 1., 1.], [0., 1., 2.]]
            .mapv(|v| v as f32);
        assert_eq!(ids, expected);
    }
}
