//! `[scheduler.NAME]`: the scheduler, and the keys of its configuration that are set.

use serde_json::Value as Json;

use crate::keys::{Table, Value, Writer};
use crate::scheduler::{self, Config, SchedulerEntry};

/// `[scheduler.NAME]`: the scheduler, where it is not the model's own.
///
/// The keys, their spelling and their defaults are those of the class of that name in diffusers. Choosing another
/// class than the model's keeps what the model's scheduler_config.json says and the class knows.
///
/// Some pipeline classes of diffusers correct their scheduler's configuration: for Stable Diffusion 1 and 2,
/// `steps_offset` becomes 1 and `clip_sample` false (for inpainting `skip_prk_steps` true instead), also if the file lacks
/// the key. `ldm-ort check` shows each correction. A key of this table wins over it. A table that names the model's own
/// class without the key keeps the correction, where `from_config` in Python would lose the correction of a missing key.
/// Another class is `X.from_config(pipe.scheduler.config)`: a wrong key carries its corrected value, a missing key has the
/// default of the new class.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerSpec {
    /// The scheduler's name, as it is written: such as `ddim`, its class, or an alias such as `DPM++ 2M Karras`.
    pub name: String,
    /// The keys of the table.
    pub table: Config,
}

impl SchedulerSpec {
    /// The scheduler of this name, with every key as the model or the class has it.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), table: Config::new() }
    }

    /// Reads `[scheduler]`; `None` where the model's own is to be taken.
    pub(super) fn read(table: Table<'_>) -> Option<Self> {
        let entries = scheduler::table().iter();
        let names = entries.clone().map(|entry| entry.name);
        let aliases = entries.flat_map(|entry| entry.aliases.iter().map(|alias| alias.name));
        // A name stays as it is written, since an alias may stand for more than a class.
        let find = |name: &str| Some((scheduler::find(name)?, name.to_owned()));
        let found = table.named_tables("scheduler", names, aliases, find);
        let mut schedulers =
            found.into_iter().map(|((entry, name), table)| Self { name, table: read_keys(entry, table) });
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

/// True if two names stand for the same class with the same keys set.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    match (scheduler::find_alias(one), scheduler::find_alias(other)) {
        (Some(one), Some(other)) => one.0.name == other.0.name && one.1 == other.1,
        _ => one == other,
    }
}

fn read_keys(entry: &SchedulerEntry, mut table: Table<'_>) -> Config {
    let mut keys = Config::new();
    for key in entry.keys {
        if let Some(item) = table.get(key.name) {
            keys.insert(key.name.to_owned(), json(item.value()));
        }
    }
    for (key, message) in scheduler::check_table(entry, &keys) {
        table.report_at(&key, message);
    }
    table.finish();
    keys
}

/// Converts a value to JSON. Numbers that are not finite become strings, as Python writes them.
fn json(value: &Value) -> Json {
    match value {
        Value::String(text) | Value::Datetime(text) => Json::from(text.as_str()),
        Value::Integer(n) => i64::try_from(*n).map_or_else(|_| Json::from(*n as f64), Json::from),
        Value::Float(x) if x.is_finite() => Json::from(*x),
        Value::Float(x) if x.is_nan() => Json::from("NaN"),
        Value::Float(x) => Json::from(if *x > 0.0 { "Infinity" } else { "-Infinity" }),
        Value::Boolean(b) => Json::from(*b),
        Value::Array(items) => items.iter().map(|item| json(&item.value)).collect(),
        Value::Table(entries) => entries.iter().map(|(key, node)| (key.clone(), json(&node.value))).collect(),
        // No scheduler has such a key, which is said by name.
        Value::Pixels(_) => Json::Null,
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
