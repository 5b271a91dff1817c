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

#[test]
fn the_schema_has_the_keys_that_the_reader_takes() {
    let schema: Value = serde_json::from_str(&list("keys", "--json")).expect("JSON");
    let names = |schema: &Value| -> Vec<String> {
        let properties = schema["properties"].as_object().expect("properties");
        properties.keys().cloned().collect()
    };
    let tables = ["model", "run", "device", "output", "control", "condition", "lora", "textual_inversion", "stage"];
    for table in tables {
        let is_array = schema["properties"][table]["type"] == "array";
        let schema = if is_array { &schema["properties"][table]["items"] } else { &schema["properties"][table] };
        let heading = if is_array { format!("[[{table}]]") } else { format!("[{table}]") };
        let mut known = known_keys(table, &format!("{heading}\nzzz = 1\n"));
        let mut given = names(schema);
        known.sort();
        given.sort();
        // Stages take the tables of the file in any order, and the condition's sources are read by name.
        assert_eq!(given, known, "{heading}");
    }
    for (task, schema) in schema["properties"]["task"]["properties"].as_object().expect("tasks") {
        let entry = ldm_ort::task::TASKS.iter().find(|entry| entry.name == task).expect("a task");
        assert_eq!(names(schema).len(), entry.keys().len(), "{task}: a key has no row in the table of keys");
    }
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
            if !link.contains("://") && !file.is_empty() && !folder.join(file).exists() {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
