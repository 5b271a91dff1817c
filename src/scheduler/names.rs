//! Scheduler names: this crate's, diffusers' classes, and those of AUTOMATIC1111, ComfyUI and InvokeAI.

use super::{SchedulerEntry, config, table};
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

/// Finds a scheduler by name, class (with or without `Scheduler` at its end) or alias. Case, spaces, `-` and `_` do not
/// matter.
pub fn find(name: &str) -> Option<&'static SchedulerEntry> {
    find_alias(name).map(|(entry, _)| entry)
}

/// Finds a scheduler like [`find`] and returns the keys that the name implies, such as `use_karras_sigmas` for
/// `DPM++ 2M Karras`.
///
/// A name may end in one of [`SUFFIXES`] if the class has the key.
pub fn find_alias(name: &str) -> Option<(&'static SchedulerEntry, Vec<(&'static str, AliasValue)>)> {
    let wanted = plain(name);
    let exact = |wanted: &str| {
        let direct = table().iter().find(|entry| {
            let class = plain(entry.class);
            plain(entry.name) == wanted || class == wanted || class.strip_suffix("scheduler") == Some(wanted)
        });
        if let Some(entry) = direct {
            return Some((entry, Vec::new()));
        }
        table().iter().find_map(|entry| {
            let alias = entry.aliases.iter().find(|alias| plain(alias.name) == wanted)?;
            Some((entry, alias.settings.to_vec()))
        })
    };
    exact(&wanted).or_else(|| {
        SUFFIXES.iter().find_map(|(suffix, setting)| {
            let (entry, mut settings) = exact(wanted.strip_suffix(&plain(suffix))?)?;
            settings.push(*setting);
            entry.has_key(setting.0).then_some((entry, settings))
        })
    })
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Suggests at most three names similar to an unknown one; may be empty.
pub fn suggest(name: &str) -> Vec<&'static str> {
    let names = table()
        .iter()
        .flat_map(|entry| [entry.name, entry.class].into_iter().chain(entry.aliases.iter().map(|alias| alias.name)));
    config::nearest(name, names)
}
