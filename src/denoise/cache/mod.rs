//! Fewer evaluations: caching methods that predict the denoiser's output at some steps from its output at others.
//!
//! Most methods see only the denoiser's input and output, and so work with every graph. With guidance they see the
//! guided prediction: a step is computed with all of its branches or with none. DeepCache evaluates only the shallow
//! layers of a UNet, on the output of the deep layers at an earlier step. [`table`] lists the methods; each is one file
//! and one row.
//!
//! A step of a second-order scheduler has two evaluations. The first one decides for both whether the step is skipped.
//! Their outputs are stored separately, since they belong to different timesteps.

mod deepcache;
mod easycache;
mod parameters;
mod residuals;
mod spectrum;
mod ucache;

use super::{Call, Denoiser};
use crate::error::Result;

pub use parameters::{CacheParameter, CacheParameterType, CacheParameterValue, StepCache};

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
    build: fn(&StepCache) -> Box<dyn CacheMethod>,
}

impl PartialEq for CacheMethodEntry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

static TABLE: &[CacheMethodEntry] = &[easycache::ENTRY, ucache::ENTRY, spectrum::ENTRY, deepcache::ENTRY];

/// Returns all methods.
pub fn table() -> &'static [CacheMethodEntry] {
    TABLE
}

/// The position of a model evaluation in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EvaluationPosition {
    /// The step's index, counted from 0.
    step: usize,
    /// The steps of the run.
    steps: usize,
    /// The index of the evaluation within its step, counted from 0.
    evaluation: usize,
}

impl EvaluationPosition {
    fn new(call: Call) -> Self {
        Self { step: call.step(), steps: call.steps(), evaluation: call.index % call.order.max(1) }
    }
}

/// A caching method in a run: decides which steps are computed, and predicts the output of the others.
///
/// `sample` is the model's input, `prediction` the guided prediction, both flat, all images of the batch one after the
/// other. A prediction is longer than its sample if the model predicts variances too.
trait CacheMethod {
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

/// A denoiser that skips evaluations of another by a caching method.
pub struct CachedDenoiser<'a> {
    denoiser: &'a mut dyn Denoiser,
    method: Box<dyn CacheMethod>,
    skipping: bool,
}

impl<'a> CachedDenoiser<'a> {
    /// Wraps a denoiser for one run.
    pub fn new(denoiser: &'a mut dyn Denoiser, cache: &StepCache) -> Self {
        Self { denoiser, method: cache.build(), skipping: false }
    }
}

impl Denoiser for CachedDenoiser<'_> {
    fn predict(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<()> {
        let at = EvaluationPosition::new(call);
        if self.denoiser.changes_at(call) {
            self.method.clear();
        }
        if at.evaluation == 0 {
            self.skipping = self.method.should_skip(at, sample);
        }
        if self.skipping
            && (self.method.forecast(at, sample, prediction)
                || self.denoiser.predict_shallow(sample, call, prediction)?)
        {
            return Ok(());
        }
        self.denoiser.predict(sample, call, prediction)?;
        self.method.observe(at, sample, prediction);
        Ok(())
    }

    fn outputs_per_input(&self) -> usize {
        self.denoiser.outputs_per_input()
    }

    fn evaluations(&self) -> usize {
        self.denoiser.evaluations()
    }

    fn shallow_evaluations(&self) -> usize {
        self.denoiser.shallow_evaluations()
    }

    fn changes_at(&self, call: Call) -> bool {
        self.denoiser.changes_at(call)
    }
}

#[cfg(test)]
mod tests;
