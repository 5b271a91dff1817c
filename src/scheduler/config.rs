//! Reading a scheduler's configuration: one place for types, defaults, valid choices and their errors.

pub(super) mod keys;

use super::{Config, SchedulerEntry};
use crate::error::{Error, Result};
use serde_json::Value;

/// What a configuration key holds, with the class's default.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A whole number from 1 to 100,000.
    Count(usize),
    /// The order of a solver: a whole number of at least 1.
    Order {
        /// The class's default.
        default: usize,
        /// The highest order there is.
        most: usize,
        /// Whether a model's file may name a higher one, as other classes have; the class then takes its highest.
        lowers: bool,
    },
    /// A whole number.
    Integer(i64),
    /// A whole number or nothing; nothing by default.
    MaybeInteger,
    /// A number. Infinities are also read from the strings `"Infinity"` and `"-Infinity"`.
    Float(f64),
    /// A number or nothing; nothing by default.
    MaybeFloat,
    /// A list of numbers or nothing; nothing by default.
    MaybeFloats,
    /// `true` or `false`; nothing (`null`) is `false`, as it is in Python.
    Switch(bool),
    /// `true`, `false` or nothing; nothing by default.
    MaybeSwitch,
    /// One of a few words.
    Choice {
        /// The class's default.
        default: &'static str,
        /// The words that choose something.
        valid: &'static [&'static str],
        /// Words other classes' files hold under this key, which this class reads as something it knows.
        foreign: &'static [&'static str],
    },
    /// One of a few words or nothing; nothing by default.
    MaybeChoice {
        /// The words that choose something.
        valid: &'static [&'static str],
        /// Words other classes' files hold under this key, which mean nothing to this class.
        foreign: &'static [&'static str],
    },
    /// Another scheduler or nothing: a table of its keys, in which `_class_name` names it as [`super::find`] knows it.
    MaybeScheduler,
}

/// The most that a count is read as: a table of training timesteps of that length is built in a moment.
const MOST: usize = 100_000;

impl Kind {
    /// What is expected, for an error message.
    fn expected(&self) -> String {
        match self {
            Self::Count(_) => format!("a whole number from 1 to {MOST}"),
            Self::Order { most, .. } => format!("a whole number from 1 to {most}"),
            Self::Integer(_) | Self::MaybeInteger => "a whole number".to_owned(),
            Self::Float(_) | Self::MaybeFloat => "a number".to_owned(),
            Self::MaybeFloats => "a list of numbers".to_owned(),
            Self::Switch(_) | Self::MaybeSwitch => "true or false".to_owned(),
            Self::Choice { valid, .. } | Self::MaybeChoice { valid, .. } => format!("one of {}", valid.join(", ")),
            Self::MaybeScheduler => "a table whose _class_name names a scheduler".to_owned(),
        }
    }

    /// Whether `value` can be read as this kind.
    fn accepts(&self, value: &Value) -> bool {
        match self {
            _ if value.is_null() => true,
            Self::Count(_) => integer_of(value).is_some_and(|n| (1..=MOST as i64).contains(&n)),
            Self::Order { most, .. } => integer_of(value).is_some_and(|n| (1..=*most as i64).contains(&n)),
            // Sums of it and a few timesteps stay whole numbers, in double precision too.
            Self::Integer(_) => integer_of(value).is_some_and(|n| n.unsigned_abs() < 1 << 52),
            Self::MaybeInteger => integer_of(value).is_some(),
            Self::Float(_) | Self::MaybeFloat => float_of(value).is_some(),
            Self::MaybeFloats => value.as_array().is_some_and(|list| list.iter().all(|v| float_of(v).is_some())),
            Self::Switch(_) | Self::MaybeSwitch => value.is_boolean(),
            Self::Choice { valid, foreign, .. } | Self::MaybeChoice { valid, foreign } => {
                value.as_str().is_some_and(|word| valid.contains(&word) || foreign.contains(&word))
            }
            Self::MaybeScheduler => nested_entry(value).is_some(),
        }
    }

    /// The value of a model's file as the class reads it.
    pub(super) fn lowered(&self, value: &Value) -> Value {
        match self {
            Self::Order { most, lowers: true, .. } if integer_of(value).is_some_and(|n| n > *most as i64) => {
                Value::from(*most)
            }
            _ => value.clone(),
        }
    }
}

/// The scheduler that a nested table names.
fn nested_entry(value: &Value) -> Option<&'static SchedulerEntry> {
    super::find(value.as_object()?.get(CLASS_NAME)?.as_str()?)
}

/// The key under which a scheduler_config.json names its class.
pub(super) const CLASS_NAME: &str = "_class_name";

/// One configuration key of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// The spelling, diffusers' own.
    pub name: &'static str,
    /// Type, default and valid choices.
    pub kind: Kind,
    /// Whether it is an argument of diffusers' `step()` and not of the class, so that it is read from the
    /// pipeline's table only and never from a scheduler_config.json.
    pub argument: bool,
}

impl Key {
    /// A configuration key of the class.
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, argument: false }
    }

    /// An argument of the class's `step()`.
    pub(super) const fn argument(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, argument: true }
    }

    pub(super) const fn switch(name: &'static str, default: bool) -> Self {
        Self::new(name, Kind::Switch(default))
    }

    pub(super) const fn float(name: &'static str, default: f64) -> Self {
        Self::new(name, Kind::Float(default))
    }

    pub(super) const fn choice(name: &'static str, default: &'static str, valid: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Choice { default, valid, foreign: &[] })
    }
}

/// A scheduler's keys with the values a merged configuration gives them.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    scheduler: &'static str,
    keys: &'static [Key],
    config: &'a Config,
}

impl<'a> Settings<'a> {
    pub(super) fn new(scheduler: &'static str, keys: &'static [Key], config: &'a Config) -> Self {
        Self { scheduler, keys, config }
    }

    /// An error about `key`.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>, help: impl Into<String>) -> Error {
        Error::Scheduler { scheduler: self.scheduler, key: key.to_owned(), problem: problem.into(), help: help.into() }
    }

    /// Whether the class has this key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    /// The key's kind and its value, checked against the kind; `None` where absent or null.
    fn get(&self, name: &str) -> Result<(Kind, Option<&'a Value>)> {
        let Some(key) = self.keys.iter().find(|key| key.name == name) else {
            return Err(self.error(name, "the class has no such key", ""));
        };
        let value = self.config.get(name);
        if let Some(value) = value
            && !key.kind.accepts(value)
        {
            let help = suggestion(value, &key.kind).map(|word| format!("did you mean {word:?}?")).unwrap_or_default();
            return Err(self.error(name, format!("expected {}, found {value}", key.kind.expected()), help));
        }
        Ok((key.kind, value.filter(|value| !value.is_null())))
    }

    pub(super) fn count(&self, name: &str) -> Result<usize> {
        let (kind, value) = self.get(name)?;
        let default = match kind {
            Kind::Count(default) | Kind::Order { default, .. } => default,
            _ => 1,
        };
        Ok(value.and_then(integer_of).and_then(|n| usize::try_from(n).ok()).unwrap_or(default))
    }

    pub(super) fn integer(&self, name: &str) -> Result<i64> {
        let (kind, value) = self.get(name)?;
        let default = if let Kind::Integer(default) = kind { default } else { 0 };
        Ok(value.and_then(integer_of).unwrap_or(default))
    }

    pub(super) fn maybe_integer(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.get(name)?.1.and_then(integer_of))
    }

    pub(super) fn float(&self, name: &str) -> Result<f64> {
        let (kind, value) = self.get(name)?;
        let default = if let Kind::Float(default) = kind { default } else { 0.0 };
        Ok(value.and_then(float_of).unwrap_or(default))
    }

    pub(super) fn maybe_float(&self, name: &str) -> Result<Option<f64>> {
        Ok(self.get(name)?.1.and_then(float_of))
    }

    pub(super) fn maybe_floats(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let list = self.get(name)?.1.and_then(Value::as_array);
        Ok(list.map(|list| list.iter().filter_map(float_of).collect()))
    }

    /// A number that a model's file may hold for another class and that this class looks for without declaring it:
    /// diffusers keeps such entries in `scheduler.config` and reads `sigma_min` and `sigma_max` from there.
    pub(super) fn undeclared_float(&self, name: &str) -> Option<f64> {
        self.config.get(name).and_then(float_of)
    }

    /// As [`Self::undeclared_float`], for a word, whether or not it is among the class's choices: diffusers compares with
    /// some that it makes no other use of.
    pub(super) fn unchecked_word(&self, name: &str) -> Option<&'a str> {
        self.config.get(name).and_then(Value::as_str)
    }

    /// Whether a switch is on; off where the class does not have it.
    pub(super) fn switch(&self, name: &str) -> Result<bool> {
        if !self.has(name) {
            return Ok(false);
        }
        let (kind, value) = self.get(name)?;
        let default = matches!(kind, Kind::Switch(true)) && !self.config.get(name).is_some_and(Value::is_null);
        Ok(value.and_then(Value::as_bool).unwrap_or(default))
    }

    pub(super) fn maybe_switch(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.get(name)?.1.and_then(Value::as_bool))
    }

    /// The table of a nested scheduler.
    pub(super) fn maybe_scheduler(&self, name: &str) -> Result<Option<&'a Config>> {
        Ok(self.get(name)?.1.and_then(Value::as_object))
    }

    /// Refuses a run of more steps than there are timesteps of training.
    pub(super) fn limit_steps(&self, steps: usize, train: usize) -> Result<()> {
        if steps > train {
            let problem = format!("{steps} steps are more than the {train} timesteps of training");
            return Err(self.error("steps", problem, "ask for fewer"));
        }
        Ok(())
    }

    pub(super) fn choice(&self, name: &str) -> Result<&'a str> {
        let (kind, value) = self.get(name)?;
        let default = if let Kind::Choice { default, .. } = kind { default } else { "" };
        Ok(value.and_then(Value::as_str).unwrap_or(default))
    }

    /// Whether the value given is one of another class, which this one reads as its default.
    pub(super) fn is_foreign(&self, name: &str) -> Result<bool> {
        let (kind, _) = self.get(name)?;
        let given = self.config.get(name).and_then(Value::as_str);
        Ok(matches!(kind, Kind::Choice { foreign, .. } if given.is_some_and(|given| foreign.contains(&given))))
    }

    pub(super) fn maybe_choice(&self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.get(name)?.1.and_then(Value::as_str))
    }
}

/// Every problem of a pipeline's table for a scheduler with these keys, as pairs of key and message.
pub(super) fn check(keys: &'static [Key], scheduler: &str, table: &Config) -> Vec<(String, String)> {
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
            Some(Key { kind: Kind::MaybeScheduler, .. }) if let Some(entry) = nested_entry(value) => {
                let mut nested = value.as_object().cloned().unwrap_or_default();
                nested.remove(CLASS_NAME);
                let inner = check(entry.keys, entry.name, &nested).into_iter();
                problems.extend(inner.map(|(key, problem)| (name.clone(), format!("{key}: {problem}"))));
            }
            Some(key) if !key.kind.accepts(value) => {
                let advice =
                    suggestion(value, &key.kind).map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
                problems.push((name.clone(), format!("expected {}, found {value}{advice}", key.kind.expected())));
            }
            Some(_) => {}
        }
    }
    problems
}

/// The candidates that resemble `name`, nearest first, at most three.
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

fn suggestion(value: &Value, kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Choice { valid, .. } | Kind::MaybeChoice { valid, .. } => {
            nearest(value.as_str()?, valid.iter().copied()).first().copied()
        }
        _ => None,
    }
}

fn integer_of(value: &Value) -> Option<i64> {
    // Files written by other tools hold whole numbers as 1000.0; 2^53 bounds what a double holds exactly.
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0).then_some(f as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

fn float_of(value: &Value) -> Option<f64> {
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
