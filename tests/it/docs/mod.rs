//! The documentation: the pages of docs/reference are current, and every snippet works as written.
//!
//! `LDM_ORT_WRITE_DOCS=1 cargo test --test it docs::reference` rewrites docs/reference.

mod snippets;
mod world;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{answer, ldm_ort};

/// The reference pages, each with the list that it is made from.
const REFERENCE: [(&str, &str, &str); 8] = [
    ("schedulers.md", "schedulers", "--markdown"),
    ("tasks.md", "tasks", "--markdown"),
    ("providers.md", "providers", "--markdown"),
    ("families.md", "families", "--markdown"),
    ("aliases.md", "aliases", "--markdown"),
    ("command-line.md", "commands", "--markdown"),
    ("pipeline-keys.md", "keys", "--markdown"),
    ("pipeline.schema.json", "keys", "--json"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn list(what: &str, form: &str) -> String {
    let mut command = ldm_ort(root());
    command.args(["list", what, form]);
    let answer = answer(command);
    assert_eq!(answer.code, Some(0), "list {what} {form}: {answer}");
    answer.stdout
}

#[test]
fn reference_pages_are_current() {
    for (file, what, form) in REFERENCE {
        let path = root().join("docs/reference").join(file);
        let text = list(what, form);
        if std::env::var_os("LDM_ORT_WRITE_DOCS").is_some() {
            std::fs::write(&path, &text).expect("a page");
        }
        // Git may check files out with other line ends.
        let page = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        assert!(page == text, "{file} is old: ldm-ort list {what} {form} >docs/reference/{file}");
    }
}

/// The problems that a table with a key it does not know is reported with, which list the keys that it takes.
fn known_keys(table: &str, text: &str) -> Vec<String> {
    let error = ldm_ort::Spec::parse(text, None, &ldm_ort::Overrides::default()).expect_err(text).to_string();
    let line = error.lines().find(|line| line.contains("`zzz`")).unwrap_or_else(|| panic!("{table}: {error}"));
    let (_, keys) = line.split_once("valid: ").unwrap_or_else(|| panic!("{table}: {line}"));
    keys.split(", ").map(|key| key.trim().to_owned()).collect()
}

/// Returns the definition that a schema refers to, or the schema itself.
fn resolve<'a>(whole: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let path = reference.strip_prefix('#').expect("a reference into the same file");
            whole.pointer(path).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => schema,
    }
}

#[test]
fn the_schema_has_the_keys_that_the_reader_takes() {
    let schema: Value = serde_json::from_str(&list("keys", "--json")).expect("JSON");
    let property = |name: &str| resolve(&schema, &schema["properties"][name]);
    let names = |schema: &Value| -> Vec<String> {
        let properties = schema["properties"].as_object().expect("properties");
        properties.keys().cloned().collect()
    };
    let tables = ["model", "run", "device", "output", "control", "condition", "lora", "textual_inversion", "stage"];
    for table in tables {
        let entry = property(table);
        let is_array = entry["type"] == "array";
        let entry = if is_array { resolve(&schema, &entry["items"]) } else { entry };
        let heading = if is_array { format!("[[{table}]]") } else { format!("[{table}]") };
        let mut known = known_keys(table, &format!("{heading}\nzzz = 1\n"));
        let mut given = names(entry);
        known.sort();
        given.sort();
        // Stages take the tables of the file in any order, and the condition's sources are read by name.
        assert_eq!(given, known, "{heading}");
    }
    for (task, keys) in property("task")["properties"].as_object().expect("tasks") {
        let entry = ldm_ort::task::TASKS.iter().find(|entry| entry.name == task).expect("a task");
        assert_eq!(
            names(resolve(&schema, keys)).len(),
            entry.keys().len(),
            "{task}: a key has no row in the table of keys"
        );
    }
}

/// Calls `see` with every object in a JSON value.
fn objects(value: &Value, see: &mut dyn FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| objects(item, see)),
        Value::Object(fields) => {
            see(fields);
            fields.values().for_each(|field| objects(field, see));
        }
        _ => {}
    }
}

/// References lead to definitions, each definition is referred to twice or more, and none repeats another.
#[test]
fn the_schema_shares_its_definitions() {
    let schema: Value = serde_json::from_str(&list("keys", "--json")).expect("JSON");
    let definitions = schema["$defs"].as_object().expect("definitions");
    let mut uses = std::collections::BTreeMap::<String, usize>::new();
    objects(&schema, &mut |fields| {
        if let Some(reference) = fields.get("$ref") {
            assert_eq!(fields.len(), 1, "editors ignore what is next to a $ref: {fields:?}");
            let name = reference.as_str().and_then(|path| path.strip_prefix("#/$defs/")).expect("a definition's path");
            *uses.entry(name.to_owned()).or_default() += 1;
        }
    });
    assert_eq!(uses.keys().collect::<Vec<_>>(), definitions.keys().collect::<Vec<_>>());
    for (name, count) in uses {
        assert!(count > 1, "{name} is used once");
    }
    let texts: std::collections::BTreeSet<_> = definitions.values().map(Value::to_string).collect();
    assert_eq!(texts.len(), definitions.len());
    let (class, name) = ("DPMSolverMultistepScheduler", "dpm-multistep");
    let schedulers = &resolve(&schema, &schema["properties"]["scheduler"])["properties"];
    let of_class = resolve(&schema, &schedulers[class]);
    assert_eq!(of_class, resolve(&schema, &schedulers[name]));
    assert_eq!(of_class["properties"]["solver_order"]["type"], "integer");
}

/// The pages with snippets.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "models/shapes/README.md"].map(PathBuf::from).into();
    for folder in ["docs", "docs/families"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder of pages");
        let names = entries.map(|entry| Path::new(folder).join(entry.expect("an entry").file_name()));
        pages.extend(names.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    pages
}

#[test]
fn links_lead_to_files() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(root().join(&page)).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let folder = page.parent().map_or_else(|| root().to_owned(), |folder| root().join(folder));
            // A lambda of C++ is no link.
            if !link.contains("://") && !link.contains(' ') && !file.is_empty() && !folder.join(file).exists() {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
