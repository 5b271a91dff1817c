//! The cost of a step of each scheduler, relative to a plain pass over the arrays that it reads and writes.
//!
//! ```sh
//! cargo bench --bench scheduler            # all of them
//! cargo bench --bench scheduler -- unipc   # one
//! ```
//!
//! A sample is four latents of 4×128×128, for images of 1024×1024 pixels. Each measured `step` is followed by two plain
//! passes over arrays of that size, so that all three run with the same caches and load:
//!
//! - *same arrays*: reads and writes as many arrays as the step: sample and model output, the history and noise that it reads,
//!   the new sample, and the history that it writes. A lower bound for every method.
//! - *least*: reads sample and model output, and writes the sample.
//!
//! Drawing noise is not measured. The printed ratios are of medians.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use ldm_ort::rng::{Generator, TorchCpu};
use ldm_ort::scheduler::{self, Config, Noise, ScheduleRequest, Scheduler};

const IMAGES: usize = 4;
const LENGTH: usize = IMAGES * 4 * 128 * 128;
const STEPS: usize = 40;

/// Additional names: solvers of another order, and stochastic ones.
const VARIANTS: [&str; 2] = ["DPM++ 3M", "DPM++ 2M SDE"];

/// Returns the number of arrays that an evaluation reads besides sample and model output, and writes besides the
/// sample; `None` if they have not been counted.
fn arrays(name: &str, call: usize) -> Option<(usize, usize)> {
    Some(match (name, call.is_multiple_of(2)) {
        ("ddim" | "ddim-inverse" | "euler" | "edm-euler" | "flow-match-euler", _) => (0, 0),
        // The noise.
        ("ddpm" | "euler-ancestral" | "lcm" | "scm" | "tcd", _) => (1, 0),
        // The three previous model outputs, and the new one.
        ("pndm" | "lms" | "ipndm", _) => (3, 1),
        // Sample and derivative of the first of two evaluations.
        ("heun" | "flow-match-heun", true) => (0, 2),
        ("heun" | "flow-match-heun", false) => (2, 0),
        // The sample of the first of two evaluations, and noise.
        ("kdpm2" | "kdpm2-ancestral", true) => (0, 1),
        ("kdpm2", false) => (1, 0),
        ("kdpm2-ancestral", false) => (2, 0),
        // Sample and model output of the first of two evaluations.
        ("dpm-singlestep", true) => (0, 2),
        ("dpm-singlestep", false) => (2, 0),
        // The previous model outputs, the new one, and noise.
        ("dpm-multistep" | "dpm-multistep-inverse" | "edm-dpm-multistep" | "deis", _) => (1, 1),
        ("DPM++ 3M" | "DPM++ 2M SDE", _) => (2, 1),
        // The previous model output and sample, the noise of two steps; the new output and the corrected sample.
        ("sa-solver", _) => (4, 2),
        // Two model outputs and the previous sample, the new output and the corrected sample.
        ("unipc", _) => (3, 2),
        _ => return None,
    })
}

/// Noise that leaves the array unchanged, since drawing is not measured.
struct NoNoise;

impl Noise for NoNoise {
    fn fill(&mut self, _: &mut [f32]) {}

    fn seed(&self, image: usize) -> u64 {
        image as u64
    }

    fn fill_seeded(&self, _: u64, _: &mut [f32]) {}
}

/// A run of a scheduler, restarted at its end.
struct Run {
    name: &'static str,
    scheduler: Box<dyn Scheduler>,
    call: usize,
    start: Vec<f32>,
    model_output: Vec<f32>,
    x: Vec<f32>,
}

impl Run {
    fn new(name: &'static str) -> Self {
        let mut draw = TorchCpu::new(0);
        let (mut start, mut model_output) = (vec![0.0; LENGTH], vec![0.0; LENGTH]);
        draw.normal(&mut start);
        draw.normal(&mut model_output);
        let mut run = Self { name, scheduler: build(name), call: 0, x: start.clone(), start, model_output };
        run.restart();
        run
    }

    /// Restarts the run and advances to the first evaluation with a full history.
    fn restart(&mut self) {
        self.scheduler = build(self.name);
        self.call = 0;
        let sigma = self.scheduler.init_noise_sigma() as f32;
        self.x.iter_mut().zip(&self.start).for_each(|(x, noise)| *x = sigma * noise);
        // PNDM starts with twelve evaluations of Runge-Kutta.
        let first = if self.name == "pndm" { 16 } else { 4 };
        while self.call < first {
            self.step();
        }
    }

    fn step(&mut self) -> Duration {
        let began = Instant::now();
        let stepped = self.scheduler.step(self.call, &self.model_output, black_box(&mut self.x), &mut NoNoise);
        let took = began.elapsed();
        stepped.expect("the model output matches the defaults");
        self.call += 1;
        took
    }

    /// Measures an evaluation and returns its index and duration.
    fn next(&mut self) -> (usize, Duration) {
        // The last evaluation of some methods has a lower order.
        if self.call + 2 > self.scheduler.timesteps().len() {
            self.restart();
        }
        (self.call, self.step())
    }
}

fn build(name: &str) -> Box<dyn Scheduler> {
    scheduler::build(name, None, &Config::new(), &ScheduleRequest::new(STEPS, IMAGES)).expect("the defaults are right")
}

/// Arrays for the plain passes. Integer values are cheap to combine.
struct Plain {
    sample: Vec<u32>,
    read: Vec<Vec<u32>>,
    written: Vec<Vec<u32>>,
}

impl Plain {
    fn new() -> Self {
        let arrays = |n| (0..n).map(|i| vec![i; LENGTH]).collect();
        Self { sample: vec![0; LENGTH], read: arrays(5), written: arrays(2) }
    }

    /// Reads the sample, the model output and `read` more arrays; writes the sample and `written` more.
    fn pass(&mut self, (read, written): (usize, usize)) -> Duration {
        const BLOCK: usize = 1024;
        let began = Instant::now();
        let mut sum = [0; BLOCK];
        for start in (0..LENGTH).step_by(BLOCK) {
            let block = start..start + BLOCK;
            let sample = &mut self.sample[block.clone()];
            sum.copy_from_slice(sample);
            for array in &self.read[..1 + read] {
                sum.iter_mut().zip(&array[block.clone()]).for_each(|(sum, value)| *sum ^= value);
            }
            sample.copy_from_slice(&sum);
            for array in &mut self.written[..written] {
                array[block.clone()].copy_from_slice(&sum);
            }
        }
        black_box(&mut self.sample);
        began.elapsed()
    }
}

/// The measured times of one scheduler: step, same arrays, least; for even and odd evaluations, which differ in
/// second-order methods.
#[derive(Default)]
struct Times {
    name: &'static str,
    times: [[Vec<Duration>; 2]; 3],
}

impl Times {
    /// Returns the median time in microseconds, averaged over even and odd evaluations; NaN if nothing was measured.
    fn median(&self, which: usize) -> f64 {
        let medians = self.times[which].iter().filter(|times| !times.is_empty()).map(|times| {
            let mut times = times.clone();
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e6
        });
        let medians: Vec<f64> = medians.collect();
        medians.iter().sum::<f64>() / medians.len() as f64
    }
}

fn measure(criterion: &mut Criterion) -> Vec<Times> {
    let mut group = criterion.benchmark_group("step");
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let mut all = Vec::new();
    for name in scheduler::table().iter().map(|entry| entry.name).chain(VARIANTS) {
        let mut times = Times { name, ..Times::default() };
        let (mut run, mut plain) = (None, Plain::new());
        group.bench_function(name, |bencher| {
            let run = run.get_or_insert_with(|| Run::new(name));
            bencher.iter_custom(|calls| {
                let mut total = Duration::ZERO;
                for _ in 0..calls {
                    let (call, step) = run.next();
                    total += step;
                    let same = arrays(name, call).map(|arrays| plain.pass(arrays));
                    let least = plain.pass((0, 0));
                    for (times, time) in times.times.iter_mut().zip([Some(step), same, Some(least)]) {
                        times[call % 2].extend(time);
                    }
                }
                total
            });
        });
        all.push(times);
    }
    group.finish();
    all
}

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let all = measure(&mut criterion);
    println!("{:<20}{:>9}{:>13}{:>7}{:>9}{:>7}", "µs per step", "step", "same arrays", "ratio", "least", "ratio");
    for times in all.iter().filter(|times| times.times[0].iter().any(|times| !times.is_empty())) {
        let [step, same, least] = [0, 1, 2].map(|which| times.median(which));
        println!("{:<20}{step:>9.0}{same:>13.0}{:>7.2}{least:>9.0}{:>7.2}", times.name, step / same, step / least);
    }
    criterion.final_summary();
}
