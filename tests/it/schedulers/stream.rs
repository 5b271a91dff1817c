//! Noise, a formula as a model, and whole runs.

use ldm_ort::rng::{Generator, TorchCpu};
use ldm_ort::scheduler::{self, Config, Noise, ScheduleRequest, Scheduler};

pub const IMAGES: usize = 2;
pub const LENGTH: usize = 12;

/// The noise stream of the recording script: sums of twelve uniform numbers, minus six.
#[derive(Clone)]
pub struct Stream {
    seed: u64,
    count: u64,
}

impl Noise for Stream {
    fn fill(&mut self, out: &mut [f32]) {
        for value in out {
            let total: f64 = (1..=12_u64)
                .map(|j| {
                    let counter = (self.count * 12 + j).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let mut z = self.seed.wrapping_add(counter);
                    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                    z ^= z >> 31;
                    (z >> 11) as f64 * 2.0_f64.powi(-53)
                })
                .sum();
            self.count += 1;
            *value = (total - 6.0) as f32;
        }
    }

    fn seed(&self, image: usize) -> u64 {
        self.seed + image as u64
    }

    fn fill_seeded(&self, seed: u64, out: &mut [f32]) {
        TorchCpu::new(seed).normal(out);
    }
}

impl Stream {
    pub fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    pub fn take(&mut self, n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        self.fill(&mut values);
        values
    }
}

/// Evaluates the recording script's formula as a model; `learned` appends each image's variances.
pub fn model(x: &[f32], t: f64, learned: bool) -> Vec<f32> {
    let u = f64::from(t.abs() as f32) / 1000.0;
    let output = |i: usize, x: f32| {
        let x = f64::from(x);
        let pattern = ((i * 5 % 7) as f64 - 3.0) / 3.0;
        (0.6 * x + 0.3 * x / (1.0 + x * x) + 0.2 * pattern / (1.0 + u)) as f32
    };
    let variance = |x: f32| {
        let a = f64::from(x).abs();
        (a / (1.0 + a)) as f32
    };
    let size = x.len() / IMAGES;
    let mut out = Vec::new();
    for (image, sample) in x.chunks(size).enumerate() {
        out.extend(sample.iter().enumerate().map(|(i, x)| output(image * size + i, *x)));
        if learned {
            out.extend(sample.iter().map(|x| variance(*x)));
        }
    }
    out
}

pub fn difference(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().map(|v| v.abs()).fold(0.0, f32::max);
    let error = got
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, |worst, d| if d.is_nan() { f64::INFINITY } else { d.max(worst) });
    error / f64::from(largest.max(f32::MIN_POSITIVE))
}

/// Builds a scheduler with this table over its defaults.
pub fn build(name: &str, table: &Config, steps: usize) -> Box<dyn Scheduler> {
    let request = ScheduleRequest::new(steps, IMAGES);
    scheduler::build(name, None, table, &request).unwrap_or_else(|error| panic!("{name} at {steps} steps: {error}"))
}

/// Evaluates the formula once and takes the step.
pub fn step_once(scheduler: &mut dyn Scheduler, step: usize, x: &mut [f32], noise: &mut Stream) {
    let mut input = vec![0.0; x.len()];
    scheduler.scale_model_input(step, x, &mut input);
    let output = model(&input, scheduler.timesteps()[step], false);
    scheduler.step(step, &output, x, noise).expect("it steps");
}

/// Performs a whole run from a seed and returns the number of evaluations and the last sample.
pub fn run(name: &str, table: &Config, steps: usize, seed: u64) -> (usize, Vec<f32>) {
    let mut scheduler = build(name, table, steps);
    let mut stream = Stream::new(seed);
    let sigma = scheduler.init_noise_sigma() as f32;
    let mut x: Vec<f32> = stream.take(LENGTH).into_iter().map(|v| v * sigma).collect();
    let calls = scheduler.timesteps().len();
    for step in 0..calls {
        step_once(scheduler.as_mut(), step, &mut x, &mut stream);
    }
    (calls, x)
}
