//! Fewer evaluations: methods that answer for the model at some steps, from what it answered at others.
//!
//! Most see the denoiser from outside, what it is given and what it answers, and so work with every graph. With guidance
//! they see the guided prediction: a step is computed with all of its branches or with none. DeepCache has the shallow
//! layers of a UNet answer, on what the deep ones gave at another step. [`table`] lists the methods; each is a file and a
//! row of it.
//!
//! A step of a second-order scheduler asks the model twice. Such a step is decided as one, by its first call; what is
//! remembered is remembered for each of the two calls apart, since they stand at different times.

mod change;
mod deepcache;
mod easycache;
mod parameters;
mod spectrum;
mod ucache;

use super::{Call, Denoiser};
use crate::error::Result;

pub use parameters::{Key, Kind, StepCache, Value};

/// One row of the table of methods.
#[derive(Debug)]
pub struct Entry {
    /// The name in pipeline.toml, such as `easycache`.
    pub name: &'static str,
    /// One sentence, and where the method was published.
    pub about: &'static str,
    /// Whether what it decides depends on the image, so that images have to be denoised one at a time for an image
    /// not to depend on its neighbours in a batch.
    pub decides_by_image: bool,
    /// Whether steps that are skipped are answered by the shallow layers of a UNet, cut as its key `branch` says.
    pub runs_outer_layers: bool,
    /// Its parameters, in the order in which they are listed.
    pub keys: &'static [Key],
    build: fn(&StepCache) -> Box<dyn Method>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

static TABLE: &[Entry] = &[easycache::ENTRY, ucache::ENTRY, spectrum::ENTRY, deepcache::ENTRY];

/// All methods.
pub fn table() -> &'static [Entry] {
    TABLE
}

/// A step of the scheduler's, at one of its calls of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    /// The step's index, counted from 0.
    step: usize,
    /// The steps of the run.
    of: usize,
    /// Which of the step's calls this is, counted from 0.
    stage: usize,
}

impl At {
    fn new(call: Call) -> Self {
        Self { step: call.step(), of: call.steps(), stage: call.index % call.order.max(1) }
    }
}

/// What decides which steps are computed, and answers for those that are not.
///
/// Samples are what the model is given, predictions the guided ones, both flat, all images of the batch one after the
/// other; a prediction is longer than its sample where the model predicts variances too.
trait Method {
    /// Whether this step is to be answered without the whole model. Asked once for each step, at its first call.
    fn skips(&mut self, at: At, sample: &[f32]) -> bool;

    /// Writes the answer for a call of a step that is skipped; `false` where nothing is known of such calls, which then
    /// are computed, by the shallow layers alone where the denoiser was given those.
    fn forecast(&self, at: At, sample: &[f32], prediction: &mut [f32]) -> bool;

    /// Learns what the model answered.
    fn learn(&mut self, at: At, sample: &[f32], prediction: &[f32]);

    /// Forgets all answers so far, since those that follow are of another kind.
    fn forget(&mut self);
}

/// A denoiser that is not asked at every call.
pub struct Cached<'a> {
    denoiser: &'a mut dyn Denoiser,
    method: Box<dyn Method>,
    skipping: bool,
}

impl<'a> Cached<'a> {
    /// Sets a method before a denoiser, for one run.
    pub fn new(denoiser: &'a mut dyn Denoiser, cache: &StepCache) -> Self {
        Self { denoiser, method: cache.build(), skipping: false }
    }
}

impl Denoiser for Cached<'_> {
    fn predict(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<()> {
        let at = At::new(call);
        if self.denoiser.changes_at(call) {
            self.method.forget();
        }
        if at.stage == 0 {
            self.skipping = self.method.skips(at, sample);
        }
        if self.skipping
            && (self.method.forecast(at, sample, prediction)
                || self.denoiser.predict_shallow(sample, call, prediction)?)
        {
            return Ok(());
        }
        self.denoiser.predict(sample, call, prediction)?;
        self.method.learn(at, sample, prediction);
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
