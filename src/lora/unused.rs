//! The modules of a LoRA file that a pipeline does not use.

use std::path::Path;

use super::file::LoraFile;
use super::module_lists::{modules_of, summarize};
use super::names::LoraTarget;
use crate::bundle::GraphFile;
use crate::error::count_of;

/// Modules and tensors of a file that have no effect.
pub struct UnusedParts<'f> {
    file: &'f LoraFile,
    /// Parts of the model that the pipeline does not load.
    pub parts: Vec<LoraTarget>,
    sentences: Vec<String>,
}

impl<'f> UnusedParts<'f> {
    pub fn new(file: &'f LoraFile) -> Self {
        Self { file, parts: Vec::new(), sentences: Vec::new() }
    }

    /// Records the modules of a part that its graph lacks.
    pub fn take(&mut self, part: LoraTarget, graph: &GraphFile, missing: Vec<&str>) {
        if !missing.is_empty() {
            let (all, path) = (modules_of(self.file, part).len(), graph.path.display());
            let (left, names) = (missing.len(), summarize(&missing));
            self.sentences.push(format!("{left} of its {all} modules of {part}, which {path} does not have: {names}"));
        }
    }

    /// Returns a warning for each kind of unused tensors.
    pub fn warnings(mut self, path: &Path) -> Vec<String> {
        for part in &self.parts {
            let modules = modules_of(self.file, *part);
            let (count, names) = (count_of(modules.len(), "module"), summarize(&modules));
            self.sentences.push(format!("{count} of {part}, which this pipeline does not load: {names}"));
        }
        let alphas_only: Vec<&str> = self.file.alphas_only.iter().map(|(_, module)| module.as_str()).collect();
        if !alphas_only.is_empty() {
            let (count, names) = (count_of(alphas_only.len(), "module"), summarize(&alphas_only));
            self.sentences.push(format!("{count} with an alpha but no matrices: {names}"));
        }
        let mut kinds: Vec<_> = self.file.foreign.iter().map(|(_, foreign)| foreign.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let of_kind = self.file.foreign.iter().filter(|(_, foreign)| foreign.kind == kind);
            let names: Vec<&str> = of_kind.map(|(name, _)| name.as_str()).collect();
            let kind = kind.unwrap_or("an unknown naming (known: kohya, diffusers, PEFT)");
            self.sentences.push(format!("{} of {kind}: {}", count_of(names.len(), "tensor"), summarize(&names)));
        }
        self.sentences.into_iter().map(|sentence| format!("{} is merged without {sentence}", path.display())).collect()
    }
}
