//! The parts of a LoRA file that a pipeline has no place for.

use std::path::Path;

use super::file::LoraFile;
use super::listing::{few, modules_of};
use super::names::Part;
use crate::bundle::GraphFile;
use crate::error::count_of;

/// Modules and tensors of a file that change nothing.
pub struct Unused<'f> {
    file: &'f LoraFile,
    /// Parts of the model that the pipeline does not load.
    pub parts: Vec<Part>,
    sentences: Vec<String>,
}

impl<'f> Unused<'f> {
    pub fn new(file: &'f LoraFile) -> Self {
        Self { file, parts: Vec::new(), sentences: Vec::new() }
    }

    /// Takes the modules of a part that its graph does not have.
    pub fn take(&mut self, part: Part, graph: &GraphFile, missing: Vec<&str>) {
        if !missing.is_empty() {
            let (all, path) = (modules_of(self.file, part).len(), graph.path.display());
            let (left, names) = (missing.len(), few(&missing));
            self.sentences.push(format!("{left} of its {all} modules of {part}, which {path} does not have: {names}"));
        }
    }

    /// Returns a warning for each kind of what is unused.
    pub fn warnings(mut self, path: &Path) -> Vec<String> {
        for part in &self.parts {
            let modules = modules_of(self.file, *part);
            let (count, names) = (count_of(modules.len(), "module"), few(&modules));
            self.sentences.push(format!("{count} of {part}, which this pipeline does not load: {names}"));
        }
        let bare: Vec<&str> = self.file.bare.iter().map(|(_, module)| module.as_str()).collect();
        if !bare.is_empty() {
            let (count, names) = (count_of(bare.len(), "module"), few(&bare));
            self.sentences.push(format!("{count} with an alpha and no matrices: {names}"));
        }
        let mut kinds: Vec<_> = self.file.foreign.iter().map(|(_, foreign)| foreign.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let of_kind = self.file.foreign.iter().filter(|(_, foreign)| foreign.kind == kind);
            let names: Vec<&str> = of_kind.map(|(name, _)| name.as_str()).collect();
            let kind = kind.unwrap_or("no naming that is known (kohya, diffusers, PEFT)");
            self.sentences.push(format!("{} of {kind}: {}", count_of(names.len(), "tensor"), few(&names)));
        }
        self.sentences.into_iter().map(|sentence| format!("{} is merged without {sentence}", path.display())).collect()
    }
}
