//! Writes a pipeline as TOML.

use std::path::{Path, PathBuf};

use toml::Value;

use super::record_path::{RecordNames, absolute, portable};

/// A TOML text being written, table by table.
#[derive(Default)]
pub struct Writer {
    text: String,
    /// The array of tables within whose last entry all tables stand, where they stand in one.
    within: Option<&'static str>,
    /// Keys that are not written.
    left_out: Vec<&'static str>,
    /// For a record: the folder that paths are relative to, and names that files already have. Paths are absolute without.
    record: Option<(PathBuf, RecordNames)>,
}

impl Writer {
    /// A writer for a record, in which nothing leads out of `root`.
    pub(crate) fn of_record(root: PathBuf, names: RecordNames) -> Self {
        Self { record: Some((root, names)), ..Self::default() }
    }

    /// True if what is written goes into a record that names nothing of this machine.
    pub(crate) fn is_portable(&self) -> bool {
        self.record.is_some()
    }

    /// Begins a table of this path, such as `["task", "text-to-image"]`.
    pub(crate) fn table(&mut self, path: &[&str]) {
        self.begin();
        let path: Vec<_> = self.within.iter().chain(path).map(|part| key(part)).collect();
        self.text += &format!("[{}]\n", path.join("."));
    }

    /// Begins one more table of the array of this name.
    pub(crate) fn array_table(&mut self, name: &str) {
        self.begin();
        let path: Vec<_> = self.within.iter().copied().chain([name]).map(key).collect();
        self.text += &format!("[[{}]]\n", path.join("."));
    }

    fn begin(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// Writes a key of the table begun last.
    pub(crate) fn key(&mut self, name: &str, value: impl Into<Value>) {
        if !self.left_out.contains(&name) {
            self.text += &format!("{} = {}\n", key(name), value.into());
        }
    }

    /// Writes a key that has a value.
    pub(crate) fn key_if<T: Into<Value>>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.key(name, value);
        }
    }

    /// Writes a key for one string or for several.
    pub(crate) fn strings(&mut self, name: &str, values: &[String]) {
        match values {
            [one] => self.key(name, one.clone()),
            several => self.key(name, several.to_vec()),
        }
    }

    /// Writes a key for one path or for several, which are made absolute; none is left out.
    pub(crate) fn paths(&mut self, name: &str, paths: &[PathBuf]) {
        if !paths.is_empty() {
            let texts: Vec<_> = paths.iter().map(|path| absolute(path).to_string_lossy().into_owned()).collect();
            self.strings(name, &texts);
        }
    }

    /// Writes a key for a path, which is made absolute so that the text means the same wherever it is read, but in a
    /// record relative.
    pub(crate) fn path(&mut self, name: &str, path: &Path) {
        let text = match &self.record {
            None => absolute(path).to_string_lossy().into_owned(),
            Some((root, names)) => portable(path, root, names),
        };
        self.key(name, text);
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// Writes one more table of an array, and all tables of `write` within it.
    pub(crate) fn array_of_tables(&mut self, name: &'static str, write: impl FnOnce(&mut Self)) {
        self.array_table(name);
        self.within = Some(name);
        write(self);
        self.within = None;
    }

    /// Writes without some keys.
    pub(crate) fn leaving_out(&mut self, keys: Vec<&'static str>, write: impl FnOnce(&mut Self)) {
        self.left_out = keys;
        write(self);
        self.left_out.clear();
    }
}

/// TOML's integer for a count. Counts in a spec are far below its end.
pub(crate) fn integer(count: usize) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { Value::from(name).to_string() }
}
