//! Names of schedulers in AUTOMATIC1111, ComfyUI and InvokeAI, and the keys that those names set.

use serde_json::Value;

/// A scheduler's name in another program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SchedulerAlias {
    /// The name, such as `DPM++ 2M Karras` or `dpmpp_2m`.
    pub name: &'static str,
    /// The configuration keys that the name sets, with their values.
    pub settings: &'static [(&'static str, AliasValue)],
}

/// The value that an [`SchedulerAlias`] gives a key.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum AliasValue {
    /// A switch.
    Switch(bool),
    /// An integer.
    Integer(i64),
    /// A number.
    Float(f64),
    /// A word.
    Word(&'static str),
}

impl AliasValue {
    /// Returns the value as a [`Config`](super::Config) holds it.
    pub fn value(self) -> Value {
        match self {
            Self::Switch(on) => Value::from(on),
            Self::Integer(n) => Value::from(n),
            Self::Float(f) => Value::from(f),
            Self::Word(word) => Value::from(word),
        }
    }
}

impl SchedulerAlias {
    pub(super) const fn plain(name: &'static str) -> Self {
        Self { name, settings: &[] }
    }
}

/// Suffixes of sampler names in other programs that choose the spacing of the steps, and the key each one sets:
/// `DPM++ 2M Karras`, `euler_k`, `Heun SGM Uniform`.
pub const SUFFIXES: &[(&str, (&str, AliasValue))] = &[
    ("Karras", ("use_karras_sigmas", AliasValue::Switch(true))),
    ("k", ("use_karras_sigmas", AliasValue::Switch(true))),
    ("Exponential", ("use_exponential_sigmas", AliasValue::Switch(true))),
    ("Beta", ("use_beta_sigmas", AliasValue::Switch(true))),
    ("SGM Uniform", ("timestep_spacing", AliasValue::Word("trailing"))),
    ("Simple", ("timestep_spacing", AliasValue::Word("trailing"))),
];
