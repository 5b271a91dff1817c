//! Every operator against float64, with every instruction set that this processor has.

use half::bf16;

use super::*;

mod attention;
mod filtering;
mod int8;
mod lanes;
mod rows;

/// Numbers between -1 and 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn operands<E: Number>(count: usize, seed: u64) -> Vec<E> {
    numbers(count, seed).into_iter().map(E::from_f32).collect()
}

fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

/// The largest difference, relative to the largest value.
fn error<O: Number>(got: &[O], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let largest = wanted.iter().fold(1e-3_f64, |largest, x| largest.max(x.abs()));
    let differences = got.iter().zip(wanted).map(|(got, wanted)| (f64::from(got.to_f32()) - wanted).abs());
    differences.fold(0.0, f64::max) / largest
}

/// Two threads, which take the tasks in turns and from the end.
struct Turns;

impl Threads for Turns {
    fn count(&self) -> usize {
        2
    }

    fn each(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..tasks).rev().step_by(2).for_each(work));
            (0..tasks).rev().skip(1).step_by(2).for_each(work);
        });
    }
}

/// Runs an operator with every set of instructions and one thread or two, and compares its results with those wanted.
fn everywhere<E: Element>(
    what: &str,
    bound: f64,
    wanted: &[f64],
    run: impl Fn(InstructionSet, &dyn Threads, &mut [f32]),
) {
    for set in sets() {
        let (mut alone, mut shared) = (vec![f32::NAN; wanted.len()], vec![f32::NAN; wanted.len()]);
        run(set, &OneThread, &mut alone);
        run(set, &Turns, &mut shared);
        let found = error(&alone, wanted);
        assert!(found < bound, "{what}, {}, {}: {found:.1e}", set.name(), E::TYPE.name());
        assert_eq!(alone, shared, "{what}, {}: other numbers with two threads", set.name());
    }
}

fn matrix<E: Element>(rows: usize, columns: usize, depth: usize) {
    let depth = depth.next_multiple_of(E::STEP);
    let left = operands::<E>(rows * depth, 1);
    let right = operands::<E>(depth * columns, 2);
    let (bias, residual) = (numbers(columns, 3), numbers(rows * columns, 4));
    let shape = PanelShape { columns, taps: 1, depth };
    let packed = shape.pack::<E>(|column, _, at| right[at * columns + column].to_f32());
    let mut wanted = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let products =
                (0..depth).map(|k| left[row * depth + k].to_f32() as f64 * right[k * columns + column].to_f32() as f64);
            let sum = products.sum::<f64>() + f64::from(bias[column]);
            wanted.push(sum / (1.0 + (-sum).exp()) + f64::from(residual[row * columns + column]));
        }
    }
    let epilogue =
        Epilogue { bias: Some(&bias), residual: Some(&residual), activation: Activation::Silu, ..Epilogue::default() };
    let rows = ProductRows::of_matrix(rows, rows, depth);
    let product = Product { left: &left, rows, packed: &packed, shape, epilogue };
    everywhere::<E>(&format!("matrix {columns}x{depth}"), 2e-6, &wanted, |set, threads, out| {
        product.run(set, threads, out)
    });
}

#[test]
fn matrix_products() {
    for (rows, columns, depth) in [
        (1, 1, 1),
        (7, 33, 40),
        (16, 32, 64),
        (33, 31, 96),
        (50, 100, 513),
        (17, 64, 300),
        (20, 70, 130),
        (33, 320, 300),
        (100, 96, 300),
    ] {
        matrix::<f32>(rows, columns, depth);
        matrix::<bf16>(rows, columns, depth);
    }
}

/// `(left · right)` by image: what is added and the gate differ from image to image, and half of the columns are gates.
#[test]
fn epilogues() {
    epilogue::<f32>();
    epilogue::<bf16>();
}

fn epilogue<E: Element>() {
    let (images, rows, columns, depth) = (2, 5, 128, 32);
    let left = operands::<E>(images * rows * depth, 1);
    let right = operands::<E>(depth * columns, 2);
    let (added, gate) = (numbers(images * columns, 3), numbers(images * columns / 2, 4));
    let shape = PanelShape { columns, taps: 1, depth };
    let packed = shape.pack::<E>(|column, _, at| right[at * columns + column].to_f32());
    let sum = |row: usize, column: usize| {
        let products = (0..depth)
            .map(|k| f64::from(left[row * depth + k].to_f32()) * f64::from(right[k * columns + column].to_f32()));
        products.sum::<f64>() + f64::from(added[row / rows * columns + column])
    };
    let mut wanted = Vec::new();
    for row in 0..images * rows {
        for column in 0..columns / 2 {
            let place = column / 16 * 32 + column % 16;
            let (value, its_gate) = (sum(row, place), sum(row, place + 16));
            let gelu = its_gate / (1.0 + (-1.702 * its_gate).exp());
            wanted.push(value * gelu * f64::from(gate[row / rows * columns / 2 + column]));
        }
    }
    let epilogue = Epilogue {
        added: Some(&added),
        gate: Some(&gate),
        activation: Activation::QuickGelu,
        is_gated: true,
        ..Epilogue::default()
    };
    let product = Product {
        left: &left,
        rows: ProductRows::of_matrix(images * rows, rows, depth),
        packed: &packed,
        shape,
        epilogue,
    };
    everywhere::<E>("epilogue", 2e-6, &wanted, |set, threads, out| product.run(set, threads, out));
}

fn convolution<E: Element>(convolution: ImageConvolution, columns: usize) {
    let ImageConvolution { batch, height, width, channels, stride, offset, upsamples, pixels } = convolution;
    let image = operands::<E>(batch * height * width * channels, 1);
    let weights = numbers(columns * channels * 9, 2);
    let weight = |column: usize, tap: usize, at: usize| weights[(column * channels + at) * 9 + tap];
    let shape = convolution.weights(columns, channels);
    let phases = if upsamples { 4 } else { 1 };
    let pack = |phase: usize| {
        shape.pack::<E>(|column, tap, at| match upsamples {
            true => merged(|place| weight(column, place, at), phase, tap),
            false => spread_weight(|column, tap| weight(column, tap, at), (columns, pixels), column, tap),
        })
    };
    let packed: Vec<E> = (0..phases).flat_map(pack).collect();
    assert_eq!(packed.len(), convolution.packed_len::<E>(columns));
    let (out_height, out_width) = convolution.out_size().unwrap();
    let (bias, added) = (numbers(columns, 3), numbers(batch * columns, 4));
    let mut wanted = Vec::new();
    for (n, y, x) in places(batch, out_height, out_width) {
        for column in 0..columns {
            let mut sum = f64::from(bias[column]) + f64::from(added[n * columns + column]);
            for tap in 0..9 {
                let (dy, dx) = (tap / 3, tap % 3);
                // Upsampled, a pixel of the bordered image is there twice, but for the border.
                let (from_y, from_x) = match upsamples {
                    true => ((y + dy).div_ceil(2), (x + dx).div_ceil(2)),
                    false => (y * stride + offset + dy, x * stride + offset + dx),
                };
                for at in 0..channels {
                    let pixel = image[((n * height + from_y) * width + from_x) * channels + at].to_f32();
                    let weight =
                        if upsamples { weight(column, tap, at) } else { E::from_f32(weight(column, tap, at)).to_f32() };
                    sum += f64::from(pixel) * f64::from(weight);
                }
            }
            wanted.push(sum);
        }
    }
    // Merged weights are rounded once, and not each of those that they are a sum of.
    let bound = if upsamples && E::TYPE == OperandType::Bf16 { 3e-3 } else { 6e-7 };
    everywhere::<E>(&format!("{convolution:?}"), bound, &wanted, |set, threads, out| {
        let epilogue = Epilogue { bias: Some(&bias), added: Some(&added), ..Epilogue::default() };
        convolution.run((&image, &packed, columns), epilogue, set, threads, out);
    });
}

fn places(batch: usize, height: usize, width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..batch).flat_map(move |n| (0..height).flat_map(move |y| (0..width).map(move |x| (n, y, x))))
}

#[test]
fn convolutions() {
    let plain = ImageConvolution {
        batch: 2,
        height: 9,
        width: 12,
        channels: 32,
        stride: 1,
        offset: 0,
        upsamples: false,
        pixels: 1,
    };
    let all = [
        (plain, 5),
        (ImageConvolution { pixels: 2, ..plain }, 16),
        (ImageConvolution { pixels: 4, width: 10, ..plain }, 8),
        (ImageConvolution { pixels: 8, width: 42, ..plain }, 3),
        (ImageConvolution { height: 5, width: 37, batch: 1, ..plain }, 40),
        (ImageConvolution { stride: 2, ..plain }, 33),
        (ImageConvolution { stride: 2, offset: 1, height: 10, ..plain }, 32),
        (ImageConvolution { upsamples: true, ..plain }, 17),
        (ImageConvolution { height: 3, width: 3, batch: 3, ..plain }, 64),
    ];
    for (shape, columns) in all {
        convolution::<f32>(ImageConvolution { channels: 7, ..shape }, columns);
        convolution::<bf16>(shape, columns);
    }
}

#[test]
fn group_norms() {
    let (batch, height, width, groups) = (2, 11, 13, 4);
    let (first, second) = (numbers(batch * height * width * 12, 1), numbers(batch * height * width * 8, 2));
    // A mean that is large beside the deviation.
    let rounded = |values: Vec<f32>| values.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
    let (first16, second16) = (rounded(first.iter().map(|x| x + 50.0).collect()), rounded(second));
    let [first, second]: [Vec<f32>; 2] =
        [&first16, &second16].map(|values| values.iter().map(|x| f32::from(*x)).collect());
    let (scale, shift) = (numbers(20, 3), numbers(20, 4));
    let pixel = |n: usize, at: usize, channel: usize| {
        let place = n * height * width + at;
        f64::from(if channel < 12 { first[place * 12 + channel] } else { second[place * 8 + channel - 12] })
    };
    for has_border in [false, true] {
        let border = usize::from(has_border);
        let (tall, wide) = (height + 2 * border, width + 2 * border);
        let mut wanted = vec![0.0; batch * tall * wide * 20];
        for (n, group) in places(1, batch, groups).map(|(_, n, group)| (n, group)) {
            let all = || (0..height * width).flat_map(|at| (0..5).map(move |c| (at, group * 5 + c)));
            let count = (height * width * 5) as f64;
            let mean = all().map(|(at, c)| pixel(n, at, c)).sum::<f64>() / count;
            let variance = all().map(|(at, c)| (pixel(n, at, c) - mean).powi(2)).sum::<f64>() / count;
            for (at, c) in all() {
                let x = (pixel(n, at, c) - mean) / (variance + 1e-5).sqrt() * f64::from(scale[c]) + f64::from(shift[c]);
                let place = (n * tall + at / width + border) * wide + at % width + border;
                wanted[place * 20 + c] = x / (1.0 + (-x).exp());
            }
        }
        let norm = GroupNorm {
            images: [(&first, 12), (&second, 8)],
            batch,
            height,
            width,
            groups,
            epsilon: 1e-5,
            scale: &scale,
            shift: &shift,
            activation: Activation::Silu,
            has_border,
        };
        // Of the numbers near 50 float32 keeps only 4e-6.
        everywhere::<f32>("group norm", 1e-5, &wanted, |set, threads, out| norm.run(set, threads, out));
        let GroupNorm { scale, shift, activation, epsilon, .. } = norm;
        let images = [(&first16[..], 12), (&second16[..], 8)];
        let norm = GroupNorm { images, batch, height, width, groups, epsilon, scale, shift, activation, has_border };
        everywhere::<bf16>("group norm", 1e-5, &wanted, |set, threads, out| norm.run(set, threads, out));
    }
}

#[test]
fn operands_have_a_border_and_a_padding() {
    let image: Vec<f32> = (1..=2 * 2 * 3 * 2).map(|x| x as f32).collect();
    for set in sets() {
        let operand = OperandCopy { rows: &image, depth: 2, padded: 3, lines: 4, border: Some((2, 3)) };
        let mut out = vec![f32::NAN; 2 * 4 * 5 * 3];
        operand.write(set, &Turns, &mut out);
        for (n, y, x) in places(2, 4, 5) {
            let pixel = &out[((n * 4 + y) * 5 + x) * 3..][..3];
            let is_inner = (1..3).contains(&y) && (1..4).contains(&x);
            let first = if is_inner { (((n * 2 + y - 1) * 3 + x - 1) * 2 + 1) as f32 } else { 0.0 };
            let wanted = if is_inner { [first, first + 1.0, 0.0] } else { [0.0; 3] };
            assert_eq!(pixel, wanted, "{n} {y} {x}");
        }
    }
}
