//! The parameters of caching methods, the keys of `[cache.NAME]`.

use super::{CacheMethod, CacheMethodEntry};

/// A parameter of a caching method, a key of its table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheParameter {
    /// The name, as published.
    pub name: &'static str,
    /// The type, default and range.
    pub kind: CacheParameterType,
}

/// A parameter's type, with its default and range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CacheParameterType {
    /// A finite number.
    Number {
        /// The default.
        default: f64,
        /// The minimum.
        low: f64,
        /// The maximum.
        high: f64,
    },
    /// An integer.
    Integer {
        /// The default.
        default: usize,
        /// The minimum.
        low: usize,
        /// The maximum.
        high: usize,
    },
    /// `true` or `false`.
    Switch {
        /// The default.
        default: bool,
    },
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CacheParameterValue {
    /// The value of a [`CacheParameterType::Number`].
    Number(f64),
    /// The value of a [`CacheParameterType::Integer`].
    Integer(usize),
    /// The value of a [`CacheParameterType::Switch`].
    Switch(bool),
}

impl CacheParameter {
    pub(super) const fn number(name: &'static str, default: f64, low: f64, high: f64) -> Self {
        Self { name, kind: CacheParameterType::Number { default, low, high } }
    }

    pub(super) const fn integer(name: &'static str, default: usize, low: usize, high: usize) -> Self {
        Self { name, kind: CacheParameterType::Integer { default, low, high } }
    }

    pub(super) const fn switch(name: &'static str, default: bool) -> Self {
        Self { name, kind: CacheParameterType::Switch { default } }
    }

    /// Returns the default value.
    pub fn default(&self) -> CacheParameterValue {
        match self.kind {
            CacheParameterType::Number { default, .. } => CacheParameterValue::Number(default),
            CacheParameterType::Integer { default, .. } => CacheParameterValue::Integer(default),
            CacheParameterType::Switch { default } => CacheParameterValue::Switch(default),
        }
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
