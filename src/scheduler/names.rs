//! The names by which people know schedulers: ours, diffusers' classes, and those of AUTOMATIC1111, ComfyUI and InvokeAI.

use super::{SchedulerEntry, config, table};
use serde_json::Value;

/// A name under which another program knows a scheduler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alias {
    /// The name, such as `DPM++ 2M Karras` or `dpmpp_2m`.
    pub name: &'static str,
    /// The configuration keys the name stands for, with their values.
    pub settings: &'static [(&'static str, Setting)],
}

/// The value of a key that an [`Alias`] stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Setting {
    /// A switch.
    Switch(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// A word.
    Word(&'static str),
}

impl Setting {
    /// The value as it stands in a [`Config`](super::Config).
    pub fn value(self) -> Value {
        match self {
            Self::Switch(on) => Value::from(on),
            Self::Integer(n) => Value::from(n),
            Self::Float(f) => Value::from(f),
            Self::Word(word) => Value::from(word),
        }
    }
}

impl Alias {
    pub(super) const fn plain(name: &'static str) -> Self {
        Self { name, settings: &[] }
    }
}

/// Words that other programs put behind a sampler's name to choose how its steps are spaced, and the key each stands
/// for: `DPM++ 2M Karras`, `euler_k`, `Heun SGM Uniform`.
pub const SUFFIXES: &[(&str, (&str, Setting))] = &[
    ("Karras", ("use_karras_sigmas", Setting::Switch(true))),
    ("k", ("use_karras_sigmas", Setting::Switch(true))),
    ("Exponential", ("use_exponential_sigmas", Setting::Switch(true))),
    ("Beta", ("use_beta_sigmas", Setting::Switch(true))),
    ("SGM Uniform", ("timestep_spacing", Setting::Word("trailing"))),
    ("Simple", ("timestep_spacing", Setting::Word("trailing"))),
];

/// The scheduler with this name, class (`Scheduler` at its end may be left off) or alias; case, spaces, `-` and `_` do
/// not matter.
pub fn find(name: &str) -> Option<&'static SchedulerEntry> {
    find_alias(name).map(|(entry, _)| entry)
}

/// As [`find`], with the keys that the name stands for beside the class: `use_karras_sigmas` for `DPM++ 2M Karras`.
///
/// A name may end in one of [`SUFFIXES`] where the class has the key.
pub fn find_alias(name: &str) -> Option<(&'static SchedulerEntry, Vec<(&'static str, Setting)>)> {
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

/// The names nearest to one that [`find`] does not know, at most three; may be empty.
pub fn suggest(name: &str) -> Vec<&'static str> {
    let names = table()
        .iter()
        .flat_map(|entry| [entry.name, entry.class].into_iter().chain(entry.aliases.iter().map(|alias| alias.name)));
    config::nearest(name, names)
}
