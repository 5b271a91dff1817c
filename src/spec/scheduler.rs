//! `[scheduler.NAME]`: the scheduler, and what of its configuration is set.

use serde_json::{Map, Value as Json};

use super::reader::Table;
use super::tree::Value;
use super::writer::Writer;

/// `[scheduler.NAME]`: the scheduler, where it is not the model's own.
///
/// The keys, their spelling and their defaults are those of the class of that name in diffusers. Choosing another
/// class than the model's keeps what the model's scheduler_config.json says and the class knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduler {
    /// The scheduler's name, such as `ddim`.
    pub name: String,
    /// The keys of the table.
    pub table: Map<String, Json>,
}

impl Scheduler {
    /// The scheduler of this name, with every key as the model or the class has it.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), table: Map::new() }
    }

    /// Reads `[scheduler]`; `None` where the model's own is to be taken.
    pub(super) fn read(table: Table<'_>) -> Option<Self> {
        let names = ["ddim", "ddpm", "pndm", "euler", "euler-ancestral", "dpm-multistep"];
        let found = table.named_tables("scheduler", names.into_iter(), |name| names.into_iter().find(|n| *n == name));
        let mut schedulers = found.into_iter().map(|(name, table)| {
            let keys = table.any_keys().into_iter().map(|(key, item)| (key.to_owned(), json(item.value())));
            Self { name: name.to_owned(), table: keys.collect() }
        });
        // All of them are read, so that what is wrong in any of them is told.
        let first = schedulers.next();
        schedulers.for_each(drop);
        first
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.table(&["scheduler", &self.name]);
        for (key, value) in &self.table {
            writer.key_if(key, toml(value));
        }
    }
}

/// What is not finite has no number in JSON and stands there as a string, as Python writes it.
fn json(value: &Value) -> Json {
    match value {
        Value::String(text) | Value::Datetime(text) => Json::from(text.as_str()),
        Value::Integer(n) => i64::try_from(*n).map_or_else(|_| Json::from(*n as f64), Json::from),
        Value::Float(x) => Json::from(*x),
        Value::Boolean(b) => Json::from(*b),
        Value::Array(items) => items.iter().map(|item| json(&item.value)).collect(),
        Value::Table(entries) => entries.iter().map(|(key, node)| (key.clone(), json(&node.value))).collect(),
    }
}

/// TOML's value for JSON's; `null` has none.
fn toml(value: &Json) -> Option<toml::Value> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(b) => (*b).into(),
        Json::Number(n) => n.as_i64().map(Into::into).or_else(|| n.as_f64().map(Into::into))?,
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().filter_map(toml).collect::<Vec<_>>().into(),
        Json::Object(map) => {
            toml::Value::Table(map.iter().filter_map(|(key, value)| Some((key.clone(), toml(value)?))).collect())
        }
    })
}
