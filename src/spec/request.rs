//! The tables of a request, merged into those of a pipeline file.

use toml::{Table, Value as TomlValue};

use super::renamed::rename;
use super::{Overrides, Spec};
use crate::error::{Error, Problem, Result};
use crate::keys::{Entries, Node, Origin, Reading, Value};
use crate::task::find;

/// Tables that hold one table, under the name of the chosen row.
const CHOICES: [&str; 3] = ["task", "scheduler", "cache"];

/// Tables of a pipeline file that a request may name.
const TABLES: [&str; 7] = ["task", "scheduler", "cache", "run", "control", "condition", "lora"];

/// Flat fields of the task's table.
const TASK_FIELDS: [&str; 6] = ["prompt", "negative_prompt", "guidance_scale", "strength", "image", "mask"];

/// Flat fields of `[run]`.
const RUN_FIELDS: [&str; 5] = ["seed", "steps", "width", "height", "images"];

/// Other flat fields.
const OTHER_FIELDS: [&str; 3] = ["preview", "loras", "scheduler"];

/// Sorts flat fields into the tables that they belong to; `prompt` goes to the task's table, which is `task_name`'s unless
/// the request names one.
///
/// # Errors
/// [`Error::Spec`] naming every unknown field, with the valid ones.
pub(crate) fn sort_fields(mut fields: Table, task_name: &str) -> Result<Table> {
    let mut problems = Vec::new();
    let mut tables = Table::new();
    let mut own_task = task_name.to_owned();
    if let Some(TomlValue::Table(task)) = fields.get("task") {
        own_task = task.keys().next().cloned().unwrap_or(own_task);
    }
    if let Some(TomlValue::String(name)) = fields.get("scheduler").cloned() {
        let chosen = Table::from_iter([(name, TomlValue::Table(Table::new()))]);
        fields.insert("scheduler".to_owned(), TomlValue::Table(chosen));
    }
    for (name, value) in fields {
        match name.as_str() {
            name if TABLES.contains(&name) => merge_toml(&mut tables, &[name], value),
            name if TASK_FIELDS.contains(&name) => merge_toml(&mut tables, &["task", &own_task, name], value),
            name if RUN_FIELDS.contains(&name) => merge_toml(&mut tables, &["run", name], value),
            "preview" => merge_toml(&mut tables, &["output", "preview"], value),
            "loras" => {
                let scales = value.as_array().cloned().unwrap_or_else(|| vec![value]);
                let tables_of = |scale: TomlValue| match scale {
                    TomlValue::Table(table) => TomlValue::Table(table),
                    scale => TomlValue::Table(Table::from_iter([("scale".to_owned(), scale)])),
                };
                merge_toml(&mut tables, &["lora"], TomlValue::Array(scales.into_iter().map(tables_of).collect()));
            }
            _ => problems.push(unknown_field(&name)),
        }
    }
    if problems.is_empty() { Ok(tables) } else { Err(Error::Spec(problems)) }
}

fn unknown_field(name: &str) -> Problem {
    let valid = [&TASK_FIELDS[..], &RUN_FIELDS, &OTHER_FIELDS, &TABLES].concat();
    let message = match name {
        "model" | "device" | "stage" | "textual_inversion" | "embedding" | "output" => {
            "is settled when a pipeline is opened; a request cannot change it".to_owned()
        }
        _ => format!("unknown field; expected one of {}", valid.join(", ")),
    };
    Problem { file: None, line: None, key: name.to_owned(), message }
}

/// True if a flat field belongs to the task's table.
pub(crate) fn is_task_field(name: &str) -> bool {
    TASK_FIELDS.contains(&name)
}

/// Puts a value at a path of tables; tables are merged.
pub(crate) fn merge_toml(table: &mut Table, path: &[&str], value: TomlValue) {
    let Some((first, rest)) = path.split_first() else { return };
    let entry = table.entry((*first).to_owned());
    if rest.is_empty() {
        match (entry.or_insert_with(|| TomlValue::Table(Table::new())), value) {
            (TomlValue::Table(own), TomlValue::Table(other)) => {
                for (key, value) in other {
                    merge_toml(own, &[&key], value);
                }
            }
            (place, value) => *place = value,
        }
        return;
    }
    let inner = entry.or_insert_with(|| TomlValue::Table(Table::new()));
    if !inner.is_table() {
        *inner = TomlValue::Table(Table::new());
    }
    if let TomlValue::Table(inner) = inner {
        merge_toml(inner, rest, value);
    }
}

impl Spec {
    /// Reads this pipeline again with the tables of a request merged into its own: keys replace keys, and another task,
    /// scheduler or cache replaces the pipeline's. A task of another name keeps those keys of the pipeline's task that it
    /// has too.
    ///
    /// # Errors
    /// [`Error::Spec`] holding every problem, without touching a file.
    pub(crate) fn with_request(&self, tables: &Table) -> Result<Self> {
        let known = |task: &str| find(task).map(|entry| entry.keys());
        Self::parse_as(&self.to_toml(), Reading::new(None), &Overrides::default(), |entries, reading| {
            let mut tables: Entries = tables.iter().map(|(name, value)| (name.clone(), node(value))).collect();
            rename(&mut tables, reading);
            for (name, node) in tables {
                match (CHOICES.contains(&name.as_str()), entries.get_mut(&name)) {
                    (_, None) => drop(entries.insert(name, node)),
                    (false, Some(own)) => merge(own, node),
                    (true, Some(own)) => choose(own, node, name == "task", &known),
                }
            }
        })
    }
}

/// Merges the one table of a choice (`[task.NAME]`), replacing the pipeline's choice by the request's.
fn choose(own: &mut Node, other: Node, carries: bool, known: &dyn Fn(&str) -> Option<Vec<String>>) {
    let (Value::Table(own_tables), Value::Table(tables)) = (&mut own.value, &other.value) else {
        *own = other;
        return;
    };
    let [name] = tables.keys().collect::<Vec<_>>()[..] else {
        *own = other;
        return;
    };
    if own_tables.contains_key(name) {
        merge(own, other);
        return;
    }
    let mut replaced = other.clone();
    if let (true, Some(keys), Value::Table(tables)) = (carries, known(name), &mut replaced.value)
        && let Some(Value::Table(table)) = tables.get_mut(name).map(|node| &mut node.value)
    {
        for (key, node) in own_tables.values().filter_map(as_table).flatten() {
            if keys.contains(key) {
                table.entry(key.clone()).or_insert_with(|| node.clone());
            }
        }
    }
    *own = replaced;
}

fn as_table(node: &Node) -> Option<&Entries> {
    match &node.value {
        Value::Table(entries) => Some(entries),
        _ => None,
    }
}

/// Merges tables key by key and arrays of tables item by item; anything else is replaced.
fn merge(own: &mut Node, other: Node) {
    match (&mut own.value, other.value) {
        (Value::Table(own), Value::Table(other)) => {
            if other.contains_key("timesteps") || other.contains_key("sigmas") {
                for key in ["timesteps", "sigmas", "steps"] {
                    own.remove(key);
                }
            }
            for (key, node) in other {
                match own.get_mut(&key) {
                    Some(own) => merge(own, node),
                    None => drop(own.insert(key, node)),
                }
            }
        }
        (Value::Array(own), Value::Array(other)) if is_tables(own) && is_tables(&other) => {
            for (at, node) in other.into_iter().enumerate() {
                match own.get_mut(at) {
                    Some(own) => merge(own, node),
                    None => own.push(node),
                }
            }
        }
        (_, value) => *own = Node { origin: other.origin, value },
    }
}

fn is_tables(items: &[Node]) -> bool {
    items.iter().all(|item| matches!(item.value, Value::Table(_)))
}

fn node(value: &TomlValue) -> Node {
    let value = match value {
        TomlValue::String(text) => Value::String(text.clone()),
        TomlValue::Integer(number) => Value::Integer((*number).into()),
        TomlValue::Float(number) => Value::Float(*number),
        TomlValue::Boolean(flag) => Value::Boolean(*flag),
        TomlValue::Datetime(date) => Value::Datetime(date.to_string()),
        TomlValue::Array(items) => Value::Array(items.iter().map(node).collect()),
        TomlValue::Table(table) => Value::Table(table.iter().map(|(key, value)| (key.clone(), node(value))).collect()),
    };
    Node { origin: Origin::Request, value }
}
