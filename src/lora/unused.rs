//! The parts of a LoRA file that a pipeline has no place for.

use std::path::Path;

use super::file::LoraFile;
use super::names::Part;
use super::{few, modules_of};
use crate::bundle::GraphFile;

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
            self.sentences.push(format!(
                "{} of its {all} modules of {part} are not in {path} and are left out: {}",
                missing.len(),
                few(&missing)
            ));
        }
    }

    /// Returns a warning for each kind of what is unused.
    pub fn warnings(mut self, path: &Path) -> Vec<String> {
        for part in &self.parts {
            let modules = modules_of(self.file, *part);
            self.sentences.push(format!(
                "its {} modules of {part} are left out, which this pipeline does not load: {}",
                modules.len(),
                few(&modules)
            ));
        }
        let bare: Vec<&str> = self.file.bare.iter().map(|(_, module)| module.as_str()).collect();
        if !bare.is_empty() {
            self.sentences.push(format!(
                "{} modules have an alpha and no matrices, and change nothing: {}",
                bare.len(),
                few(&bare)
            ));
        }
        let mut kinds: Vec<_> = self.file.foreign.iter().map(|(_, foreign)| foreign.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let of_kind = self.file.foreign.iter().filter(|(_, foreign)| foreign.kind == kind);
            let names: Vec<&str> = of_kind.map(|(name, _)| name.as_str()).collect();
            let kind = kind.unwrap_or("no naming that is known (kohya, diffusers, PEFT)");
            self.sentences.push(format!("{} tensors are left out, of {kind}: {}", names.len(), few(&names)));
        }
        self.sentences.into_iter().map(|sentence| format!("{}: {sentence}", path.display())).collect()
    }
}
