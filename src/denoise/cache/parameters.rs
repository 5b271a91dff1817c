//! The interface of caching methods, and their parameters: the keys of `[cache.NAME]`.

use crate::denoise::Call;

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
    pub(super) build: fn(&StepCache) -> Box<dyn Method>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A step of the scheduler's, at one of its calls of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// The step's index, counted from 0.
    pub(super) step: usize,
    /// The steps of the run.
    pub(super) of: usize,
    /// Which of the step's calls this is, counted from 0.
    pub(super) stage: usize,
}

impl At {
    pub(super) fn new(call: Call) -> Self {
        Self { step: call.step(), of: call.steps(), stage: call.index % call.order.max(1) }
    }
}

/// What decides which steps are computed, and answers for those that are not.
///
/// Samples are what the model is given, predictions the guided ones, both flat, all images of the batch one after the
/// other; a prediction is longer than its sample where the model predicts variances too.
pub(super) trait Method {
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

/// A parameter of a method: a key of its table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Its name, as it was published.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// What a parameter holds, with its default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A finite number.
    Number {
        /// Where nothing is said.
        default: f64,
        /// The least.
        low: f64,
        /// The most.
        high: f64,
    },
    /// A whole number.
    Whole {
        /// Where nothing is said.
        default: usize,
        /// The least.
        low: usize,
        /// The most.
        high: usize,
    },
    /// Yes or no.
    Switch {
        /// Where nothing is said.
        default: bool,
    },
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Of a [`Kind::Number`].
    Number(f64),
    /// Of a [`Kind::Whole`].
    Whole(usize),
    /// Of a [`Kind::Switch`].
    Switch(bool),
}

impl Key {
    pub(super) const fn number(name: &'static str, default: f64, low: f64, high: f64) -> Self {
        Self { name, kind: Kind::Number { default, low, high } }
    }

    pub(super) const fn whole(name: &'static str, default: usize, low: usize, high: usize) -> Self {
        Self { name, kind: Kind::Whole { default, low, high } }
    }

    pub(super) const fn switch(name: &'static str, default: bool) -> Self {
        Self { name, kind: Kind::Switch { default } }
    }

    /// The value where nothing is said.
    pub fn default(&self) -> Value {
        match self.kind {
            Kind::Number { default, .. } => Value::Number(default),
            Kind::Whole { default, .. } => Value::Whole(default),
            Kind::Switch { default } => Value::Switch(default),
        }
    }
}

/// A caching method with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct StepCache {
    entry: &'static Entry,
    /// One for each of the entry's keys.
    values: Vec<Value>,
}

impl StepCache {
    /// A method with the parameters that `given` tells, and for the others their defaults.
    pub fn new(entry: &'static Entry, mut given: impl FnMut(&Key) -> Option<Value>) -> Self {
        let values = entry.keys.iter().map(|key| given(key).unwrap_or_else(|| key.default())).collect();
        Self { entry, values }
    }

    /// The method.
    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// All parameters: name and value.
    pub fn parameters(&self) -> impl Iterator<Item = (&'static str, Value)> + '_ {
        self.entry.keys.iter().map(|key| key.name).zip(self.values.iter().copied())
    }

    /// The branch at which a UNet is cut, where its shallow layers are run alone.
    pub fn branch(&self) -> Option<usize> {
        self.entry.runs_outer_layers.then(|| self.whole("branch"))
    }

    /// Makes the method for one run.
    pub(super) fn build(&self) -> Box<dyn Method> {
        (self.entry.build)(self)
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Number(value)) => value,
            other => unreachable_parameter(name, other, f64::NAN),
        }
    }

    pub(super) fn whole(&self, name: &str) -> usize {
        match self.value(name) {
            Some(Value::Whole(value)) => value,
            other => unreachable_parameter(name, other, 1),
        }
    }

    pub(super) fn switch(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Switch(value)) => value,
            other => unreachable_parameter(name, other, false),
        }
    }

    fn value(&self, name: &str) -> Option<Value> {
        self.parameters().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// A method asks for a parameter that its row of the table does not have, or has as something else: a mistake of this
/// room, which its tests find by building every method.
fn unreachable_parameter<T>(name: &str, found: Option<Value>, none: T) -> T {
    debug_assert!(false, "{name} is {found:?}");
    none
}
