//! The runs of a batch: each row alone, or rows whose seeds follow one another as one run of several prompts.
//!
//! Image `i` of a run draws its noise from `seed + i` by itself, so that a joined row is the image that it is alone. A run
//! has one seed, hence only rows with successive seeds can be joined, and only rows that differ in prompt and seed alone.

use serde_json::{Map, Value};

use crate::request::Row;

/// Groups rows, by their indices, into runs. Each row is in one group.
pub(crate) fn groups(rows: &[&Row], joins: bool) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    if !joins {
        return (0..rows.len()).map(|row| vec![row]).collect();
    }
    let keys: Vec<_> = rows.iter().map(|row| JoinKey::of(row)).collect();
    let mut is_grouped = vec![false; rows.len()];
    for first in 0..rows.len() {
        if std::mem::replace(&mut is_grouped[first], true) {
            continue;
        }
        let mut group = vec![first];
        let mut last = keys[first].as_ref();
        while let Some(next) = last.and_then(|last| last.next(&keys, &is_grouped)) {
            is_grouped[next] = true;
            group.push(next);
            last = keys[next].as_ref();
        }
        groups.push(group);
    }
    groups
}

/// Returns the request of a group: that of its first row, with the prompts of all.
pub(crate) fn joined(rows: &[&Row]) -> Row {
    let mut joined = rows.first().map_or_else(Row::default, |row| (*row).clone());
    if rows.len() > 1 {
        let prompts = rows.iter().filter_map(|row| row.fields.get("prompt").cloned()).collect();
        joined.fields.insert("prompt".to_owned(), Value::Array(prompts));
    }
    joined
}

/// The seed of a row, and what else must be equal.
struct JoinKey {
    seed: u64,
    others: Map<String, Value>,
}

impl JoinKey {
    /// `None` for a row that is always alone: one without a prompt or seed of its own, with images in memory, or with
    /// tables, which may hold the same fields.
    fn of(row: &Row) -> Option<Self> {
        let seed = row.fields.get("seed").and_then(Value::as_u64)?;
        let is_single = row.fields.get("images").is_none_or(|images| images.as_u64() == Some(1));
        let has_tables = row.fields.contains_key("run") || row.fields.contains_key("task");
        if !row.fields.get("prompt").is_some_and(Value::is_string) || !row.images.is_empty() || !is_single || has_tables
        {
            return None;
        }
        let mut others = row.fields.clone();
        others.remove("seed");
        others.remove("prompt");
        Some(Self { seed, others })
    }

    /// The row that follows this one, if there is one.
    fn next(&self, keys: &[Option<Self>], is_grouped: &[bool]) -> Option<usize> {
        let follows = |key: &Self| self.seed.checked_add(1) == Some(key.seed) && key.others == self.others;
        let mut candidates = keys.iter().zip(is_grouped);
        candidates.position(|(key, is_grouped)| !is_grouped && key.as_ref().is_some_and(follows))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(fields: Value) -> Row {
        let Value::Object(fields) = fields else { return Row::default() };
        Row { fields, images: Vec::new() }
    }

    fn grouped(rows: &[Value], joins: bool) -> Vec<Vec<usize>> {
        let rows: Vec<_> = rows.iter().cloned().map(row).collect();
        groups(&rows.iter().collect::<Vec<_>>(), joins)
    }

    #[test]
    fn rows_with_successive_seeds_are_joined() {
        let all = [
            json!({"prompt": "a", "seed": 8, "steps": 4}),
            json!({"prompt": "b", "seed": 7, "steps": 4}),
            json!({"prompt": "c", "seed": 9, "steps": 4}),
            json!({"prompt": "d", "seed": 9, "steps": 4}),
            json!({"prompt": "e", "seed": 10, "steps": 4}),
        ];
        assert_eq!(grouped(&all, true), [vec![0, 2, 4], vec![1], vec![3]]);
        assert_eq!(grouped(&all, false), [[0], [1], [2], [3], [4]]);
    }

    /// Rows that differ in anything else, or could make something else together, stay alone.
    #[test]
    fn other_rows_stay_alone() {
        let pairs = [
            (json!({"prompt": "a", "seed": 1}), json!({"prompt": "b", "seed": 2, "steps": 3})),
            (json!({"prompt": "a"}), json!({"prompt": "b"})),
            (json!({"prompt": "a", "seed": 1}), json!({"prompt": "b", "seed": 1})),
            (json!({"prompt": "a", "seed": 1, "images": 2}), json!({"prompt": "b", "seed": 2, "images": 2})),
            (json!({"prompt": ["a"], "seed": 1}), json!({"prompt": ["b"], "seed": 2})),
            (json!({"seed": 1}), json!({"seed": 2})),
            (json!({"prompt": "a", "seed": 1, "run": {}}), json!({"prompt": "b", "seed": 2, "run": {}})),
        ];
        for (first, second) in pairs {
            assert_eq!(grouped(&[first.clone(), second], true), [[0], [1]], "{first}");
        }
    }

    #[test]
    fn joined_rows_are_prompts_of_one_request() {
        let (a, b) =
            (row(json!({"prompt": "a", "seed": 1, "steps": 2})), row(json!({"prompt": "b", "seed": 2, "steps": 2})));
        assert_eq!(joined(&[&a, &b]), row(json!({"prompt": ["a", "b"], "seed": 1, "steps": 2})));
        assert_eq!(joined(&[&a]), a);
    }
}
