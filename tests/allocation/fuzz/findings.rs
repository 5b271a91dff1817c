//! The findings of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Findings, with the first input that showed it.
#[derive(Default)]
pub struct Findings(BTreeMap<String, (u64, PathBuf, Vec<u8>)>);

impl Findings {
    /// Adds a finding.
    pub fn add(&mut self, what: String, kind: &str, input: u64, file: &Path, bytes: &[u8]) {
        // Messages differ in numbers; one of a kind is enough.
        let key: String = what.chars().filter(|c| !c.is_ascii_digit()).take(80).collect();
        let file = || file.to_path_buf();
        self.0
            .entry(format!("{kind}: {key}"))
            .or_insert_with(|| (input, file(), [what.as_bytes(), b"\n", bytes].concat()));
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The findings with their inputs, which are written in full to cargo's folder for such files.
    pub fn told(&self, reader: &str) -> String {
        let mut text = String::new();
        for (number, (kind, (input, file, told))) in self.0.iter().enumerate() {
            let split = told.iter().position(|byte| *byte == b'\n').unwrap_or(0);
            let (what, bytes) = told.split_at(split);
            let bytes = bytes.get(1..).unwrap_or_default();
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{reader}-{number}"));
            let kept = std::fs::write(&path, bytes).map_or_else(|e| e.to_string(), |()| path.display().to_string());
            let shown: String = bytes.escape_ascii().to_string().chars().take(500).collect();
            text += &format!(
                "{}\n  {}\n  LDM_ORT_FUZZ_INPUT={input} runs it again; as {}: {kept}\n  {shown}\n",
                kind.split(':').next().unwrap_or_default(),
                String::from_utf8_lossy(what),
                file.display(),
            );
        }
        text
    }
}
