//! Writes a pipeline as TOML.

use std::path::Path;

use toml::Value;

/// A TOML text being written, table by table.
#[derive(Default)]
pub(super) struct Writer(String);

impl Writer {
    /// Begins a table of this path, such as `["task", "text-to-image"]`.
    pub(super) fn table(&mut self, path: &[&str]) {
        self.begin();
        let path: Vec<_> = path.iter().map(|part| key(part)).collect();
        self.0 += &format!("[{}]\n", path.join("."));
    }

    /// Begins one more table of the array of this name.
    pub(super) fn array_table(&mut self, name: &str) {
        self.begin();
        self.0 += &format!("[[{}]]\n", key(name));
    }

    fn begin(&mut self) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
    }

    /// Writes a key of the table begun last.
    pub(super) fn key(&mut self, name: &str, value: impl Into<Value>) {
        self.0 += &format!("{} = {}\n", key(name), value.into());
    }

    /// Writes a key that has a value.
    pub(super) fn key_if<T: Into<Value>>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.key(name, value);
        }
    }

    /// Writes a key for one string or for several.
    pub(super) fn strings(&mut self, name: &str, values: &[String]) {
        match values {
            [one] => self.key(name, one.clone()),
            several => self.key(name, several.to_vec()),
        }
    }

    /// Writes a key for a path, which is made absolute so that the text means the same wherever it is read.
    pub(super) fn path(&mut self, name: &str, path: &Path) {
        self.key(name, absolute(path).to_string_lossy().into_owned());
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Makes a path absolute; one that cannot be stays as it is.
pub(super) fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// TOML's integer for a count. Counts in a spec are far below its end.
pub(super) fn integer(count: usize) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { Value::from(name).to_string() }
}
