//! Operators of our own at the shapes of Stable Diffusion 1.5 at 512×512 pixels, on one thread.
//!
//! ```sh
//! cargo bench --bench kernels                      # all of it
//! cargo bench --bench kernels -- product --quick   # matrix products
//! ```
//!
//! Throughput is in operations a second, two a multiplication: "Gelem/s" are GFLOP/s. Beside a shape are the instruction sets
//! that this processor has; the product of 32x32x256, whose operands are in the first cache, is a measure of what the machine
//! can do.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use ldm_ort::kernels::{
    Activation, Attention, Element, Epilogue, FilteredConvolution, Filtering, GroupNorm, Heads, ImageConvolution,
    InstructionSet, Int8Product, Multiplied, Number, OneThread, PanelShape, Product, ProductRows, pack_int8,
};

/// Numbers between -0.5 and 0.5.
fn numbers<E: Number>(count: usize) -> Vec<E> {
    (0..count).map(|at| E::from_f32((at * 7919 % 1009) as f32 / 1009.0 - 0.5)).collect()
}

/// The instruction sets of this processor that have a form of their own for `E`.
fn sets<E: Multiplied>() -> impl Iterator<Item = InstructionSet> {
    let is_own =
        |set: &InstructionSet| set.is_available() && *set > InstructionSet::Portable && E::supported(*set) == *set;
    InstructionSet::ALL.into_iter().filter(is_own)
}

fn product<E: Element>(criterion: &mut Criterion, [rows, columns, depth]: [usize; 3], activation: Activation) {
    let (left, packed) = (numbers::<E>(rows * depth), numbers::<E>(columns.next_multiple_of(32) * depth));
    let (bias, residual) = (numbers::<f32>(columns), numbers::<f32>(rows * columns));
    let shape = PanelShape { columns, taps: 1, depth };
    let residual = (activation == Activation::Identity).then_some(&residual[..]);
    let epilogue = Epilogue { bias: Some(&bias), residual, activation, ..Epilogue::default() };
    let product =
        Product { left: &left, rows: ProductRows::of_matrix(rows, rows, depth), packed: &packed, shape, epilogue };
    let mut out = vec![0.0f32; rows * columns];
    let mut group = criterion.benchmark_group(format!("product {}", E::TYPE.name()));
    group.throughput(Throughput::Elements(2 * (rows * columns * depth) as u64));
    for set in sets::<E>() {
        let name = format!("{rows}x{columns}x{depth} {}", activation.name());
        group.bench_function(BenchmarkId::new(name, set.name()), |bench| {
            bench.iter(|| product.run(set, &OneThread, black_box(&mut out)));
        });
    }
}

/// A linear layer in int8 of bfloat16 operands, with their conversion.
fn int8_product(criterion: &mut Criterion, [rows, columns, depth]: [usize; 3]) {
    let (left, right) = (numbers::<bf16>(rows * depth), numbers::<f32>(columns * depth));
    let shape = PanelShape { columns, taps: 1, depth };
    let packed = pack_int8(shape, |column, at| right[column * depth + at]);
    let epilogue = Epilogue::default();
    let product = Int8Product { left: &left, rows_per_image: rows, packed: &packed, shape, epilogue };
    let mut out = vec![0.0f32; rows * columns];
    let mut group = criterion.benchmark_group("product int8");
    group.throughput(Throughput::Elements(2 * (rows * columns * depth) as u64));
    for set in sets::<u8>() {
        group.bench_function(BenchmarkId::new(format!("{rows}x{columns}x{depth}"), set.name()), |bench| {
            bench.iter(|| product.run(set, &OneThread, black_box(&mut out)));
        });
    }
}

fn products(criterion: &mut Criterion) {
    for shape in [
        [32, 32, 256],
        [4096, 320, 320],
        [1024, 640, 640],
        [256, 1280, 1280],
        [4096, 320, 1280],
        [77, 320, 768],
        [1024, 3072, 3072],
        [1024, 3072, 12288],
    ] {
        product::<f32>(criterion, shape, Activation::Identity);
        product::<bf16>(criterion, shape, Activation::Identity);
        int8_product(criterion, shape);
    }
    product::<bf16>(criterion, [4096, 1280, 320], Activation::Gelu);
}

fn convolution<E: Element>(criterion: &mut Criterion, side: usize, channels: usize, upsamples: bool) {
    let (height, width) = (side + 2, side + 2);
    let convolution =
        ImageConvolution { batch: 1, height, width, channels, stride: 1, offset: 0, upsamples, pixels: 1 };
    let image = numbers::<E>((side + 2) * (side + 2) * channels);
    let packed = numbers::<E>(convolution.packed_len::<E>(channels));
    let Some((height, width)) = convolution.out_size() else { return };
    let mut out = vec![0.0f32; height * width * channels];
    let taps = if upsamples { 4 } else { 9 };
    let mut group = criterion.benchmark_group(format!("convolution {}", E::TYPE.name()));
    group.throughput(Throughput::Elements(2 * (out.len() * channels * taps) as u64));
    for set in sets::<E>() {
        let name = format!("{side}x{side}x{channels}{}", if upsamples { " upsampled" } else { "" });
        group.bench_function(BenchmarkId::new(name, set.name()), |bench| {
            bench.iter(|| {
                let operands = (&image[..], &packed[..], channels);
                convolution.run(operands, Epilogue::default(), set, &OneThread, black_box(&mut out));
            });
        });
    }
}

/// Throughput is in operations of the convolution itself, of which minimal filtering does fewer.
fn filtered<E: Element>(criterion: &mut Criterion, filtering: Filtering, side: usize, channels: usize) {
    let image = numbers::<E>((side + 2) * (side + 2) * channels);
    let packed = numbers::<E>(9 * channels * channels);
    let convolution = FilteredConvolution {
        filtering,
        image: &image,
        batch: 1,
        height: side,
        width: side,
        channels,
        packed: &packed,
        columns: channels,
        epilogue: Epilogue::default(),
    };
    let mut out = vec![0.0f32; side * side * channels];
    let mut group = criterion.benchmark_group(format!("filtering {}", E::TYPE.name()));
    group.throughput(Throughput::Elements(2 * (out.len() * channels * 9) as u64));
    for set in sets::<E>() {
        let tile = filtering.tile();
        let name = format!("{side}x{side}x{channels} F({tile}x{tile})");
        group.bench_function(BenchmarkId::new(name, set.name()), |bench| {
            bench.iter(|| convolution.run(set, &OneThread, black_box(&mut out)));
        });
    }
}

fn convolutions(criterion: &mut Criterion) {
    for (side, channels) in [(64, 320), (32, 640), (16, 1280), (8, 1280), (128, 512), (256, 256), (512, 128)] {
        for filtering in [Filtering::Two, Filtering::Three, Filtering::Four] {
            filtered::<f32>(criterion, filtering, side, channels);
            filtered::<bf16>(criterion, filtering, side, channels);
        }
    }
    for (side, channels) in [(64, 320), (32, 640), (16, 1280), (8, 1280), (128, 512)] {
        convolution::<f32>(criterion, side, channels, false);
        convolution::<bf16>(criterion, side, channels, false);
    }
    convolution::<bf16>(criterion, 32, 640, true);
}

fn attention<E: Element>(criterion: &mut Criterion, queries: usize, keys: usize, heads: usize, width: usize) {
    let stride = heads * width;
    let (q, k, v) = (numbers::<E>(queries * stride), numbers::<E>(keys * stride), numbers::<E>(keys * stride));
    let attention = Attention {
        mask: None,
        queries: Heads { values: &q, rows: queries, stride },
        keys: Heads { values: &k, rows: keys, stride },
        values: Heads { values: &v, rows: keys, stride },
        batch: 1,
        heads,
        width,
        scale: 1.0 / (width as f32).sqrt(),
    };
    let mut out = vec![E::default(); queries * stride];
    let mut group = criterion.benchmark_group(format!("attention {}", E::TYPE.name()));
    group.throughput(Throughput::Elements(4 * (queries * keys * stride) as u64));
    for set in sets::<E>() {
        group.bench_function(BenchmarkId::new(format!("{queries}x{keys} {heads}x{width}"), set.name()), |bench| {
            bench.iter(|| attention.run(set, &OneThread, black_box(&mut out)));
        });
    }
}

fn attentions(criterion: &mut Criterion) {
    for (queries, keys, heads, width) in
        [(4096, 4096, 8, 40), (1024, 1024, 8, 80), (256, 256, 8, 160), (4096, 77, 8, 40)]
    {
        attention::<f32>(criterion, queries, keys, heads, width);
        attention::<bf16>(criterion, queries, keys, heads, width);
    }
}

fn norms(criterion: &mut Criterion) {
    let (side, channels) = (64, 320);
    let image = numbers::<f32>(side * side * channels);
    let (scale, shift) = (numbers::<f32>(channels), numbers::<f32>(channels));
    let norm = GroupNorm {
        images: [(&image, channels), (&[], 0)],
        batch: 1,
        height: side,
        width: side,
        groups: 32,
        epsilon: 1e-5,
        scale: &scale,
        shift: &shift,
        activation: Activation::Silu,
        has_border: true,
    };
    let mut out = vec![bf16::ZERO; (side + 2) * (side + 2) * channels];
    let mut group = criterion.benchmark_group("group norm");
    group.throughput(Throughput::Bytes(4 * image.len() as u64));
    for set in sets::<f32>() {
        group.bench_function(BenchmarkId::new(format!("{side}x{side}x{channels}"), set.name()), |bench| {
            bench.iter(|| norm.run(set, &OneThread, black_box(&mut out)));
        });
    }
}

criterion_group!(benches, products, convolutions, attentions, norms);
criterion_main!(benches);
