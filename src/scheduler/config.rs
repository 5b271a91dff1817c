//! Scheduler configuration: keys, their types, defaults and valid choices.

pub(super) mod keys;

use serde_json::Value;

/// A scheduler's configuration: the keys of a scheduler_config.json or of the pipeline's table. Infinities, which JSON
/// cannot express as numbers, are the strings `"Infinity"` and `"-Infinity"`.
pub type Config = serde_json::Map<String, Value>;

/// The value type of a configuration key, with the class's default.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum SchedulerKeyKind {
    /// An integer from 1 to 100,000.
    Count(usize),
    /// The order of a solver: an integer of at least 1.
    Order {
        /// The class's default.
        default: usize,
        /// The highest order.
        max: usize,
        /// True if a higher order in a model's file, written for another class, is read as this class's highest.
        clamp: bool,
    },
    /// An integer.
    Integer(i64),
    /// An integer or `null`; `null` by default.
    MaybeInteger,
    /// A number. Infinities are also read from the strings `"Infinity"` and `"-Infinity"`.
    Float(f64),
    /// A number or `null`; `null` by default.
    MaybeFloat,
    /// A list of numbers or `null`; `null` by default.
    MaybeFloats,
    /// `true` or `false`; `null` reads as `false`, as in Python.
    Switch(bool),
    /// `true`, `false` or `null`; `null` by default.
    MaybeSwitch,
    /// One of several words.
    Choice {
        /// The class's default.
        default: &'static str,
        /// The valid words.
        valid: &'static [&'static str],
        /// Words of other classes under the same key, which this class reads as its default.
        foreign: &'static [&'static str],
    },
    /// One of several words or `null`; `null` by default.
    MaybeChoice {
        /// The valid words.
        valid: &'static [&'static str],
        /// Words of other classes under the same key, which this class ignores.
        foreign: &'static [&'static str],
    },
    /// Another scheduler or `null`: a table of its keys with its name, any that [`super::find`] knows, in
    /// `_class_name`.
    MaybeScheduler,
}

/// The largest count. It bounds the tables of training timesteps.
const MAX_COUNT: usize = 100_000;

impl SchedulerKeyKind {
    /// Describes the expected value for an error message.
    pub(super) fn describe_expected(&self) -> String {
        match self {
            Self::Count(_) => format!("an integer from 1 to {MAX_COUNT}"),
            Self::Order { max, .. } => format!("an integer from 1 to {max}"),
            Self::Integer(_) | Self::MaybeInteger => "an integer".to_owned(),
            Self::Float(_) | Self::MaybeFloat => "a number".to_owned(),
            Self::MaybeFloats => "a list of numbers".to_owned(),
            Self::Switch(_) | Self::MaybeSwitch => "true or false".to_owned(),
            Self::Choice { valid, .. } | Self::MaybeChoice { valid, .. } => format!("one of {}", valid.join(", ")),
            Self::MaybeScheduler => "a table whose _class_name names a scheduler".to_owned(),
        }
    }

    /// Returns true if `value` has this type. `is_scheduler` knows the names of schedulers.
    pub(super) fn accepts(&self, value: &Value, is_scheduler: fn(&str) -> bool) -> bool {
        match self {
            _ if value.is_null() => true,
            Self::Count(_) => as_integer(value).is_some_and(|n| (1..=MAX_COUNT as i64).contains(&n)),
            Self::Order { max, .. } => as_integer(value).is_some_and(|n| (1..=*max as i64).contains(&n)),
            // The bound keeps sums with a few timesteps exact in double precision.
            Self::Integer(_) => as_integer(value).is_some_and(|n| n.unsigned_abs() < 1 << 52),
            Self::MaybeInteger => as_integer(value).is_some(),
            Self::Float(_) | Self::MaybeFloat => as_float(value).is_some(),
            Self::MaybeFloats => value.as_array().is_some_and(|list| list.iter().all(|v| as_float(v).is_some())),
            Self::Switch(_) | Self::MaybeSwitch => value.is_boolean(),
            Self::Choice { valid, foreign, .. } | Self::MaybeChoice { valid, foreign } => {
                value.as_str().is_some_and(|word| valid.contains(&word) || foreign.contains(&word))
            }
            Self::MaybeScheduler => nested_name(value).is_some_and(is_scheduler),
        }
    }

    /// Returns a value from a model's file as this class reads it.
    pub(super) fn clamp_foreign(&self, value: &Value) -> Value {
        match self {
            Self::Order { max, clamp: true, .. } if as_integer(value).is_some_and(|n| n > *max as i64) => {
                Value::from(*max)
            }
            _ => value.clone(),
        }
    }
}

/// Returns the name of the scheduler in a nested table.
pub(super) fn nested_name(value: &Value) -> Option<&str> {
    value.as_object()?.get(CLASS_NAME)?.as_str()
}

/// The key of a scheduler_config.json that holds the class name.
pub(super) const CLASS_NAME: &str = "_class_name";

/// One configuration key of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SchedulerKey {
    /// The name, as diffusers spells it.
    pub name: &'static str,
    /// Type, default and valid choices.
    pub kind: SchedulerKeyKind,
    /// True if it is an argument of diffusers' `step()` rather than of the class. Such a key is read only from the
    /// pipeline's table, never from a scheduler_config.json.
    pub argument: bool,
}

impl SchedulerKey {
    /// Creates a configuration key of the class.
    pub(super) const fn new(name: &'static str, kind: SchedulerKeyKind) -> Self {
        Self { name, kind, argument: false }
    }

    /// Creates an argument of the class's `step()`.
    pub(super) const fn argument(name: &'static str, kind: SchedulerKeyKind) -> Self {
        Self { name, kind, argument: true }
    }

    pub(super) const fn switch(name: &'static str, default: bool) -> Self {
        Self::new(name, SchedulerKeyKind::Switch(default))
    }

    pub(super) const fn float(name: &'static str, default: f64) -> Self {
        Self::new(name, SchedulerKeyKind::Float(default))
    }

    pub(super) const fn choice(name: &'static str, default: &'static str, valid: &'static [&'static str]) -> Self {
        Self::new(name, SchedulerKeyKind::Choice { default, valid, foreign: &[] })
    }
}

/// Returns at most three candidates that resemble `name`, nearest first.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let mut scored: Vec<(f64, &str)> = candidates
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

/// Returns the valid word that a wrong one resembles.
pub(super) fn suggestion(value: &Value, kind: &SchedulerKeyKind) -> Option<&'static str> {
    match kind {
        SchedulerKeyKind::Choice { valid, .. } | SchedulerKeyKind::MaybeChoice { valid, .. } => {
            nearest(value.as_str()?, valid.iter().copied()).first().copied()
        }
        _ => None,
    }
}

pub(super) fn as_integer(value: &Value) -> Option<i64> {
    // Other tools write integers as 1000.0; a double holds integers exactly up to 2^53.
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0).then_some(f as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

pub(super) fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(word) => match word.as_str() {
            "Infinity" | "inf" | "+inf" => Some(f64::INFINITY),
            "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}
