//! The steps of a run as linear combinations, for loops whose samples are not in the host's memory.

use std::cell::Cell;
use std::ops::Range;

use super::step::{Noise, Scheduler};
use crate::error::Result;

/// The steps of a run, each a linear combination of samples and model outputs.
///
/// Found by running a scheduler on unit vectors, a new one for each sample and each model output that it is given, so
/// that a combination holds for whatever a loop does to the sample between two steps, such as restoring what an
/// inpainting mask preserves.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSteps {
    /// One a model evaluation, in order.
    pub steps: Vec<LinearStep>,
    /// Model outputs for each value of the sample.
    outputs: usize,
    /// True if the steps add noise ([`LinearSteps::noise_terms`]).
    pub draws_noise: bool,
}

/// A step: the next sample is the sum of its terms, and of noise if the run draws any.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearStep {
    /// The timestep of the model evaluation.
    pub timestep: f64,
    /// The factor that scales the sample to the model's input.
    pub input_scale: f32,
    /// The weight of the step's sample as the step before it returned it, before the loop changed it. Not 0 only for
    /// solvers with a corrector, which build each sample on the corrected one before.
    pub unchanged: f32,
    /// Weights of the samples: of this step's, of the one before, and so on.
    pub samples: Vec<f32>,
    /// Weights of the model outputs: of this step's, of the one before, and so on.
    pub outputs: Vec<f32>,
}

/// The most steps back that a combination may reach.
const MOST_LAG: usize = 16;
/// The reach from which on a shorter form is looked for: more than that of all solvers without a corrector but one.
const SHORT_LAG: usize = 5;
/// Values of the sample on which linearity is tested, and their magnitude, which no clipping leaves.
const TRIAL: usize = 64;
const MAGNITUDE: f32 = 1e4;
/// The difference from the scheduler's own steps, as a share of the largest value, from which on they are not the same.
const TOLERANCE: f64 = 4e-6;
/// The same for the last two evaluations of schedulers of second order, which divide by the last sigma.
const LAST_TOLERANCE: f64 = 2e-5;
/// The largest sample, in units of the denoiser's input, of which rounding in another order leaves the last sample as it
/// was to 1e-4.
const LARGEST_SAMPLE: f32 = 1000.0;

impl LinearSteps {
    /// Finds the combinations of the evaluations `span` of a scheduler for one image. `build` makes it anew. `outputs` is the
    /// number of model outputs for each value of the sample: 2 with variances, which the combinations leave out.
    ///
    /// `None` if its steps are not linear, as with clipping or dynamic thresholding, reach back more than 16 steps, or would
    /// lose digits, as where a schedule begins at a signal-to-noise ratio of zero.
    ///
    /// # Errors
    /// Any error of the scheduler.
    pub fn find(
        build: impl Fn() -> Result<Box<dyn Scheduler>>,
        span: Range<usize>,
        outputs: usize,
    ) -> Result<Option<Self>> {
        let mut scheduler = build()?;
        let silence = SilentNoise::default();
        let mut steps = Vec::with_capacity(span.len());
        let calls = span.len();
        // The result of the step before, over the same unit vectors.
        let mut before = vec![0.0; 2 * calls];
        for (at, step) in span.clone().enumerate() {
            // The samples' unit vectors, then those of the model outputs.
            let mut x = unit(2 * calls, at);
            let mut output = unit(2 * calls, calls + at);
            output.resize(outputs * x.len(), 0.0);
            let mut scaled = vec![0.0; x.len()];
            scheduler.scale_model_input(step, &x, &mut scaled);
            scheduler.step(step, &output, &mut x, &mut &silence)?;
            let (unchanged, weights) = shortened(&x, &before, at);
            let (samples, outputs) = weights.split_at(calls);
            let found = LinearStep {
                timestep: scheduler.timesteps()[step],
                input_scale: scaled[at],
                unchanged,
                samples: by_lag(samples, at),
                outputs: by_lag(outputs, at),
            };
            if reach(&weights, at) > MOST_LAG || found.input_scale * LARGEST_SAMPLE < 1.0 {
                return Ok(None);
            }
            steps.push(found);
            before = x;
        }
        let found = Self { steps, outputs, draws_noise: silence.draws.get() > 0 };
        Ok(found.agrees([build()?.as_mut(), build()?.as_mut()], span)?.then_some(found))
    }

    /// Returns the most samples and the most model outputs that a step combines, at least one of each.
    pub fn reach(&self) -> [usize; 2] {
        let most = |weights: fn(&LinearStep) -> &Vec<f32>| self.steps.iter().map(|step| weights(step).len()).max();
        [most(|step| &step.samples), most(|step| &step.outputs)].map(|most| most.unwrap_or(0).max(1))
    }

    /// Passes what the noise of each evaluation adds to its combination, `len` values each, to `take`. `scheduler` is newly
    /// built, for the images of the run; it takes its steps on zeros.
    ///
    /// # Errors
    /// Any error of the scheduler, and of `take`.
    pub fn noise_terms(
        &self,
        scheduler: &mut dyn Scheduler,
        span: Range<usize>,
        len: usize,
        noise: &mut dyn Noise,
        mut take: impl FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let output = vec![0.0; self.outputs * len];
        let [mut before, mut x, mut added] = [vec![0.0; len], vec![0.0; len], vec![0.0; len]];
        for (step, combination) in span.zip(&self.steps) {
            x.fill(0.0);
            scheduler.step(step, &output, &mut x, noise)?;
            for ((added, x), before) in added.iter_mut().zip(&x).zip(&before) {
                *added = x - combination.unchanged * before;
            }
            take(&added)?;
            std::mem::swap(&mut before, &mut x);
        }
        Ok(())
    }

    /// Compares the combinations, and what noise adds to them, with the steps of one of two new schedulers, on values far
    /// larger than any clipping leaves.
    fn agrees(&self, [scheduler, noisy]: [&mut dyn Scheduler; 2], span: Range<usize>) -> Result<bool> {
        let mut added = Vec::with_capacity(span.len());
        self.noise_terms(noisy, span.clone(), TRIAL, &mut TrialNoise::default(), |term| {
            added.push(term.to_vec());
            Ok(())
        })?;
        let mut noise = TrialNoise::default();
        let (mut samples, mut outputs, mut x) = (Vec::new(), Vec::new(), vec![0.0; TRIAL]);
        for (at, ((step, combination), added)) in span.zip(&self.steps).zip(&added).enumerate() {
            let before = std::mem::replace(&mut x, trial(2 * at));
            x.iter_mut().for_each(|value| *value /= combination.input_scale);
            samples.push(x.clone());
            outputs.push(trial(2 * at + 1));
            let variances = (1..self.outputs).flat_map(|part| trial(3 * at + part)).map(|value| value / MAGNITUDE);
            let output: Vec<f32> = outputs[at].iter().copied().chain(variances).collect();
            scheduler.step(step, &output, &mut x, &mut noise)?;
            let combined = (0..TRIAL).map(|i| combination.at(i, &samples, &outputs, &before) + f64::from(added[i]));
            let combined: Vec<f64> = combined.collect();
            let largest = combined.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
            let is_last = at + 2 >= self.steps.len() && scheduler.order() == 2;
            let tolerance = if is_last { LAST_TOLERANCE } else { TOLERANCE };
            let is_near = |(x, y): (&f32, &f64)| (f64::from(*x) - y).abs() <= tolerance * largest;
            if !x.iter().zip(&combined).all(is_near) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl LinearStep {
    /// The combination at one place, of all samples and model outputs so far, and of the result of the step before.
    fn at(&self, place: usize, samples: &[Vec<f32>], outputs: &[Vec<f32>], before: &[f32]) -> f64 {
        let product = |weight: &f32, values: &[f32]| f64::from(*weight) * f64::from(values[place]);
        let sum = |weights: &[f32], values: &[Vec<f32>]| -> f64 {
            weights.iter().zip(values.iter().rev()).map(|(weight, values)| product(weight, values)).sum()
        };
        product(&self.unchanged, before) + sum(&self.samples, samples) + sum(&self.outputs, outputs)
    }
}

/// Returns the weights of the vectors up to number `at`, the last first, without the zeros at the end.
fn by_lag(values: &[f32], at: usize) -> Vec<f32> {
    let mut weights: Vec<f32> = values.iter().take(at + 1).rev().copied().collect();
    while weights.last().is_some_and(|weight| *weight == 0.0) {
        weights.pop();
    }
    weights
}

/// The number of samples or model outputs that a combination reaches back, over unit vectors of both.
fn reach(values: &[f32], at: usize) -> usize {
    let (samples, outputs) = values.split_at(values.len() / 2);
    by_lag(samples, at).len().max(by_lag(outputs, at).len())
}

/// Writes a combination as a multiple of the step's result before it and a rest that reaches less far back, if it can be.
/// Returns the factor and the rest.
fn shortened(values: &[f32], before: &[f32], at: usize) -> (f32, Vec<f32>) {
    let whole = || (0.0, values.to_vec());
    if reach(values, at) <= SHORT_LAG {
        return whole();
    }
    let calls = values.len() / 2;
    let is_old = |i: usize| i % calls + SHORT_LAG <= at;
    let product = |a: &[f32], b: &[f32]| -> f64 {
        let old = a.iter().zip(b).enumerate().filter(|(i, _)| is_old(*i));
        old.map(|(_, (a, b))| f64::from(*a) * f64::from(*b)).sum()
    };
    let square = product(before, before);
    if square == 0.0 {
        return whole();
    }
    let factor = product(values, before) / square;
    let largest = values.iter().chain(before).fold(0.0_f32, |most, value| most.max(value.abs()));
    let rest = values.iter().zip(before).map(|(value, before)| {
        let rest = (f64::from(*value) - factor * f64::from(*before)) as f32;
        if rest.abs() <= 1e-6 * largest { 0.0 } else { rest }
    });
    let rest: Vec<f32> = rest.collect();
    if reach(&rest, at) < reach(values, at) { (factor as f32, rest) } else { whole() }
}

fn unit(len: usize, at: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    values[at] = 1.0;
    values
}

/// Values in plus and minus [`MAGNITUDE`], others for each number.
fn trial(number: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 37 + number * 101) % 89) as f32 / 44.0 - 1.0;
    (0..TRIAL).map(|i| MAGNITUDE * value(i)).collect()
}

/// Noise of zeros, which counts how often it is drawn from.
#[derive(Default)]
struct SilentNoise {
    draws: Cell<usize>,
}

impl Noise for &SilentNoise {
    fn fill(&mut self, out: &mut [f32]) {
        self.draws.set(self.draws.get() + 1);
        out.fill(0.0);
    }

    fn seed(&self, _image: usize) -> u64 {
        0
    }

    fn fill_seeded(&self, _seed: u64, out: &mut [f32]) {
        self.draws.set(self.draws.get() + 1);
        out.fill(0.0);
    }
}

/// Trial values as noise.
#[derive(Default)]
struct TrialNoise {
    draws: usize,
}

impl Noise for TrialNoise {
    fn fill(&mut self, out: &mut [f32]) {
        self.draws += 1;
        fill_trial(out, self.draws);
    }

    fn seed(&self, image: usize) -> u64 {
        image as u64
    }

    fn fill_seeded(&self, seed: u64, out: &mut [f32]) {
        fill_trial(out, (seed % 83) as usize);
    }
}

fn fill_trial(out: &mut [f32], number: usize) {
    out.iter_mut().zip(trial(number).iter().cycle()).for_each(|(out, value)| *out = *value);
}
