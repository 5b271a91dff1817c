//! The small files of a model directory that, like the weights, determine its images.

use std::path::{Path, PathBuf};

use super::{Bundle, ComponentKind};

/// The files of a tokenizer's folder that are read.
const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

impl Bundle {
    /// Returns the configuration and tokenizer files that this model was read from, each with its name: its path in the
    /// model directory with `/` as the separator, or below `[model.NAME]` for a graph elsewhere that the pipeline file
    /// names.
    pub fn configuration(&self) -> Vec<(String, PathBuf)> {
        let mut files = Vec::new();
        let mut add = |path: PathBuf, elsewhere: &str| {
            let name = match path.strip_prefix(&self.dir) {
                Ok(inside) => portable(inside),
                Err(_) => format!("{elsewhere}/{}", path.file_name().unwrap_or_default().to_string_lossy()),
            };
            if path.is_file() && !files.iter().any(|(known, _)| *known == name) {
                files.push((name, path));
            }
        };
        add(self.dir.join("model_index.json"), "");
        let run = self.components.values().chain(&self.controlled_denoiser);
        for component in run.filter(|component| component.kind != ComponentKind::SafetyChecker) {
            if let Some(path) = &component.config_path {
                add(path.clone(), &format!("[model.{}]", component.kind));
            }
        }
        for scheduler in self.scheduler.iter().chain(&self.low_res_scheduler) {
            add(scheduler.path.clone(), "scheduler");
        }
        for folder in self.tokenizers.values() {
            TOKENIZER_FILES.iter().for_each(|name| add(folder.join(name), "tokenizer"));
        }
        files
    }
}

fn portable(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}
