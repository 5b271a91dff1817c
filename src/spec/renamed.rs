//! Old names of keys and values, replaced by the new ones before the tables are read.

use crate::aliases::{ALIASES, Alias, AliasKind};
use crate::keys::{Entries, Node, Origin, Reading, Value, join};

/// Replaces every old name in the tables of a file. An old name next to its new one is reported.
pub(super) fn rename(entries: &mut Entries, reading: &Reading<'_>) {
    // Values are found under the new names of their keys.
    for kind in [AliasKind::Key, AliasKind::InverseKey, AliasKind::Value] {
        for alias in ALIASES.iter().filter(|alias| alias.kind == kind) {
            rename_one(entries, alias, "", reading);
            let each_stage = &mut |stage: &mut Entries, path: &str| rename_one(stage, alias, path, reading);
            visit(entries, "", &["stage[]"], each_stage);
        }
    }
}

/// Replaces the old names in a key and value of the command line, such as those of `--set`.
pub(super) fn rename_flag(
    key: Vec<String>,
    value: Value,
    origin: Origin,
    reading: &Reading<'_>,
) -> (Vec<String>, Value) {
    let depth = key.len();
    let mut node = Node { origin, value };
    for part in key.into_iter().rev() {
        node = Node { origin, value: Value::Table(Entries::from([(part, node)])) };
    }
    if let Value::Table(entries) = &mut node.value {
        rename(entries, reading);
    }
    let mut key = Vec::with_capacity(depth);
    for _ in 0..depth {
        let Value::Table(entries) = &mut node.value else { break };
        let Some((part, inner)) = entries.pop_first() else { break };
        key.push(part);
        node = inner;
    }
    (key, node.value)
}

fn rename_one(entries: &mut Entries, alias: &'static Alias, path: &str, reading: &Reading<'_>) {
    let (old, new) = (last_part(alias.old), last_part(alias.new));
    let (old_key, old_value) = key_and_value(old);
    let (new_key, new_value) = key_and_value(new);
    let parents: Vec<&str> = alias.old.split_once(" = ").map_or(alias.old, |(key, _)| key).split('.').collect();
    let parents = parents.split_last().map_or(&[][..], |(_, parents)| parents);
    visit(entries, path, parents, &mut |table, path| {
        let said = |name: &str| join(path, name);
        if let (Some(old_value), Some(new_value)) = (old_value, new_value) {
            if let Some(node) = table.get_mut(old_key).filter(|node| is_string(node, old_value)) {
                node.value = Value::String(new_value.to_owned());
                reading.note_old_name(node.origin, alias, &said(old), &said(new));
            }
            return;
        }
        let Some(mut node) = table.remove(old_key) else { return };
        if table.contains_key(new_key) {
            let problem = format!("is the old name of `{}`, which is given too; keep that one", said(new_key));
            reading.report(node.origin, &said(old_key), problem);
            return;
        }
        reading.note_old_name(node.origin, alias, &said(old_key), &said(new_key));
        if let (AliasKind::InverseKey, Value::Boolean(on)) = (alias.kind, &mut node.value) {
            *on = !*on;
        }
        table.insert(new_key.to_owned(), node);
    });
}

/// Calls `act` with each table that the parts of a path lead to, and its path as messages name it.
fn visit(entries: &mut Entries, path: &str, parts: &[&str], act: &mut dyn FnMut(&mut Entries, &str)) {
    let Some((first, rest)) = parts.split_first() else { return act(entries, path) };
    let mut go_on = |node: &mut Node, path: String| {
        if let Value::Table(inner) = &mut node.value {
            visit(inner, &path, rest, act);
        }
    };
    if *first == "NAME" {
        entries.iter_mut().for_each(|(name, node)| go_on(node, join(path, name)));
    } else if let Some(array) = first.strip_suffix("[]") {
        let path = join(path, array);
        match entries.get_mut(array).map(|node| &mut node.value) {
            Some(Value::Array(items)) => {
                items.iter_mut().enumerate().for_each(|(at, node)| go_on(node, format!("{path}[{at}]")));
            }
            // The key of a flag names an item by its number.
            Some(Value::Table(items)) => {
                items.iter_mut().for_each(|(at, node)| go_on(node, format!("{path}[{at}]")));
            }
            _ => {}
        }
    } else if let Some(node) = entries.get_mut(*first) {
        go_on(node, join(path, first));
    }
}

/// The key of an alias without the tables that it is in, with its value if there is one.
fn last_part(name: &str) -> &str {
    let end = name.find(" = ").unwrap_or(name.len());
    name.get(..end).and_then(|key| key.rfind('.')).map_or(name, |dot| &name[dot + 1..])
}

/// The parts of `key = "value"`.
fn key_and_value(text: &str) -> (&str, Option<&str>) {
    text.split_once(" = ").map_or((text, None), |(key, value)| (key, Some(value.trim_matches('"'))))
}

fn is_string(node: &Node, text: &str) -> bool {
    matches!(&node.value, Value::String(found) if found == text)
}
