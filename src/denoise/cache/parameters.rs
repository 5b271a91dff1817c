//! The parameters of caching methods, the keys of `[cache.NAME]`.

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
