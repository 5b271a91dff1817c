//! Scheduler configuration: key types, defaults, valid choices, and their errors.

pub(super) mod keys;

use super::{Config, SchedulerEntry};
use crate::error::{Error, Result};
use serde_json::Value;

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
    fn describe_expected(&self) -> String {
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

    /// Returns true if `value` has this type.
    fn accepts(&self, value: &Value) -> bool {
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
            Self::MaybeScheduler => nested_entry(value).is_some(),
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

/// Returns the scheduler that a nested table names.
fn nested_entry(value: &Value) -> Option<&'static SchedulerEntry> {
    super::find(value.as_object()?.get(CLASS_NAME)?.as_str()?)
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

/// A scheduler's keys with their values in a merged configuration.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerSettings<'a> {
    scheduler: &'static str,
    keys: &'static [SchedulerKey],
    config: &'a Config,
}

impl<'a> SchedulerSettings<'a> {
    pub(super) fn new(scheduler: &'static str, keys: &'static [SchedulerKey], config: &'a Config) -> Self {
        Self { scheduler, keys, config }
    }

    /// Creates an error about `key`.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>, help: impl Into<String>) -> Error {
        Error::Scheduler { scheduler: self.scheduler, key: key.to_owned(), problem: problem.into(), help: help.into() }
    }

    /// Returns true if the class has this key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    /// Returns the key's type and its value, checked against the type; `None` if absent or `null`.
    fn get(&self, name: &str) -> Result<(SchedulerKeyKind, Option<&'a Value>)> {
        let Some(key) = self.keys.iter().find(|key| key.name == name) else {
            return Err(self.error(name, "the class has no such key", ""));
        };
        let value = self.config.get(name);
        if let Some(value) = value
            && !key.kind.accepts(value)
        {
            let help = suggestion(value, &key.kind).map(|word| format!("did you mean {word:?}?")).unwrap_or_default();
            return Err(self.error(name, format!("expected {}, found {value}", key.kind.describe_expected()), help));
        }
        Ok((key.kind, value.filter(|value| !value.is_null())))
    }

    pub(super) fn count(&self, name: &str) -> Result<usize> {
        let (kind, value) = self.get(name)?;
        let default = match kind {
            SchedulerKeyKind::Count(default) | SchedulerKeyKind::Order { default, .. } => default,
            _ => 1,
        };
        Ok(value.and_then(as_integer).and_then(|n| usize::try_from(n).ok()).unwrap_or(default))
    }

    pub(super) fn integer(&self, name: &str) -> Result<i64> {
        let (kind, value) = self.get(name)?;
        let default = if let SchedulerKeyKind::Integer(default) = kind { default } else { 0 };
        Ok(value.and_then(as_integer).unwrap_or(default))
    }

    pub(super) fn maybe_integer(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.get(name)?.1.and_then(as_integer))
    }

    pub(super) fn float(&self, name: &str) -> Result<f64> {
        let (kind, value) = self.get(name)?;
        let default = if let SchedulerKeyKind::Float(default) = kind { default } else { 0.0 };
        Ok(value.and_then(as_float).unwrap_or(default))
    }

    pub(super) fn maybe_float(&self, name: &str) -> Result<Option<f64>> {
        Ok(self.get(name)?.1.and_then(as_float))
    }

    pub(super) fn maybe_floats(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let list = self.get(name)?.1.and_then(Value::as_array);
        Ok(list.map(|list| list.iter().filter_map(as_float).collect()))
    }

    /// Returns a number that this class reads from the configuration without declaring it. diffusers keeps other
    /// classes' entries in `scheduler.config` and reads `sigma_min` and `sigma_max` from there.
    pub(super) fn undeclared_float(&self, name: &str) -> Option<f64> {
        self.config.get(name).and_then(as_float)
    }

    /// Returns a word without checking it against the class's choices: diffusers compares it with some that are not
    /// among them.
    pub(super) fn unchecked_word(&self, name: &str) -> Option<&'a str> {
        self.config.get(name).and_then(Value::as_str)
    }

    /// Returns true if a switch is on; false if the class does not have it.
    pub(super) fn switch(&self, name: &str) -> Result<bool> {
        if !self.has(name) {
            return Ok(false);
        }
        let (kind, value) = self.get(name)?;
        let default =
            matches!(kind, SchedulerKeyKind::Switch(true)) && !self.config.get(name).is_some_and(Value::is_null);
        Ok(value.and_then(Value::as_bool).unwrap_or(default))
    }

    pub(super) fn maybe_switch(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.get(name)?.1.and_then(Value::as_bool))
    }

    /// Returns the table of a nested scheduler, if any.
    pub(super) fn maybe_scheduler(&self, name: &str) -> Result<Option<&'a Config>> {
        Ok(self.get(name)?.1.and_then(Value::as_object))
    }

    /// Rejects runs with more steps than training timesteps.
    pub(super) fn limit_steps(&self, steps: usize, train: usize) -> Result<()> {
        if steps > train {
            let problem = format!("{steps} steps exceed the {train} training timesteps");
            return Err(self.error("steps", problem, "use fewer steps"));
        }
        Ok(())
    }

    pub(super) fn choice(&self, name: &str) -> Result<&'a str> {
        let (kind, value) = self.get(name)?;
        let default = if let SchedulerKeyKind::Choice { default, .. } = kind { default } else { "" };
        Ok(value.and_then(Value::as_str).unwrap_or(default))
    }

    /// Returns true if the value is another class's word, which this class reads as its default.
    pub(super) fn is_foreign(&self, name: &str) -> Result<bool> {
        let (kind, _) = self.get(name)?;
        let word = self.config.get(name).and_then(Value::as_str);
        Ok(matches!(kind, SchedulerKeyKind::Choice { foreign, .. } if word.is_some_and(|word| foreign.contains(&word))))
    }

    pub(super) fn maybe_choice(&self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.get(name)?.1.and_then(Value::as_str))
    }
}

/// Returns every problem of a pipeline's table for a scheduler with these keys, as pairs of key and message.
pub(super) fn check(keys: &'static [SchedulerKey], scheduler: &str, table: &Config) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    for (name, value) in table {
        match keys.iter().find(|key| key.name == name) {
            None => {
                let near = nearest(name, keys.iter().map(|key| key.name));
                let advice = match near.first() {
                    Some(near) => format!("; did you mean {near}?"),
                    None => format!("; it has {}", keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")),
                };
                problems.push((name.clone(), format!("{scheduler} has no such key{advice}")));
            }
            Some(SchedulerKey { kind: SchedulerKeyKind::MaybeScheduler, .. })
                if let Some(entry) = nested_entry(value) =>
            {
                let mut nested = value.as_object().cloned().unwrap_or_default();
                nested.remove(CLASS_NAME);
                let inner = check(entry.keys, entry.name, &nested).into_iter();
                problems.extend(inner.map(|(key, problem)| (name.clone(), format!("{key}: {problem}"))));
            }
            Some(key) if !key.kind.accepts(value) => {
                let advice =
                    suggestion(value, &key.kind).map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
                problems
                    .push((name.clone(), format!("expected {}, found {value}{advice}", key.kind.describe_expected())));
            }
            Some(_) => {}
        }
    }
    problems
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

fn suggestion(value: &Value, kind: &SchedulerKeyKind) -> Option<&'static str> {
    match kind {
        SchedulerKeyKind::Choice { valid, .. } | SchedulerKeyKind::MaybeChoice { valid, .. } => {
            nearest(value.as_str()?, valid.iter().copied()).first().copied()
        }
        _ => None,
    }
}

fn as_integer(value: &Value) -> Option<i64> {
    // Other tools write integers as 1000.0; a double holds integers exactly up to 2^53.
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0).then_some(f as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

fn as_float(value: &Value) -> Option<f64> {
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
