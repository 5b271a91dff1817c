//! The values of a scheduler's configuration, with their errors.

use super::config::{Config, SchedulerKey, SchedulerKeyKind, as_float, as_integer, nested_name, suggestion};
use super::schedule_request::ScheduleRequest;
use super::step::Scheduler;
use crate::error::{Error, Result};
use serde_json::Value;

/// The schedulers that can be nested in another, as UniPC's `solver_p`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SchedulerCatalog {
    /// Returns true if a scheduler has this name.
    pub contains: fn(&str) -> bool,
    /// Builds the scheduler of this name from a table of its keys.
    pub build: fn(&str, &Config, &ScheduleRequest) -> Result<Box<dyn Scheduler>>,
}

/// A scheduler's keys with their values in a merged configuration.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerSettings<'a> {
    scheduler: &'static str,
    keys: &'static [SchedulerKey],
    config: &'a Config,
    catalog: SchedulerCatalog,
}

impl<'a> SchedulerSettings<'a> {
    pub(super) fn new(
        scheduler: &'static str,
        keys: &'static [SchedulerKey],
        config: &'a Config,
        catalog: SchedulerCatalog,
    ) -> Self {
        Self { scheduler, keys, config, catalog }
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
            && !key.kind.accepts(value, self.catalog.contains)
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

    /// Returns the name and the table of a nested scheduler, if any.
    pub(super) fn maybe_scheduler(&self, name: &str) -> Result<Option<(&'a str, &'a Config)>> {
        let nested = self.get(name)?.1.and_then(|value| Some((nested_name(value)?, value.as_object()?)));
        Ok(nested)
    }

    /// Builds a nested scheduler from its own table alone.
    pub(super) fn build_nested(
        &self,
        name: &str,
        table: &Config,
        request: &ScheduleRequest,
    ) -> Result<Box<dyn Scheduler>> {
        (self.catalog.build)(name, table, request)
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
