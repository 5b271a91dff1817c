//! The JSON schema of pipeline.toml, made from the tables.

use serde_json::{Map, Value, json};

use super::{KEYS, KeyType, definitions};
use crate::bundle::ComponentKind;
use crate::denoise::cache::{self, CacheParameterType};
use crate::family::Family;
use crate::rng::Stream;
use crate::scheduler::{self, NAMED_SCHEDULES, SchedulerKeyKind};
use crate::session::PROVIDERS;
use crate::task::{TASKS, TaskEntry};

/// Makes a JSON schema (draft 2020-12) of pipeline.toml for editors. It has the current names of keys only, and the types of
/// their values; `ldm-ort check` checks ranges and what goes together. Tables that repeat are in `$defs`.
pub(crate) fn json_schema() -> Value {
    let mut properties = model_tables();
    let stages = {
        let mut stage = properties.clone();
        stage.extend(keys_of("stage[]"));
        json!({"type": "array", "items": table(stage)})
    };
    properties.insert("stage".into(), stages);
    let mut schema = definitions::share(table(properties));
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("pipeline.toml of ldm-ort");
    schema["required"] = json!(["model", "task"]);
    schema
}

/// The tables that describe one model's run.
fn model_tables() -> Map<String, Value> {
    let mut tables = Map::new();
    let mut model = keys_of("model");
    let mut device = keys_of("device");
    for kind in ComponentKind::ALL.into_iter().filter(|kind| *kind != ComponentKind::SafetyChecker) {
        model.insert(kind.name().into(), table(keys_of("model.COMPONENT")));
        device.insert(kind.name().into(), table(keys_of("device.COMPONENT")));
    }
    let option = json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}});
    device.extend(PROVIDERS.iter().map(|provider| (provider.name.to_owned(), option.clone())));
    tables.insert("model".into(), table(model));
    tables.insert("task".into(), tasks());
    tables.insert("scheduler".into(), schedulers());
    tables.insert("cache".into(), caches());
    for name in ["control", "condition", "lora", "textual_inversion"] {
        let items = table(keys_of(&format!("{name}[]")));
        tables.insert(name.into(), json!({"type": "array", "items": items}));
    }
    tables.insert("run".into(), table(keys_of("run")));
    let mut device = table(device);
    // The options of a plugin provider.
    device["additionalProperties"] = option;
    tables.insert("device".into(), device);
    tables.insert("output".into(), table(keys_of("output")));
    tables
}

/// A table with these keys and no others.
fn table(properties: Map<String, Value>) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// A table of which exactly one of these tables is given.
fn one_of(tables: Map<String, Value>) -> Value {
    json!({"type": "object", "properties": tables, "additionalProperties": false, "minProperties": 1, "maxProperties": 1})
}

fn keys_of(name: &str) -> Map<String, Value> {
    KEYS.iter()
        .filter(|key| key.table == name)
        .map(|key| (key.name.to_owned(), described(key.value, key.about)))
        .collect()
}

fn described(value: KeyType, about: &str) -> Value {
    let mut schema = value_schema(value);
    schema["description"] = about.into();
    schema
}

fn value_schema(value: KeyType) -> Value {
    let or_list = |item: Value| json!({"anyOf": [item, {"type": "array", "items": item}]});
    match value {
        KeyType::Text | KeyType::Path => json!({"type": "string"}),
        KeyType::Texts | KeyType::Paths => or_list(json!({"type": "string"})),
        KeyType::Integer => json!({"type": "integer"}),
        KeyType::IntegerOrText => json!({"type": ["integer", "string"]}),
        KeyType::IntegersOrTexts => or_list(json!({"type": ["integer", "string"]})),
        KeyType::Number => json!({"type": "number"}),
        KeyType::Numbers(count) => {
            json!({"type": "array", "items": {"type": "number"}, "minItems": count, "maxItems": count})
        }
        KeyType::Schedule => {
            let names: Vec<_> = NAMED_SCHEDULES.iter().map(|named| named.name).collect();
            json!({"anyOf": [{"type": "array", "items": {"type": "number"}}, {"enum": names}]})
        }
        KeyType::Switch => json!({"type": "boolean"}),
        KeyType::Choice(words) => json!({"enum": words}),
        KeyType::Family => json!({"enum": Family::names()}),
        KeyType::Noise => json!({"enum": Stream::TABLE.map(|(name, _)| name)}),
        KeyType::Providers => {
            let names = PROVIDERS
                .iter()
                .flat_map(|provider| [provider.name].into_iter().chain(provider.aliases.iter().copied()));
            // Any other name is a plugin provider's.
            or_list(json!({"anyOf": [{"enum": names.collect::<Vec<_>>()}, {"type": "string"}]}))
        }
        KeyType::Strings => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        KeyType::Boxes => json!({"type": "array", "items": {"type": "object", "required": ["class", "box"]}}),
    }
}

fn tasks() -> Value {
    let keys = keys_of("task.NAME");
    let task = |entry: &&TaskEntry| {
        let own = entry.keys().into_iter().filter_map(|name| Some((name.clone(), keys.get(&name)?.clone())));
        let mut task = table(own.collect());
        task["description"] = entry.about.into();
        (entry.name.to_owned(), task)
    };
    one_of(TASKS.iter().map(task).collect())
}

/// Schedulers by name and by class; a name of another program is any other table.
fn schedulers() -> Value {
    let mut tables = Map::new();
    for entry in scheduler::table() {
        let keys = entry.keys.iter().map(|key| (key.name.to_owned(), scheduler_value(&key.kind)));
        let mut scheduler = table(keys.collect());
        scheduler["description"] = entry.about.into();
        tables.insert(entry.class.into(), scheduler.clone());
        tables.insert(entry.name.into(), scheduler);
    }
    let mut schema = one_of(tables);
    schema["additionalProperties"] = json!({"type": "object"});
    schema
}

fn scheduler_value(kind: &SchedulerKeyKind) -> Value {
    match kind {
        SchedulerKeyKind::Count(default) | SchedulerKeyKind::Order { default, .. } => {
            json!({"type": "integer", "minimum": 1, "default": default})
        }
        SchedulerKeyKind::Integer(default) => json!({"type": "integer", "default": default}),
        SchedulerKeyKind::MaybeInteger => json!({"type": "integer"}),
        SchedulerKeyKind::Float(default) => json!({"type": ["number", "string"], "default": default}),
        SchedulerKeyKind::MaybeFloat => json!({"type": ["number", "string"]}),
        SchedulerKeyKind::MaybeFloats => json!({"type": "array", "items": {"type": "number"}}),
        SchedulerKeyKind::Switch(default) => json!({"type": "boolean", "default": default}),
        SchedulerKeyKind::MaybeSwitch => json!({"type": "boolean"}),
        SchedulerKeyKind::Choice { default, valid, foreign } => {
            let words = [*valid, *foreign].concat();
            json!({"enum": words, "default": default})
        }
        SchedulerKeyKind::MaybeChoice { valid, foreign } => {
            let words = [*valid, *foreign].concat();
            json!({"enum": words})
        }
        SchedulerKeyKind::MaybeScheduler => json!({"type": "object"}),
    }
}

fn caches() -> Value {
    let method = |entry: &cache::CacheMethodEntry| {
        let value = |kind| match kind {
            CacheParameterType::Number { default, low, high } => {
                json!({"type": "number", "minimum": low, "maximum": high, "default": default})
            }
            CacheParameterType::Integer { default, low, high } => {
                json!({"type": "integer", "minimum": low, "maximum": high, "default": default})
            }
            CacheParameterType::Switch { default } => json!({"type": "boolean", "default": default}),
        };
        let mut method = table(entry.keys.iter().map(|key| (key.name.to_owned(), value(key.kind))).collect());
        method["description"] = entry.about.into();
        (entry.name.to_owned(), method)
    };
    one_of(cache::table().iter().map(method).collect())
}
