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
mod method;
mod parameters;
mod residuals;
mod spectrum;
mod ucache;

use super::{Call, Denoiser};
use crate::error::Result;

use method::{CacheMethod, EvaluationPosition};
pub use method::{CacheMethodEntry, StepCache};
pub use parameters::{CacheParameter, CacheParameterType, CacheParameterValue};

static TABLE: &[CacheMethodEntry] = &[easycache::ENTRY, ucache::ENTRY, spectrum::ENTRY, deepcache::ENTRY];

/// Returns all methods.
pub fn table() -> &'static [CacheMethodEntry] {
    TABLE
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

    fn require_finite(&self, prediction: &[f32], call: Call) -> Result<()> {
        self.denoiser.require_finite(prediction, call)
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
