//! The flags that override a pipeline file's keys.

use std::path::PathBuf;

use super::renamed::rename_flag;
use super::scheduler;
use crate::keys::{Entries, Node, Origin, Reading, Value, parse_key, parse_value, quote};

/// The flags of the command line for a pipeline file, each of which overrides a key.
///
/// `scheduler` is applied first, then `set` in its order, then the others. Paths are relative to the current
/// directory, not to the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// `--prompt`, any number: the task's `prompt`.
    pub prompts: Vec<String>,
    /// `--negative-prompt`: the task's `negative_prompt`.
    pub negative_prompt: Option<String>,
    /// `--seed`: `run.seed`.
    pub seed: Option<u64>,
    /// `--steps`: `run.steps`.
    pub steps: Option<u64>,
    /// `--images`: `run.images`.
    pub images: Option<u64>,
    /// `--width`: `run.width`.
    pub width: Option<u64>,
    /// `--height`: `run.height`.
    pub height: Option<u64>,
    /// `--provider`, one or several in order of preference: `device.provider`. A component with a provider of its
    /// own keeps it.
    pub providers: Vec<String>,
    /// `--provider-library`, one or several: `device.provider_library`.
    pub provider_libraries: Vec<PathBuf>,
    /// `--precision`: `device.precision`.
    pub precision: Option<String>,
    /// `--scheduler`: puts an empty table of this name in the place of the scheduler's.
    pub scheduler: Option<String>,
    /// `--output`: `output.dir`.
    pub output: Option<PathBuf>,
    /// `--preview`: `output.preview`.
    pub preview: Option<u64>,
    /// `--model`: `model.path`.
    pub model: Option<PathBuf>,
    /// `--input`, any number, each `KEY=PATH`: a path that the record in an image names, given anew, by its key in the
    /// record, such as `control[0].image=edges.png`.
    pub inputs: Vec<String>,
    /// `--set`, any number, each `table.key=value`. The value is read as TOML and, where it is none, as a string. A
    /// key of another scheduler than the file's puts that scheduler in its place. An item of an array is named by its
    /// number, counted from 0: `stage.0.run.steps=5` or `stage[0].run.steps=5`; the number after the last one's adds an
    /// item. `run.timesteps` and `run.sigmas` replace the file's `steps` too, unless they name a schedule for any number
    /// of steps. A key given here and by a flag of its own, with another value, is an error.
    pub set: Vec<String>,
}

impl Overrides {
    /// Writes the overrides into what was read from the file.
    pub(super) fn apply(&self, entries: &mut Entries, reading: &Reading<'_>) {
        if let Some(name) = &self.scheduler {
            let origin = Origin::Flag("--scheduler");
            let table = Entries::from([(name.clone(), Node { origin, value: Value::Table(Entries::new()) })]);
            entries.insert("scheduler".into(), Node { origin, value: Value::Table(table) });
        }
        for text in &self.set {
            set(entries, text, reading);
        }
        for text in &self.inputs {
            input(entries, text, reading);
        }
        let libraries = paths("--provider-library", &self.provider_libraries, "device.provider_library", reading);
        let mut put = |path: &[&str], flag: &'static str, value: Option<Value>| {
            if let Some(value) = value {
                put(entries, path, Origin::Flag(flag), value, reading);
            }
        };
        let integer = |n: Option<u64>| n.map(|n| Value::Integer(n.into()));
        put(&["run", "seed"], "--seed", integer(self.seed));
        put(&["run", "steps"], "--steps", integer(self.steps));
        put(&["run", "images"], "--images", integer(self.images));
        put(&["run", "width"], "--width", integer(self.width));
        put(&["run", "height"], "--height", integer(self.height));
        put(&["output", "preview"], "--preview", integer(self.preview));
        put(&["device", "provider"], "--provider", strings("--provider", &self.providers));
        put(&["device", "provider_library"], "--provider-library", libraries);
        put(&["device", "precision"], "--precision", self.precision.clone().map(Value::String));
        for (path, flag, key) in
            [(&self.output, "--output", ["output", "dir"]), (&self.model, "--model", ["model", "path"])]
        {
            put(&key, flag, paths(flag, path.as_slice(), &key.join("."), reading));
        }
        let task = |entries: &Entries| match &entries.get("task")?.value {
            Value::Table(tasks) => tasks.keys().next().cloned(),
            _ => None,
        };
        // Without a task there is no place for a prompt, and that the task is missing is told anyhow.
        if let Some(task) = task(entries) {
            let prompts = strings("--prompt", &self.prompts);
            let negative = self.negative_prompt.clone().map(Value::String);
            for (key, flag, value) in
                [("prompt", "--prompt", prompts), ("negative_prompt", "--negative-prompt", negative)]
            {
                if let Some(value) = value {
                    self::put(entries, &["task", &task, key], Origin::Flag(flag), value, reading);
                }
            }
        }
    }
}

/// Paths as strings; one that is no Unicode is reported.
fn paths(flag: &'static str, paths: &[PathBuf], key: &str, reading: &Reading<'_>) -> Option<Value> {
    let text = |path: &PathBuf| {
        let text = path.to_str().map(str::to_owned);
        if text.is_none() {
            let problem = format!("expected a path in Unicode, found {}", path.display());
            reading.report(Origin::Flag(flag), key, problem);
        }
        text
    };
    strings(flag, &paths.iter().filter_map(text).collect::<Vec<_>>())
}

/// One string as such, several as an array, none as nothing.
fn strings(flag: &'static str, texts: &[String]) -> Option<Value> {
    let nodes = texts.iter().map(|text| Node { origin: Origin::Flag(flag), value: Value::String(text.clone()) });
    match texts {
        [] => None,
        [one] => Some(Value::String(one.clone())),
        _ => Some(Value::Array(nodes.collect())),
    }
}

fn set(entries: &mut Entries, text: &str, reading: &Reading<'_>) {
    let parsed = text.split_once('=').and_then(|(key, value)| Some((parse_key(&dotted(key))?, value.trim())));
    let Some((key, value)) = parsed else {
        let message = format!("expected table.key=value, found {}", quote(text));
        reading.report(Origin::Flag("--set"), "", message);
        return;
    };
    let value = parse_value(value, Origin::Set).unwrap_or_else(|| Value::String(value.to_owned()));
    let (mut key, value) = rename_flag(key, value, Origin::Set, reading);
    let depth = within_array(&key);
    let (within, own) = key.split_at_mut(depth);
    if let [first, name, ..] = own
        && first == "scheduler"
        && let Some(entries) = entries_at(entries, within)
        && let Some(Node { origin, value: Value::Table(tables) }) = entries.get_mut("scheduler")
    {
        match (tables.keys().find(|written| scheduler::is_same(written, name)), *origin) {
            (Some(written), _) => name.clone_from(written),
            (None, Origin::Flag(flag)) => {
                let written = tables.keys().next().cloned().unwrap_or_default();
                let message = format!("a key of another scheduler than {flag} {written}; keep one of the two");
                reading.report(Origin::Set, &key.join("."), message);
                return;
            }
            (None, _) => tables.clear(),
        }
    }
    if let [table, key] = own
        && table == "run"
        && let Some(entries) = entries_at(entries, within)
    {
        supersede(entries, key, &value);
    }
    let key: Vec<_> = key.iter().map(String::as_str).collect();
    put(entries, &key, Origin::Set, value, reading);
}

/// The keys that hold paths.
const PATHS: [&str; 10] =
    ["path", "graph", "image", "mask", "latents", "class_names", "label_map", "depth_map", "vectors", "index"];

/// Puts a path in the place of one that is there.
fn input(entries: &mut Entries, text: &str, reading: &Reading<'_>) {
    let origin = Origin::Flag("--input");
    // A key is written as problems and records name it, `control[0].image`, or as `--set` takes it, `control.0.image`.
    let parsed = text.split_once('=').and_then(|(key, path)| Some((parse_key(&dotted(key))?, path)));
    let Some((key, path)) = parsed else {
        reading.report(origin, "", format!("expected KEY=PATH, found {}", quote(text)));
        return;
    };
    let (key, path) = rename_flag(key, Value::String(path.to_owned()), origin, reading);
    let there: Vec<_> = paths_in(entries).into_iter().map(|(key, _)| key).collect();
    if !there.contains(&key) {
        let there: Vec<_> = there.iter().map(|key| key.join(".")).collect();
        let problem = format!("no path is named under {}; there are {}", quote(&key.join(".")), there.join(", "));
        reading.report(origin, "", problem);
        return;
    }
    let key: Vec<_> = key.iter().map(String::as_str).collect();
    put(entries, &key, origin, path, reading);
}

/// All paths in a pipeline: the parts of their keys, and the text.
pub(super) fn paths_in(entries: &Entries) -> Vec<(Vec<String>, &str)> {
    let within = |name: &str, (key, path): (Vec<String>, _)| ([vec![name.to_owned()], key].concat(), path);
    let mut found = Vec::new();
    for (name, node) in entries {
        match &node.value {
            Value::String(path) if PATHS.contains(&name.as_str()) => found.push((vec![name.clone()], path.as_str())),
            Value::Table(inner) => found.extend(paths_in(inner).into_iter().map(|path| within(name, path))),
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    if let Value::Table(inner) = &item.value {
                        let inner = paths_in(inner).into_iter().map(|path| within(&at.to_string(), path));
                        found.extend(inner.map(|path| within(name, path)));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Takes out of the file's `[run]` the keys that a schedule given by `--set` replaces: the other list, and the number
/// of steps where the list has a number of its own.
fn supersede(entries: &mut Entries, key: &str, value: &Value) {
    let Some(Node { value: Value::Table(run), .. }) = entries.get_mut("run") else { return };
    let replaced: &[&str] = match (key, value) {
        ("timesteps", _) => &["steps", "sigmas"],
        ("sigmas", Value::Array(_)) => &["steps", "timesteps"],
        ("sigmas", _) => &["timesteps"],
        _ => return,
    };
    run.retain(|name, node| node.origin.is_command_line() || !replaced.contains(&name.as_str()));
}

/// Writes `stage[0].run`, which is how messages name a table of an array, as `stage.0.run`, which is how TOML would.
pub(super) fn dotted(key: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let part = |part: &str| match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
        Some((name, number)) if !name.is_empty() && is_number(number) => format!("{name}.{number}"),
        _ => part.to_owned(),
    };
    // Within quotes a bracket is a part of the name.
    if key.contains(['"', '\'']) { key.to_owned() } else { key.split('.').map(part).collect::<Vec<_>>().join(".") }
}

/// The number of parts of a key that name a table of an array, such as `stage.0`.
fn within_array(key: &[String]) -> usize {
    match key {
        [_, number, ..] if number.parse::<usize>().is_ok() => 2,
        _ => 0,
    }
}

/// The keys of the table of an array that a path names, or the file's own where it names none.
fn entries_at<'e>(entries: &'e mut Entries, path: &[String]) -> Option<&'e mut Entries> {
    let [array, number] = path else { return Some(entries) };
    let Value::Array(items) = &mut entries.get_mut(array)?.value else { return None };
    match &mut items.get_mut(number.parse::<usize>().ok()?)?.value {
        Value::Table(inner) => Some(inner),
        _ => None,
    }
}

/// Arrays of tables, whose first table `--set` can add.
const ARRAYS: [&str; 5] = ["condition", "control", "lora", "stage", "textual_inversion"];

/// Puts a value at a path, making the tables that lead to it. After the name of an array a number names one of its
/// items, counted from 0; the number after the last one's adds an item.
fn put(entries: &mut Entries, path: &[&str], origin: Origin, value: Value, reading: &Reading<'_>) {
    if let Err(message) = put_in(entries, 0, path, Node { origin, value }) {
        reading.report(origin, &path.join("."), message);
    }
}

/// Puts a node into a table that the first `depth` parts of the path lead to.
fn put_in(entries: &mut Entries, depth: usize, path: &[&str], node: Node) -> Result<(), String> {
    let Some(name) = path.get(depth) else { return Ok(()) };
    let is_numbered = path.get(depth + 1).is_some_and(|next| next.parse::<usize>().is_ok());
    let place = entries.entry((*name).to_owned()).or_insert_with(|| {
        let is_array = is_numbered && ARRAYS.contains(name);
        let value = if is_array { Value::Array(Vec::new()) } else { Value::Table(Entries::new()) };
        Node { origin: node.origin, value }
    });
    put_at(place, depth + 1, path, node)
}

/// Puts a node in place of another, or below it, which the first `depth` parts of the path lead to.
fn put_at(place: &mut Node, depth: usize, path: &[&str], node: Node) -> Result<(), String> {
    let Some(next) = path.get(depth) else { return replace(place, node) };
    let found = place.value.describe();
    let so_far = || path.get(..depth).unwrap_or(path).join(".");
    match (&mut place.value, next.parse::<usize>()) {
        (Value::Table(inner), _) => put_in(inner, depth, path, node),
        (Value::Array(items), Ok(number)) => {
            let count = items.len();
            if number == count {
                items.push(Node { origin: node.origin, value: Value::Table(Entries::new()) });
            }
            let item = items.get_mut(number).ok_or_else(|| match count {
                0 => format!("expected 0, which adds the first item of {}, found {number}", so_far()),
                _ => format!("expected a number from 0 to {count}, which adds an item to {}, found {number}", so_far()),
            })?;
            put_at(item, depth + 1, path, node)
        }
        (Value::Array(items), Err(_)) if items.iter().all(|item| matches!(item.value, Value::Table(_))) => {
            let name = so_far();
            Err(format!("expected the number of a table [[{name}]], such as {name}.0, found {}", quote(next)))
        }
        _ => Err(format!("expected a table [{}], found {found}", so_far())),
    }
}

/// Replaces a node, unless a flag and `--set` give it different values.
fn replace(place: &mut Node, node: Node) -> Result<(), String> {
    let is_given_twice = match (place.origin, node.origin) {
        (Origin::Flag(flag), Origin::Set) | (Origin::Set, Origin::Flag(flag)) if place.value != node.value => {
            Some(flag)
        }
        _ => None,
    };
    *place = node;
    match is_given_twice {
        Some(flag) => Err(format!("given by {flag} and by --set; keep one of the two")),
        None => Ok(()),
    }
}
