//! Problems of a pipeline's table for a scheduler.

use super::config::{CLASS_NAME, Config, SchedulerKey, SchedulerKeyKind, nearest, nested_name, suggestion};
use super::entry::SchedulerEntry;
use super::names::find;

/// Returns every problem of a pipeline's table for this scheduler, as pairs of key and message: unknown keys, wrong
/// types, unknown values.
pub fn check_table(entry: &SchedulerEntry, table: &Config) -> Vec<(String, String)> {
    check_keys(entry.keys, entry.name, table)
}

/// Returns every problem of a pipeline's table for a scheduler with these keys, as pairs of key and message.
fn check_keys(keys: &'static [SchedulerKey], scheduler: &str, table: &Config) -> Vec<(String, String)> {
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
            Some(SchedulerKey { kind: SchedulerKeyKind::MaybeScheduler, .. })
                if let Some(entry) = nested_name(value).and_then(find) =>
            {
                let mut nested = value.as_object().cloned().unwrap_or_default();
                nested.remove(CLASS_NAME);
                let inner = check_keys(entry.keys, entry.name, &nested).into_iter();
                problems.extend(inner.map(|(key, problem)| (name.clone(), format!("{key}: {problem}"))));
            }
            Some(key) if !key.kind.accepts(value, |name| find(name).is_some()) => {
                let advice =
                    suggestion(value, &key.kind).map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
                problems
                    .push((name.clone(), format!("expected {}, found {value}{advice}", key.kind.describe_expected())));
            }
            Some(_) => {}
        }
    }
    problems
}
