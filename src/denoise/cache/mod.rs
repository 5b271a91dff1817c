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

use parameters::{At, Method};

pub use parameters::{Entry, Key, Kind, StepCache, Value};

static TABLE: &[Entry] = &[easycache::ENTRY, ucache::ENTRY, spectrum::ENTRY, deepcache::ENTRY];

/// All methods.
pub fn table() -> &'static [Entry] {
    TABLE
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
