//! The cost of a run outside its graphs: guidance, scheduler, conversions, images.
//!
//! ```sh
//! cargo bench --bench host                     # all of it
//! cargo bench --bench host -- loop --quick     # a step of the denoising loop without the graph
//! ```
//!
//! Latents are those of one image of 512×512 pixels, 4×64×64, and of 1024×1024, 4×128×128. The cost of a UNet
//! evaluation on the same machine is in docs/performance.md.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use half::slice::HalfFloatSliceExt;
use ldm_ort::Result;
use ldm_ort::denoise::{BatchNoise, Call, Denoiser, Guidance, denoise};
use ldm_ort::image::{Rgb8, encode_png, from_tensor};
use ldm_ort::rng::{Generator, Stream, TorchCpu};
use ldm_ort::scheduler::{self, Config, ScheduleRequest, Scheduler};
use ndarray::{ArrayD, IxDyn};

/// The sides of the latents of images of 512×512 and of 1024×1024 pixels.
const SIDES: [usize; 2] = [64, 128];
const SCHEDULERS: [&str; 8] = ["ddim", "ddpm", "euler", "euler-ancestral", "heun", "pndm", "dpm-multistep", "unipc"];
const STEPS: usize = 20;

fn normal(length: usize) -> Vec<f32> {
    let mut values = vec![0.0; length];
    TorchCpu::new(0).normal(&mut values);
    values
}

fn guidance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("guidance");
    for side in SIDES {
        let length = 4 * side * side;
        let (predictions, mut out) = (normal(3 * length), vec![0.0; length]);
        group.throughput(Throughput::Elements(length as u64));
        for (name, guidance) in [
            ("2 branches", Guidance::classifier_free(7.5, 0.0)),
            ("2 branches, rescaled", Guidance::classifier_free(7.5, 0.7)),
            ("3 branches", Guidance::Instruct { text: 7.5, image: 1.5 }),
        ] {
            group.bench_function(BenchmarkId::new(name, side), |bencher| {
                bencher.iter(|| guidance.combine(black_box(&predictions), 1, black_box(&mut out)));
            });
        }
    }
}

fn build(name: &str) -> Box<dyn Scheduler> {
    scheduler::build(name, None, &Config::new(), &ScheduleRequest::new(STEPS, 1)).expect("the defaults are right")
}

/// Measures a whole schedule of 20 steps, including the scheduler's noise.
fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("20 steps");
    for side in SIDES {
        let (start, output) = (normal(4 * side * side), normal(4 * side * side));
        for name in SCHEDULERS {
            group.bench_function(BenchmarkId::new(name, side), |bencher| {
                let setup = || (build(name), BatchNoise::new(Stream::TorchCpu, &[0]), start.clone());
                bencher.iter_batched_ref(
                    setup,
                    |(scheduler, noise, x)| {
                        for call in 0..scheduler.timesteps().len() {
                            scheduler
                                .step(call, &output, x, noise)
                                .expect("the model output matches the configuration");
                        }
                    },
                    criterion::BatchSize::LargeInput,
                );
            });
        }
    }
}

/// A guided denoiser without a graph.
struct Graphless {
    input: Vec<f32>,
    output: Vec<f32>,
    guidance: Guidance,
}

impl Denoiser for Graphless {
    fn predict(&mut self, sample: &[f32], _: Call, prediction: &mut [f32]) -> Result<()> {
        self.input.chunks_mut(sample.len()).for_each(|row| row.copy_from_slice(sample));
        // The runtime's output is copied to guidance's input.
        black_box(&mut self.output).copy_from_slice(black_box(&self.input));
        self.guidance.combine(&self.output, 1, prediction);
        Ok(())
    }

    fn evaluations(&self) -> usize {
        0
    }
}

/// Measures the loop of 20 steps with a graph that takes no time.
fn whole_loop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("loop of 20 steps");
    for side in SIDES {
        let length = 4 * side * side;
        let start = ArrayD::from_shape_vec(IxDyn(&[1, 4, side, side]), normal(length)).expect("a sample");
        for name in ["euler", "euler-ancestral", "unipc"] {
            group.bench_function(BenchmarkId::new(name, side), |bencher| {
                let guidance = Guidance::classifier_free(7.5, 0.0);
                let mut model = Graphless { input: vec![0.0; 2 * length], output: vec![0.0; 2 * length], guidance };
                let setup = || (build(name), BatchNoise::new(Stream::TorchCpu, &[0]), start.clone());
                bencher.iter_batched_ref(
                    setup,
                    |(scheduler, noise, x)| {
                        let calls = 0..scheduler.timesteps().len();
                        let watch = &mut |_: ldm_ort::denoise::Step<'_>| {};
                        denoise(&mut model, scheduler.as_mut(), x, calls, None, noise, watch).expect("it runs");
                    },
                    criterion::BatchSize::LargeInput,
                );
            });
        }
    }
}

/// Measures the conversions of inputs and outputs for graphs in 16-bit floats.
fn halves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("f32 to f16 to f32");
    for side in SIDES {
        let mut values = normal(4 * side * side);
        let mut halves = vec![f16::ZERO; values.len()];
        group.throughput(Throughput::Elements(values.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(side), |bencher| {
            bencher.iter(|| {
                halves.convert_from_f32_slice(black_box(&values));
                black_box(&halves).convert_to_f32_slice(&mut values);
            });
        });
    }
}

/// Creates an image with edges, gradients and a little noise, in [-1, 1]: `[1, 3, side, side]`.
fn image(side: usize) -> ArrayD<f32> {
    let noise = normal(3 * side * side);
    let mut tensor = ArrayD::from_shape_fn(IxDyn(&[1, 3, side, side]), |at| {
        let (c, y, x) = (at[1] as f32, at[2] as f32 / side as f32, at[3] as f32 / side as f32);
        let disc = if (x - 0.5).hypot(y - 0.4) < 0.25 { 0.6 } else { 0.0 };
        (7.0 * x + c).sin() * 0.4 + (5.0 * y - c).cos() * 0.3 + disc
    });
    tensor.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.01 * noise);
    tensor
}

fn images(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("image");
    group.sample_size(20);
    for side in [512, 1024] {
        let tensor = image(side);
        group.bench_function(BenchmarkId::new("from tensor", side), |bencher| {
            bencher.iter(|| from_tensor(black_box(tensor.view())));
        });
        let pixels: Rgb8 = from_tensor(tensor.view()).expect("an image");
        let texts = [("parameters", "a red circle\nSteps: 20".repeat(4)), ("ldm-ort", "{\"schema\": 1}".repeat(150))];
        group.bench_function(BenchmarkId::new("PNG", side), |bencher| {
            bencher.iter(|| encode_png(black_box(&pixels), &texts));
        });
    }
}

criterion_group!(benches, guidance, steps, whole_loop, halves, images);
criterion_main!(benches);
