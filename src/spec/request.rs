//! The tables of a request, merged into those of a pipeline file.

use toml::Value as TomlValue;

use super::renamed::rename;
use super::{Overrides, Spec};
use crate::error::{Error, Problem, Result};
use crate::keys::{Entries, Node, Origin, Reading, Value};
use crate::task::{TASKS, Task, TaskEntry, find};

/// Tables that hold one table, under the name of the chosen row.
const CHOICES: [&str; 3] = ["task", "scheduler", "cache"];

/// Tables of a pipeline file that a request may name.
const TABLES: [&str; 7] = ["task", "scheduler", "cache", "run", "control", "condition", "lora"];

/// Flat fields of the task's table.
const TASK_FIELDS: [&str; 6] = ["prompt", "negative_prompt", "guidance_scale", "strength", "image", "mask"];

/// Flat fields that are images.
const IMAGE_FIELDS: [&str; 2] = ["image", "mask"];

/// The most tables of an array that a path can name.
const MOST_TABLES: usize = 64;

/// Flat fields of `[run]`.
const RUN_FIELDS: [&str; 5] = ["seed", "steps", "width", "height", "images"];

/// Other flat fields.
const OTHER_FIELDS: [&str; 3] = ["preview", "loras", "scheduler"];

/// Sorts the flat fields of a request into the tables that they belong to. A field of a task goes to the table of the
/// task that the request names, else to that of `own`, the pipeline's; where the request has an `image` or a `mask` and
/// the pipeline's task takes none, to the first task that takes what is there.
///
/// # Errors
/// [`Error::Spec`] naming every unknown field, with the valid ones.
pub(crate) fn sort_fields(fields: Entries, own: &dyn Task) -> Result<Entries> {
    let mut problems = Vec::new();
    let mut tables = Entries::new();
    let task = match fields.get("task").map(|node| &node.value) {
        Some(Value::Table(task)) => task.keys().next().cloned(),
        _ => None,
    };
    let task = task.unwrap_or_else(|| task_for(&fields, own).to_owned());
    for (name, node) in fields {
        match name.as_str() {
            "scheduler" => put(&mut tables, &["scheduler"], scheduler(node)),
            name if TABLES.contains(&name) => put(&mut tables, &[name], node),
            name if TASK_FIELDS.contains(&name) => put(&mut tables, &["task", &task, name], node),
            name if RUN_FIELDS.contains(&name) => put(&mut tables, &["run", name], node),
            "preview" => put(&mut tables, &["output", "preview"], node),
            "loras" => put(&mut tables, &["lora"], loras(node)),
            _ => problems.push(unknown_field(&name)),
        }
    }
    if problems.is_empty() { Ok(tables) } else { Err(Error::Spec(problems)) }
}

/// The task of a request that names none.
fn task_for<'t>(fields: &Entries, own: &'t dyn Task) -> &'t str {
    let inputs: Vec<&str> = IMAGE_FIELDS.into_iter().filter(|name| fields.contains_key(*name)).collect();
    let takes = |entry: &&&TaskEntry| {
        let keys = entry.keys();
        inputs.iter().all(|input| keys.iter().any(|key| key == input))
    };
    let own_takes = own.entry().is_none_or(|entry| takes(&&entry));
    let other = TASKS.iter().find(takes).filter(|_| !own_takes);
    other.map_or(own.name(), |entry| entry.name)
}

/// Expands the name of a scheduler to its table.
fn scheduler(node: Node) -> Node {
    match node.value {
        Value::String(name) => table([(name, table([]))]),
        value => Node { value, ..node },
    }
}

/// Expands the scales of LoRAs to their tables.
fn loras(node: Node) -> Node {
    let scales = match node.value {
        Value::Array(scales) => scales,
        value => vec![Node { value, ..node }],
    };
    let tables = scales.into_iter().map(|scale| match scale.value {
        Value::Table(_) => scale,
        _ => table([("scale".to_owned(), scale)]),
    });
    request_node(Value::Array(tables.collect()))
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

/// Puts a value at a path of tables; tables are merged. A number in the path is the place of a table in an array.
pub(crate) fn put(entries: &mut Entries, path: &[&str], node: Node) {
    let Some((first, rest)) = path.split_first() else { return };
    let nested = rest.iter().rev().fold(node, |inner, name| match name.parse::<usize>() {
        Ok(at) if at < MOST_TABLES => {
            let before = std::iter::repeat_with(|| table([])).take(at);
            request_node(Value::Array(before.chain([inner]).collect()))
        }
        _ => table([((*name).to_owned(), inner)]),
    });
    match entries.get_mut(*first) {
        Some(own) => merge(own, nested),
        None => drop(entries.insert((*first).to_owned(), nested)),
    }
}

fn table(entries: impl IntoIterator<Item = (String, Node)>) -> Node {
    request_node(Value::Table(entries.into_iter().collect()))
}

fn request_node(value: Value) -> Node {
    Node { origin: Origin::Request, value }
}

impl Spec {
    /// Reads this pipeline again with the tables of a request merged into its own: keys replace keys, and another task,
    /// scheduler or cache replaces the pipeline's. A task of another name keeps those keys of the pipeline's task that it
    /// has too.
    ///
    /// # Errors
    /// [`Error::Spec`] holding every problem, without touching a file.
    pub(crate) fn with_request(&self, mut tables: Entries) -> Result<Self> {
        let known = |task: &str| find(task).map(|entry| entry.keys());
        Self::parse_as(&self.to_toml(), Reading::new(None), &Overrides::default(), |entries, reading| {
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

/// A value of a request as the reader of pipeline files takes it.
pub(crate) fn node(value: &TomlValue) -> Node {
    request_node(match value {
        TomlValue::String(text) => Value::String(text.clone()),
        TomlValue::Integer(number) => Value::Integer((*number).into()),
        TomlValue::Float(number) => Value::Float(*number),
        TomlValue::Boolean(flag) => Value::Boolean(*flag),
        TomlValue::Datetime(date) => Value::Datetime(date.to_string()),
        TomlValue::Array(items) => Value::Array(items.iter().map(node).collect()),
        TomlValue::Table(table) => Value::Table(table.iter().map(|(key, value)| (key.clone(), node(value))).collect()),
    })
}
