//! EasyCache: Zhou et al. 2025, "Less is Enough: Training-Free Video Diffusion Acceleration via Runtime-Adaptive
//! Caching", arXiv 2507.02860.
//!
//! How fast the prediction changes with the sample, the transformation rate `k`, hardly changes from step to step. So a
//! step's change of the prediction, as a share of the prediction, is near `k |x − x'| / |v|`, with the sample's mean
//! absolute change since the step before and the mean absolute value of the last prediction computed. Steps are skipped
//! until the sum of these shares since the last computed step reaches the threshold, and answered with `x + (v − x)` of
//! that last one. The criterion is that of the paper and of its authors' code, and the ranges of `start` and `end` are
//! those of stable-diffusion.cpp, which takes the place of the authors' count of first steps.

use super::change::{Differences, mean_change, mean_size, refill};
use super::{At, Entry, Key, Method, StepCache};
use crate::denoise::RunInterval;

pub(super) const ENTRY: Entry = Entry {
    name: "easycache",
    about: "Skips steps until the sum of the changes expected of the prediction reaches a threshold (arXiv 2507.02860).",
    decides_by_image: true,
    runs_outer_layers: false,
    keys: &[
        Key::number("threshold", 0.05, 0.0, 1000.0),
        Key::number("start", 0.15, 0.0, 1.0),
        Key::number("end", 0.95, 0.0, 1.0),
    ],
    build,
};

#[derive(Debug)]
struct EasyCache {
    threshold: f64,
    share: RunInterval,
    /// What the model was given at the step before, computed or not.
    previous: Option<Vec<f32>>,
    /// What it was given at the first call of the last computed step, and what it answered.
    computed: Option<(Vec<f32>, Vec<f32>)>,
    /// The transformation rate between the last two computed steps.
    rate: Option<f64>,
    accumulated: f64,
    differences: Differences,
}

fn build(cache: &StepCache) -> Box<dyn Method> {
    Box::new(EasyCache {
        threshold: cache.number("threshold"),
        share: RunInterval { start: cache.number("start"), end: cache.number("end") },
        previous: None,
        computed: None,
        rate: None,
        accumulated: 0.0,
        differences: Differences::default(),
    })
}

impl EasyCache {
    /// What the prediction is expected to have changed by since the step before, as a share of itself.
    fn expected_change(&self, sample: &[f32]) -> Option<f64> {
        let (previous, (_, answered)) = self.previous.as_deref().zip(self.computed.as_ref())?;
        Some(self.rate? * mean_change(sample, previous) / mean_size(answered))
    }
}

impl Method for EasyCache {
    fn skips(&mut self, at: At, sample: &[f32]) -> bool {
        // The paper computes the last step whatever the threshold says.
        let is_open = self.share.holds_part(at.step, at.of) && at.step + 1 < at.of;
        let skips = match self.expected_change(sample).filter(|_| is_open) {
            Some(change) => {
                self.accumulated += change;
                self.accumulated < self.threshold
            }
            None => false,
        };
        if !skips {
            self.accumulated = 0.0;
        }
        refill(self.previous.get_or_insert_default(), sample);
        skips
    }

    fn forecast(&self, at: At, sample: &[f32], prediction: &mut [f32]) -> bool {
        self.differences.add(at.stage, sample, prediction)
    }

    fn learn(&mut self, at: At, sample: &[f32], prediction: &[f32]) {
        self.differences.keep(at.stage, sample, prediction);
        if at.stage > 0 {
            return;
        }
        let prediction = prediction.get(..sample.len()).unwrap_or(prediction);
        if let Some((given, answered)) = &self.computed {
            let rate = mean_change(prediction, answered) / mean_change(sample, given);
            self.rate = Some(rate).filter(|rate| rate.is_finite()).or(self.rate);
        }
        let (given, answered) = self.computed.get_or_insert_default();
        refill(given, sample);
        refill(answered, prediction);
    }

    fn forget(&mut self) {
        self.previous = None;
        self.computed = None;
        self.rate = None;
        self.accumulated = 0.0;
        self.differences.clear();
    }
}
