//! Caching methods: their rows, and the trait that they have in common.

use super::parameters::{CacheParameter, CacheParameterValue};
use crate::denoise::Call;

/// One row of the table of caching methods.
#[derive(Debug)]
pub struct CacheMethodEntry {
    /// The name in pipeline.toml, such as `easycache`.
    pub name: &'static str,
    /// One sentence about the method, with its publication.
    pub about: &'static str,
    /// True if its decisions depend on the image. Images are then denoised one at a time, so that none depends on its
    /// neighbors in a batch.
    pub depends_on_image: bool,
    /// True if skipped steps evaluate the shallow layers of a UNet, cut at the key `branch`.
    pub runs_shallow_layers: bool,
    /// Its parameters, in the order of their listing.
    pub keys: &'static [CacheParameter],
    pub(super) build: fn(&StepCache) -> Box<dyn CacheMethod>,
}

impl PartialEq for CacheMethodEntry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A caching method with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct StepCache {
    entry: &'static CacheMethodEntry,
    /// One value per key of the entry.
    values: Vec<CacheParameterValue>,
}

impl StepCache {
    /// Creates a method with the parameters that `read` returns, and defaults for the others.
    pub fn new(
        entry: &'static CacheMethodEntry,
        mut read: impl FnMut(&CacheParameter) -> Option<CacheParameterValue>,
    ) -> Self {
        let values = entry.keys.iter().map(|key| read(key).unwrap_or_else(|| key.default())).collect();
        Self { entry, values }
    }

    /// Returns the method.
    pub fn entry(&self) -> &'static CacheMethodEntry {
        self.entry
    }

    /// Returns the name and value of each parameter.
    pub fn parameters(&self) -> impl Iterator<Item = (&'static str, CacheParameterValue)> + '_ {
        self.entry.keys.iter().map(|key| key.name).zip(self.values.iter().copied())
    }

    /// Returns the branch at which the UNet is cut, if the method evaluates its shallow layers alone.
    pub fn branch(&self) -> Option<usize> {
        self.entry.runs_shallow_layers.then(|| self.integer("branch"))
    }

    /// Creates the method for one run.
    pub(super) fn build(&self) -> Box<dyn CacheMethod> {
        (self.entry.build)(self)
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(CacheParameterValue::Number(value)) => value,
            other => unreachable_parameter(name, other, f64::NAN),
        }
    }

    pub(super) fn integer(&self, name: &str) -> usize {
        match self.value(name) {
            Some(CacheParameterValue::Integer(value)) => value,
            other => unreachable_parameter(name, other, 1),
        }
    }

    pub(super) fn switch(&self, name: &str) -> bool {
        match self.value(name) {
            Some(CacheParameterValue::Switch(value)) => value,
            other => unreachable_parameter(name, other, false),
        }
    }

    fn value(&self, name: &str) -> Option<CacheParameterValue> {
        self.parameters().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Returns a fallback for a parameter that the method's row does not have, or has with another type. That is a bug of
/// this module, which its tests find by building every method.
fn unreachable_parameter<T>(name: &str, found: Option<CacheParameterValue>, none: T) -> T {
    debug_assert!(false, "{name} is {found:?}");
    none
}

/// The position of a model evaluation in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EvaluationPosition {
    /// The step's index, counted from 0.
    pub step: usize,
    /// The steps of the run.
    pub steps: usize,
    /// The index of the evaluation within its step, counted from 0.
    pub evaluation: usize,
}

impl EvaluationPosition {
    pub(super) fn new(call: Call) -> Self {
        Self { step: call.step(), steps: call.steps(), evaluation: call.index % call.order.max(1) }
    }
}

/// A caching method in a run: decides which steps are computed, and predicts the output of the others.
///
/// `sample` is the model's input, `prediction` the guided prediction, both flat, all images of the batch one after the
/// other. A prediction is longer than its sample if the model predicts variances too.
pub(super) trait CacheMethod {
    /// Returns true if this step can skip the full model. Called once per step, at its first evaluation.
    fn should_skip(&mut self, at: EvaluationPosition, sample: &[f32]) -> bool;

    /// Writes the forecast of a skipped evaluation to `prediction`. Returns `false` if there is none; then the
    /// evaluation is computed, by the shallow layers alone if the denoiser has them.
    fn forecast(&self, at: EvaluationPosition, sample: &[f32], prediction: &mut [f32]) -> bool;

    /// Records a computed prediction.
    fn observe(&mut self, at: EvaluationPosition, sample: &[f32], prediction: &[f32]);

    /// Clears all recorded predictions, since the following ones are not comparable.
    fn clear(&mut self);
}
