//! Minimal filtering against the convolution in float64.

use half::bf16;

use super::{everywhere, numbers, operands, places};
use crate::kernels::{Element, Epilogue, FilteredConvolution, Filtering, InstructionSet, OneThread, Threads};

fn convolution<E: Element>(
    filtering: Filtering,
    bound: f64,
    [batch, height, width]: [usize; 3],
    (columns, channels): (usize, usize),
) {
    let upsamples = filtering == Filtering::Doubled;
    // The portable form adds all products of a value one by one.
    let bound = if channels > 100 { 2.0 * bound } else { bound };
    let channels = if E::STEP > 1 { channels } else { channels + 5 };
    let (lines, row) = if upsamples { (height / 2 + 2, width / 2 + 2) } else { (height + 2, width + 2) };
    let image = operands::<E>(batch * lines * row * channels, 1);
    let weights = numbers(columns * channels * 9, 2);
    let (added, residual) = (numbers(batch * columns, 3), numbers(batch * height * width * columns, 4));
    let mut wanted = Vec::new();
    for (n, y, x) in places(batch, height, width) {
        for column in 0..columns {
            let mut sum = f64::from(added[n * columns + column]) + f64::from(residual[wanted.len()]);
            for tap in 0..9 {
                let (mut from_y, mut from_x) = (y + tap / 3, x + tap % 3);
                if upsamples {
                    (from_y, from_x) = (from_y.div_ceil(2), from_x.div_ceil(2));
                }
                let pixel = ((n * lines + from_y) * row + from_x) * channels;
                let terms = (0..channels).map(|at| {
                    f64::from(image[pixel + at].to_f32()) * f64::from(weights[(column * channels + at) * 9 + tap])
                });
                sum += terms.sum::<f64>();
            }
            wanted.push(sum);
        }
    }
    let epilogue = Epilogue { added: Some(&added), residual: Some(&residual), ..Epilogue::default() };
    let without = FilteredConvolution {
        filtering,
        image: &image,
        batch,
        height,
        width,
        channels,
        packed: &[],
        columns,
        epilogue,
    };
    let kernel = |column: usize, tap: usize, at: usize| weights[(column * channels + at) * 9 + tap];
    let packed = without.weights().pack::<E>(kernel);
    let convolution = FilteredConvolution { packed: &packed, ..without };
    everywhere::<E>(&format!("{filtering:?} {height}x{width}"), bound, &wanted, |set, threads, out| {
        convolution.run(set, threads, out);
    });
}

/// No image, whole tiles and parts of them, few, several and many, several images, panels that are not full, and so many channels that
/// weights are transformed in blocks.
#[test]
fn filtered_convolutions() {
    for (sizes, width) in [
        ([0, 4, 4], (3, 32)),
        ([1, 1, 1], (3, 32)),
        ([2, 3, 5], (40, 32)),
        ([2, 8, 12], (64, 32)),
        ([1, 37, 41], (33, 32)),
        ([2, 32, 34], (32, 32)),
        ([1, 57, 61], (33, 32)),
        ([1, 5, 6], (70, 352)),
    ] {
        convolution::<f32>(Filtering::Two, 6e-7, sizes, width);
        convolution::<f32>(Filtering::Three, 1e-6, sizes, width);
        convolution::<f32>(Filtering::Four, 2e-6, sizes, width);
        convolution::<bf16>(Filtering::Two, 7e-3, sizes, width);
        convolution::<bf16>(Filtering::Three, 1e-2, sizes, width);
        // Errors cancel where there are many tiles.
        convolution::<bf16>(Filtering::Four, if sizes[1] == 57 { 2e-2 } else { 3e-2 }, sizes, width);
    }
    for (sizes, width) in [
        ([1, 2, 2], (3, 32)),
        ([2, 10, 14], (40, 32)),
        ([1, 36, 44], (33, 32)),
        ([1, 58, 62], (33, 32)),
        ([1, 6, 8], (70, 352)),
    ] {
        convolution::<f32>(Filtering::Doubled, 8e-7, sizes, width);
        convolution::<bf16>(Filtering::Doubled, 1e-2, sizes, width);
    }
}

/// More threads than there are parts of many tiles.
struct Many;

impl Threads for Many {
    fn count(&self) -> usize {
        16
    }

    fn each(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(work);
    }
}

#[test]
fn many_threads_compute_the_same() {
    let (side, channels, columns) = (60, 32, 33);
    let image = operands::<bf16>((side + 2) * (side + 2) * channels, 1);
    let without = FilteredConvolution {
        filtering: Filtering::Four,
        image: &image,
        batch: 1,
        height: side,
        width: side,
        channels,
        packed: &[],
        columns,
        epilogue: Epilogue::default(),
    };
    let packed = operands::<bf16>(without.weights().packed_len::<bf16>(), 2);
    let convolution = FilteredConvolution { packed: &packed, ..without };
    let made = |threads: &dyn Threads| {
        let mut out = vec![f32::NAN; side * side * columns];
        convolution.run(InstructionSet::best(), threads, &mut out);
        out
    };
    assert_eq!(made(&OneThread), made(&Many));
}
