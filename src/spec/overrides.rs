//! The flags that stand over a pipeline file's keys.

use std::collections::btree_map::Entry;
use std::path::PathBuf;

use super::reader::Reading;
use super::record::plain_key;
use super::scheduler;
use super::tree::{Entries, Node, Origin, Value, parse_key, parse_value, quote};

/// What is said on the command line over a pipeline file: flags override the keys they name.
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
    /// key of another scheduler than the file's puts that scheduler in its place. A table of an array is named by its
    /// number, counted from 0: `stage.0.run.steps=5`.
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
        for (path, flag, key) in
            [(&self.output, "--output", ["output", "dir"]), (&self.model, "--model", ["model", "path"])]
        {
            match path.as_ref().map(|path| (path, path.to_str())) {
                Some((_, Some(text))) => put(&key, flag, Some(Value::String(text.into()))),
                Some((path, None)) => {
                    let problem = format!("expected a path in Unicode, found {}", path.display());
                    reading.report(Origin::Flag(flag), &key.join("."), problem);
                }
                None => {}
            }
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
    let parsed = text.split_once('=').and_then(|(key, value)| Some((parse_key(key)?, value.trim())));
    let Some((key, value)) = parsed else {
        let message = format!("expected table.key=value, found {}", quote(text));
        reading.report(Origin::Flag("--set"), "", message);
        return;
    };
    let value = parse_value(value, Origin::Set).unwrap_or_else(|| Value::String(value.to_owned()));
    let (within, own) = key.split_at(within_array(&key));
    let mut own = own.to_vec();
    if let [first, name, ..] = own.as_mut_slice()
        && first == "scheduler"
        && let Some(entries) = entries_at(entries, within)
        && let Some(Node { value: Value::Table(tables), .. }) = entries.get_mut("scheduler")
    {
        match tables.keys().find(|written| scheduler::is_same(written, name)) {
            Some(written) => name.clone_from(written),
            None => tables.clear(),
        }
    }
    let key: Vec<_> = within.iter().chain(&own).map(String::as_str).collect();
    put(entries, &key, Origin::Set, value, reading);
}

/// The keys that hold paths.
const PATHS: [&str; 10] =
    ["path", "graph", "image", "mask", "latents", "class_names", "label_map", "depth_map", "vectors", "index"];

/// Puts a path in the place of one that is there.
fn input(entries: &mut Entries, text: &str, reading: &Reading<'_>) {
    let origin = Origin::Flag("--input");
    // A key is written as problems and records name it, `control[0].image`, or as `--set` takes it, `control.0.image`.
    let parsed = text.split_once('=').and_then(|(key, path)| Some((parse_key(&plain_key(key))?, path)));
    let Some((key, path)) = parsed else {
        reading.report(origin, "", format!("expected KEY=PATH, found {}", quote(text)));
        return;
    };
    let there: Vec<_> = paths_in(entries).into_iter().map(|(key, _)| key).collect();
    if !there.contains(&key) {
        let there: Vec<_> = there.iter().map(|key| key.join(".")).collect();
        let problem = format!("no path is named under {}; there are {}", quote(&key.join(".")), there.join(", "));
        reading.report(origin, "", problem);
        return;
    }
    let key: Vec<_> = key.iter().map(String::as_str).collect();
    put(entries, &key, origin, Value::String(path.to_owned()), reading);
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

/// How many parts of a key name a table of an array, such as `stage.0`.
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

/// Puts a value at a path, making the tables that lead to it. A number names a table of an array that is there.
fn put(entries: &mut Entries, path: &[&str], origin: Origin, value: Value, reading: &Reading<'_>) {
    let Some((last, tables)) = path.split_last() else { return };
    let mut entries = entries;
    let mut at = 0;
    while let Some(name) = tables.get(at) {
        let node = match entries.entry((*name).to_owned()) {
            Entry::Occupied(node) => node.into_mut(),
            Entry::Vacant(place) => place.insert(Node { origin, value: Value::Table(Entries::new()) }),
        };
        let found = node.value.describe();
        let number = tables.get(at + 1).and_then(|number| number.parse::<usize>().ok());
        let expected = match (&mut node.value, number) {
            (Value::Table(inner), _) => {
                entries = inner;
                at += 1;
                continue;
            }
            (Value::Array(items), Some(number)) => {
                let many = items.len();
                if let Some(Node { value: Value::Table(inner), .. }) = items.get_mut(number) {
                    entries = inner;
                    at += 2;
                    continue;
                }
                format!("expected a number below {many}, which is how many tables [[{name}]] there are, found {number}")
            }
            (Value::Array(items), None) if items.iter().any(|item| matches!(item.value, Value::Table(_))) => {
                format!("expected the number of a table [[{name}]], such as {name}.0, found none")
            }
            _ => format!("expected a table [{}], found {found}", path[..=at].join(".")),
        };
        reading.report(origin, &path.join("."), expected);
        return;
    }
    entries.insert((*last).to_owned(), Node { origin, value });
}
