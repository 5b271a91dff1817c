//! The problems of a pipeline file or a flag.

use std::path::PathBuf;

/// One problem of a pipeline file or a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the user wrote it; `None` for flags and `--set` overrides.
    pub file: Option<PathBuf>,
    /// The line in that file, counted from 1.
    pub line: Option<usize>,
    /// The full key, such as `task.text-to-image.prompt`, or the flag.
    pub key: String,
    /// The expected and the actual value, with the valid choices if they are few.
    pub message: String,
}

impl Problem {
    /// Returns the next thing to do.
    pub(crate) fn hint(&self) -> &'static str {
        let (flag, key) = match self.key.strip_prefix("--") {
            Some(flag) => flag.strip_prefix("set ").map_or((Some(flag), flag), |key| (None, key)),
            None => (None, self.key.as_str()),
        };
        let key = match key.strip_prefix("stage[") {
            Some(rest) => rest.split_once("].").map_or("", |(_, key)| key),
            None => key,
        };
        match key.split(['.', '[', ' ']).next().unwrap_or_default() {
            "" if self.line.is_some() => "correct the TOML syntax in this line",
            "" if self.file.is_some() => {
                "name a pipeline file, or a model directory; `ldm-ort init MODEL_DIR` prints a pipeline file for a model"
            }
            _ if self.message.starts_with("missing") => {
                "`ldm-ort init MODEL_DIR` prints a pipeline file for a model, with every key that it needs"
            }
            "scheduler" => "`ldm-ort list schedulers` prints the schedulers, with --markdown their keys too",
            "provider" => "`ldm-ort list providers` prints the providers that can be used",
            "task" => "`ldm-ort list tasks` prints the tasks and their keys",
            _ if flag.is_some_and(|flag| flag != "set") => "`ldm-ort help run` describes the flags",
            _ => "`ldm-ort list keys` prints the keys and the types of their values",
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            _ => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
