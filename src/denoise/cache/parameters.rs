//! The parameters of caching methods: what `[cache.NAME]` says.

use super::{Entry, Method};

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
