//! Smaller documents that show the same.

use std::time::Instant;

use serde_json::Value;

/// Leaves parts of a document out, halves before single members, for as long as it stays interesting. `path` is a JSON
/// pointer to the part that is at hand.
pub fn shrink(root: &mut Value, path: &str, until: Instant, is_interesting: &mut dyn FnMut(&Value) -> bool) {
    let count = |root: &Value| match root.pointer(path) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    };
    let mut part = count(root);
    while part > 0 {
        let mut at = 0;
        while at < count(root) && Instant::now() < until {
            let mut smaller = root.clone();
            match smaller.pointer_mut(path) {
                Some(Value::Array(items)) => drop(items.drain(at..(at + part).min(items.len()))),
                Some(Value::Object(map)) => {
                    let keys: Vec<_> = map.keys().skip(at).take(part).cloned().collect();
                    keys.iter().for_each(|key| drop(map.remove(key)));
                }
                _ => {}
            }
            if is_interesting(&smaller) { *root = smaller } else { at += part }
        }
        part /= 2;
    }
    let members: Vec<String> = match root.pointer(path) {
        Some(Value::Array(items)) => (0..items.len()).map(|at| at.to_string()).collect(),
        Some(Value::Object(map)) => map.keys().map(|key| key.replace('~', "~0").replace('/', "~1")).collect(),
        _ => Vec::new(),
    };
    members.iter().for_each(|member| shrink(root, &format!("{path}/{member}"), until, is_interesting));
}
