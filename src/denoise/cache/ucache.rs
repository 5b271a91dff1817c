//! UCache: stable-diffusion.cpp's variant of EasyCache for UNets (its pull request 1066 and `docs/caching.md`; there is
//! no paper). The arithmetic is that of its `ucache.hpp` of August 2026.
//!
//! Different from EasyCache: the sample's change is measured from the last computed step; the expected change of the
//! prediction stands in relation to the geometric mean of its size and of its usual change; it weighs more the more steps
//! in a row were skipped; and the threshold is halved while few steps were computed, and raised by half once most were.

use super::change::{Differences, mean_change, mean_size, refill};
use super::{At, Entry, Key, Method, StepCache};
use crate::denoise::RunInterval;

pub(super) const ENTRY: Entry = Entry {
    name: "ucache",
    about: "EasyCache as stable-diffusion.cpp changed it for UNets, with a threshold that grows along the run.",
    decides_by_image: true,
    runs_outer_layers: false,
    keys: &[
        Key::number("threshold", 1.0, 0.0, 1000.0),
        Key::number("start", 0.15, 0.0, 1.0),
        Key::number("end", 0.95, 0.0, 1.0),
        Key::number("decay", 1.0, 0.0, 1.0),
        Key::switch("relative", true),
        Key::switch("reset", true),
    ],
    build,
};

/// What the threshold is multiplied by while less than a fifth of the run's steps were computed.
const EARLY: f64 = 0.5;
/// What it is multiplied by once more than four fifths were.
const LATE: f64 = 1.5;
/// How much of the usual change of the prediction the expected one stands in relation to.
const GAIN: f64 = 1.6;
/// How much of the usual change of the prediction stays when it is learnt anew.
const KEPT: f64 = 0.8;
/// How much more the expected change weighs for each step in a row that was skipped.
const MORE_EACH_SKIP: f64 = 0.5;
/// The least that a change stands in relation to.
const LEAST: f64 = 1e-6;

#[derive(Debug)]
struct UCache {
    threshold: f64,
    share: RunInterval,
    decay: f64,
    relative: bool,
    reset: bool,
    /// What the model was given at the first call of the last computed step, and what it answered.
    computed: Option<(Vec<f32>, Vec<f32>)>,
    /// The change of the sample since then, once it was measured for the step at hand.
    change: Option<f64>,
    rate: Option<f64>,
    /// The running mean of the change of the prediction between computed steps.
    usual_change: Option<f64>,
    error: f64,
    steps_computed: usize,
    steps_skipped_in_a_row: usize,
    differences: Differences,
}

fn build(cache: &StepCache) -> Box<dyn Method> {
    Box::new(UCache {
        threshold: cache.number("threshold"),
        share: RunInterval { start: cache.number("start"), end: cache.number("end") },
        decay: cache.number("decay"),
        relative: cache.switch("relative"),
        reset: cache.switch("reset"),
        computed: None,
        change: None,
        rate: None,
        usual_change: None,
        error: 0.0,
        steps_computed: 0,
        steps_skipped_in_a_row: 0,
        differences: Differences::default(),
    })
}

impl UCache {
    /// Steps outside of the range are neither skipped nor learnt from; the last is one of them.
    fn is_open(&self, at: At) -> bool {
        self.share.holds_part(at.step, at.of) && at.step + 1 < at.of
    }

    fn threshold(&self, at: At, size: f64) -> f64 {
        let progress = self.steps_computed as f64 / at.of.max(1) as f64;
        let factor = match progress {
            p if p < 0.2 => EARLY,
            p if p > 0.8 => LATE,
            _ => 1.0,
        };
        let absolute = if self.relative { 1.0 } else { size };
        self.threshold * factor * absolute
    }
}

impl Method for UCache {
    fn skips(&mut self, at: At, sample: &[f32]) -> bool {
        self.change = None;
        let Some((given, answered)) = self.computed.as_ref().filter(|_| self.is_open(at)) else { return false };
        let change = mean_change(sample, given);
        self.change = Some(change);
        let size = mean_size(answered);
        let Some(rate) = self.rate.filter(|_| change > 0.0 && size > 0.0) else { return false };
        let mut expected = rate * change;
        if self.relative {
            let size = size.max(LEAST);
            let usual = self.usual_change.map_or(size, |usual| (usual * GAIN).max(LEAST));
            expected /= (size * usual).sqrt();
        }
        expected *= 1.0 + MORE_EACH_SKIP * self.steps_skipped_in_a_row as f64;
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

    fn forecast(&self, at: At, sample: &[f32], prediction: &mut [f32]) -> bool {
        self.differences.add(at.stage, sample, prediction)
    }

    fn learn(&mut self, at: At, sample: &[f32], prediction: &[f32]) {
        if !self.is_open(at) {
            return;
        }
        self.differences.keep(at.stage, sample, prediction);
        if at.stage > 0 {
            return;
        }
        self.steps_computed += 1;
        self.steps_skipped_in_a_row = 0;
        let prediction = prediction.get(..sample.len()).unwrap_or(prediction);
        if let Some((_, answered)) = &self.computed {
            let moved = mean_change(prediction, answered);
            if moved.is_finite() && moved > 0.0 {
                let usual = self.usual_change.map_or(moved, |usual| KEPT * usual + (1.0 - KEPT) * moved);
                self.usual_change = Some(usual);
                let rate = self.change.filter(|&change| change > 0.0).map(|change| moved / change);
                self.rate = rate.filter(|rate| rate.is_finite()).or(self.rate);
            }
        }
        let (given, answered) = self.computed.get_or_insert_default();
        refill(given, sample);
        refill(answered, prediction);
    }

    fn forget(&mut self) {
        self.computed = None;
        self.change = None;
        self.rate = None;
        self.usual_change = None;
        self.error = 0.0;
        self.steps_skipped_in_a_row = 0;
        self.differences.clear();
    }
}
