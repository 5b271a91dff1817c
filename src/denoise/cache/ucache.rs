//! UCache: stable-diffusion.cpp's variant of EasyCache for UNets (its pull request 1066 and `docs/caching.md`; there is
//! no paper). The arithmetic is that of its `ucache.hpp` of August 2026.
//!
//! Differences from EasyCache: the sample's change is measured from the last computed step; the expected change of the
//! prediction is relative to the geometric mean of its size and of its mean change; each skipped step in a row
//! increases its weight; and the threshold is halved while few steps were computed, and raised by half once most were.

use super::residuals::{OutputResiduals, copy_into, mean_abs, mean_abs_difference};
use super::{CacheMethod, CacheMethodEntry, CacheParameter, EvaluationPosition, StepCache};
use crate::denoise::RunInterval;

pub(super) const ENTRY: CacheMethodEntry = CacheMethodEntry {
    name: "ucache",
    about: "stable-diffusion.cpp's variant of EasyCache for UNets, with a threshold that grows during the run.",
    depends_on_image: true,
    runs_shallow_layers: false,
    keys: &[
        CacheParameter::number("threshold", 1.0, 0.0, 1000.0),
        CacheParameter::number("start", 0.15, 0.0, 1.0),
        CacheParameter::number("end", 0.95, 0.0, 1.0),
        CacheParameter::number("decay", 1.0, 0.0, 1.0),
        CacheParameter::switch("relative", true),
        CacheParameter::switch("reset", true),
    ],
    build,
};

/// The threshold's factor while less than a fifth of the run's steps were computed.
const EARLY_FACTOR: f64 = 0.5;
/// The threshold's factor once more than four fifths were computed.
const LATE_FACTOR: f64 = 1.5;
/// The factor of the mean change of the prediction that the expected change is relative to.
const GAIN: f64 = 1.6;
/// The weight of the previous value in the running mean of the prediction's change.
const EMA_WEIGHT: f64 = 0.8;
/// The additional weight of the expected change per skipped step in a row.
const SKIP_PENALTY: f64 = 0.5;
/// The lower bound of the divisors.
const MIN_SCALE: f64 = 1e-6;

#[derive(Debug)]
struct UCache {
    threshold: f64,
    range: RunInterval,
    decay: f64,
    relative: bool,
    reset: bool,
    /// Input and output at the first evaluation of the last computed step.
    computed: Option<(Vec<f32>, Vec<f32>)>,
    /// The sample's change since then; `None` until it is measured for the current step.
    input_change: Option<f64>,
    rate: Option<f64>,
    /// The running mean of the change of the prediction between computed steps.
    mean_output_change: Option<f64>,
    error: f64,
    steps_computed: usize,
    steps_skipped_in_a_row: usize,
    residuals: OutputResiduals,
}

fn build(cache: &StepCache) -> Box<dyn CacheMethod> {
    Box::new(UCache {
        threshold: cache.number("threshold"),
        range: RunInterval { start: cache.number("start"), end: cache.number("end") },
        decay: cache.number("decay"),
        relative: cache.switch("relative"),
        reset: cache.switch("reset"),
        computed: None,
        input_change: None,
        rate: None,
        mean_output_change: None,
        error: 0.0,
        steps_computed: 0,
        steps_skipped_in_a_row: 0,
        residuals: OutputResiduals::default(),
    })
}

impl UCache {
    /// Returns false for steps outside the range and for the last one, which are neither skipped nor recorded.
    fn may_skip(&self, at: EvaluationPosition) -> bool {
        self.range.holds_part(at.step, at.steps) && at.step + 1 < at.steps
    }

    fn threshold(&self, at: EvaluationPosition, size: f64) -> f64 {
        let progress = self.steps_computed as f64 / at.steps.max(1) as f64;
        let factor = match progress {
            p if p < 0.2 => EARLY_FACTOR,
            p if p > 0.8 => LATE_FACTOR,
            _ => 1.0,
        };
        let absolute = if self.relative { 1.0 } else { size };
        self.threshold * factor * absolute
    }
}

impl CacheMethod for UCache {
    fn should_skip(&mut self, at: EvaluationPosition, sample: &[f32]) -> bool {
        self.input_change = None;
        let Some((input, output)) = self.computed.as_ref().filter(|_| self.may_skip(at)) else { return false };
        let input_change = mean_abs_difference(sample, input);
        self.input_change = Some(input_change);
        let size = mean_abs(output);
        let Some(rate) = self.rate.filter(|_| input_change > 0.0 && size > 0.0) else { return false };
        let mut expected = rate * input_change;
        if self.relative {
            let size = size.max(MIN_SCALE);
            let mean_change = self.mean_output_change.map_or(size, |mean_change| (mean_change * GAIN).max(MIN_SCALE));
            expected /= (size * mean_change).sqrt();
        }
        expected *= 1.0 + SKIP_PENALTY * self.steps_skipped_in_a_row as f64;
        self.error = self.error * self.decay + expected;
        if self.error < self.threshold(at, size) {
            self.steps_skipped_in_a_row += 1;
            return true;
        }
        if self.reset {
            self.error = 0.0;
        }
        false
    }

    fn forecast(&self, at: EvaluationPosition, sample: &[f32], prediction: &mut [f32]) -> bool {
        self.residuals.add_to(at.evaluation, sample, prediction)
    }

    fn observe(&mut self, at: EvaluationPosition, sample: &[f32], prediction: &[f32]) {
        if !self.may_skip(at) {
            return;
        }
        self.residuals.store(at.evaluation, sample, prediction);
        if at.evaluation > 0 {
            return;
        }
        self.steps_computed += 1;
        self.steps_skipped_in_a_row = 0;
        let prediction = prediction.get(..sample.len()).unwrap_or(prediction);
        if let Some((_, output)) = &self.computed {
            let output_change = mean_abs_difference(prediction, output);
            if output_change.is_finite() && output_change > 0.0 {
                let mean_change = self
                    .mean_output_change
                    .map_or(output_change, |mean_change| EMA_WEIGHT * mean_change + (1.0 - EMA_WEIGHT) * output_change);
                self.mean_output_change = Some(mean_change);
                let rate = self
                    .input_change
                    .filter(|&input_change| input_change > 0.0)
                    .map(|input_change| output_change / input_change);
                self.rate = rate.filter(|rate| rate.is_finite()).or(self.rate);
            }
        }
        let (input, output) = self.computed.get_or_insert_default();
        copy_into(input, sample);
        copy_into(output, prediction);
    }

    fn clear(&mut self) {
        self.computed = None;
        self.input_change = None;
        self.rate = None;
        self.mean_output_change = None;
        self.error = 0.0;
        self.steps_skipped_in_a_row = 0;
        self.residuals.clear();
    }
}
