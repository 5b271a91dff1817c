//! EasyCache: Zhou et al. 2025, "Less is Enough: Training-Free Video Diffusion Acceleration via Runtime-Adaptive
//! Caching", arXiv 2507.02860.
//!
//! The ratio between the change of the prediction and the change of the sample, the transformation rate `k`, is nearly
//! constant between steps. The relative change of a step's prediction is therefore about `k |x − x'| / |v|`, with the
//! mean absolute change of the sample since the previous step and the mean absolute value of the latest computed
//! prediction. Steps are skipped until the sum of these changes since the last computed step reaches the threshold.
//! Skipped steps return `x + (v − x)` with the residual of that last one. The criterion is that of the paper and its
//! authors' code; the range from `start` to `end` is stable-diffusion.cpp's and replaces the authors' number of first
//! steps.

use super::residuals::{OutputResiduals, copy_into, mean_abs, mean_abs_difference};
use super::{CacheMethod, CacheMethodEntry, CacheParameter, EvaluationPosition, StepCache};
use crate::denoise::RunInterval;

pub(super) const ENTRY: CacheMethodEntry = CacheMethodEntry {
    name: "easycache",
    about: "Skips steps until the sum of the expected changes of the prediction reaches a threshold (arXiv 2507.02860).",
    depends_on_image: true,
    runs_shallow_layers: false,
    keys: &[
        CacheParameter::number("threshold", 0.05, 0.0, 1000.0),
        CacheParameter::number("start", 0.15, 0.0, 1.0),
        CacheParameter::number("end", 0.95, 0.0, 1.0),
    ],
    build,
};

#[derive(Debug)]
struct EasyCache {
    threshold: f64,
    range: RunInterval,
    /// The model's input at the previous step, computed or skipped.
    previous: Option<Vec<f32>>,
    /// Input and output at the first evaluation of the last computed step.
    computed: Option<(Vec<f32>, Vec<f32>)>,
    /// The transformation rate between the last two computed steps.
    rate: Option<f64>,
    accumulated: f64,
    residuals: OutputResiduals,
}

fn build(cache: &StepCache) -> Box<dyn CacheMethod> {
    Box::new(EasyCache {
        threshold: cache.number("threshold"),
        range: RunInterval { start: cache.number("start"), end: cache.number("end") },
        previous: None,
        computed: None,
        rate: None,
        accumulated: 0.0,
        residuals: OutputResiduals::default(),
    })
}

impl EasyCache {
    /// Estimates the relative change of the prediction since the previous step.
    fn expected_change(&self, sample: &[f32]) -> Option<f64> {
        let (previous, (_, output)) = self.previous.as_deref().zip(self.computed.as_ref())?;
        Some(self.rate? * mean_abs_difference(sample, previous) / mean_abs(output))
    }
}

impl CacheMethod for EasyCache {
    fn should_skip(&mut self, at: EvaluationPosition, sample: &[f32]) -> bool {
        // The paper computes the last step whatever the threshold says.
        let may_skip = self.range.holds_part(at.step, at.steps) && at.step + 1 < at.steps;
        let skips = match self.expected_change(sample).filter(|_| may_skip) {
            Some(input_change) => {
                self.accumulated += input_change;
                self.accumulated < self.threshold
            }
            None => false,
        };
        if !skips {
            self.accumulated = 0.0;
        }
        copy_into(self.previous.get_or_insert_default(), sample);
        skips
    }

    fn forecast(&self, at: EvaluationPosition, sample: &[f32], prediction: &mut [f32]) -> bool {
        self.residuals.add_to(at.evaluation, sample, prediction)
    }

    fn observe(&mut self, at: EvaluationPosition, sample: &[f32], prediction: &[f32]) {
        self.residuals.store(at.evaluation, sample, prediction);
        if at.evaluation > 0 {
            return;
        }
        let prediction = prediction.get(..sample.len()).unwrap_or(prediction);
        if let Some((input, output)) = &self.computed {
            let rate = mean_abs_difference(prediction, output) / mean_abs_difference(sample, input);
            self.rate = Some(rate).filter(|rate| rate.is_finite()).or(self.rate);
        }
        let (input, output) = self.computed.get_or_insert_default();
        copy_into(input, sample);
        copy_into(output, prediction);
    }

    fn clear(&mut self) {
        self.previous = None;
        self.computed = None;
        self.rate = None;
        self.accumulated = 0.0;
        self.residuals.clear();
    }
}
