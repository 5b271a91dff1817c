//! Requests that name files of the server, which a client must not do unless the model's configuration allows it.

use serde_json::{Map, Value};

use crate::fault::{Answer, Fault};

/// Keys of a request that hold paths.
const PATH_KEYS: [&str; 10] =
    ["image", "mask", "path", "graph", "label_map", "depth_map", "vectors", "index", "latents", "class_names"];

/// Refuses a request that names a file.
pub(crate) fn refuse_paths(request: &Map<String, Value>) -> Answer<()> {
    match path_in(request) {
        None => Ok(()),
        Some(key) => Err(Fault::input(
            "REQUEST",
            format!(
                "{key}: names a file of the server\nhint: send the image as IMAGE, MASK or CONTROL_IMAGE or as a \
                 `data:` URI, or set the model's parameter `allow_paths`"
            ),
        )),
    }
}

/// Returns the key of the first path.
fn path_in(table: &Map<String, Value>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let is_path = PATH_KEYS.contains(&key.as_str());
        let inner = match value {
            Value::String(text) if is_path && !text.starts_with("data:") => return Some(key.clone()),
            Value::Object(inner) => path_in(inner),
            Value::Array(items) => items.iter().find_map(|item| match item {
                Value::Object(inner) => path_in(inner),
                Value::String(text) if is_path && !text.starts_with("data:") => Some(String::new()),
                _ => None,
            }),
            _ => None,
        };
        inner.map(|inner| if inner.is_empty() { key.clone() } else { format!("{key}.{inner}") })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(request: Value) -> Option<String> {
        let Value::Object(request) = request else { return None };
        refuse_paths(&request).err().map(|fault| fault.message)
    }

    #[test]
    fn finds_paths_at_any_depth() {
        let named =
            |request, key: &str| refused(request).is_some_and(|message| message.contains(&format!(": {key}: ")));
        assert!(named(json!({"image": "/etc/passwd"}), "image"));
        assert!(named(json!({"task": {"inpaint": {"mask": "m.png"}}}), "task.inpaint.mask"));
        assert!(named(json!({"control": [{"image": "c.png"}]}), "control.image"));
        assert!(named(json!({"lora": [{"path": "x.safetensors"}]}), "lora.path"));
        assert!(named(
            json!({"task": {"class-conditional": {"class_names": "n"}}}),
            "task.class-conditional.class_names"
        ));
        assert!(named(json!({"image": ["a.png"]}), "image"));
        assert_eq!(
            refused(json!({"image": "data:image/png;base64,AAAA", "prompt": "a path", "run": {"seed": 1}})),
            None
        );
    }

    /// Every key of a request whose type is a path is known here.
    #[test]
    fn keys_are_those_of_the_reference() {
        let reference = include_str!("../../../docs/reference/pipeline-keys.md");
        let tables = reference.split("\n## ").filter(|table| {
            ["`[task", "`[run]", "`[[control]]", "`[[condition]]", "`[[lora]]", "`[cache"]
                .iter()
                .any(|name| table.starts_with(name))
        });
        let rows: Vec<_> = tables.flat_map(str::lines).filter(|line| line.contains("| path |")).collect();
        assert!(rows.len() > 8, "{rows:?}");
        for row in rows {
            let key = row.split('`').nth(1).unwrap_or_default();
            assert!(PATH_KEYS.contains(&key), "{row}");
        }
    }
}
