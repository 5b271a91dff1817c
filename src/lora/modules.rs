//! Finds a graph's modules by their names in LoRA files.

use std::collections::HashMap;

use super::blocks::Blocks;
use super::names::flatten_name;
use crate::bundle::ModuleWeight;

/// The modules of a graph by their names.
pub struct Modules<'w> {
    by_name: HashMap<String, Vec<&'w ModuleWeight>>,
    /// The first module that reads each stored weight.
    readers: HashMap<&'w str, &'w str>,
    shared: HashMap<&'w str, &'w str>,
    blocks: Blocks,
}

impl<'w> Modules<'w> {
    /// Indexes the modules of a graph.
    pub fn new(weights: &'w [ModuleWeight]) -> Self {
        let beginnings = beginnings(weights);
        let without = |beginning: usize, module: &'w str| module.get(beginning..).unwrap_or(module);
        let mut by_name: HashMap<String, Vec<&ModuleWeight>> = HashMap::new();
        let (mut readers, mut shared) = (HashMap::new(), HashMap::new());
        for weight in weights {
            for &beginning in &beginnings {
                let same = by_name.entry(flatten_name(without(beginning, &weight.module))).or_default();
                if !same.iter().any(|other| other.name == weight.name) {
                    same.push(weight);
                }
            }
            let first = *readers.entry(weight.name.as_str()).or_insert(weight.module.as_str());
            if first != weight.module {
                shared.insert(weight.name.as_str(), weight.module.as_str());
            }
        }
        let longest = beginnings.last().copied().unwrap_or(0);
        let blocks = Blocks::new(weights.iter().map(|weight| without(longest, &weight.module)));
        Self { by_name, readers, shared, blocks }
    }

    /// Returns true if the graph's modules are unknown.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Finds the weight of a module named with `_` for `.`; `None` if there is none, or more than one.
    pub fn find(&self, name: &str) -> Option<&'w ModuleWeight> {
        let exactly = |name: &str| match self.by_name.get(name).map(Vec::as_slice) {
            Some([one]) => Some(*one),
            _ => None,
        };
        exactly(name)
            // Text encoders are exported with and without the model around their transformer.
            .or_else(|| exactly(name.strip_prefix("text_model_")?))
            .or_else(|| exactly(&self.blocks.translate(name)?))
    }

    /// Returns true if the graph has a module with this name, also with several weights.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some() || self.by_name.contains_key(name)
    }

    /// Returns two modules that share this weight, if any: exporters may deduplicate equal weights.
    pub fn sharing(&self, weight: &ModuleWeight) -> Option<(&'w str, &'w str)> {
        let name = weight.name.as_str();
        Some((self.readers.get(name)?, self.shared.get(name)?))
    }
}

/// Returns the lengths of prefixes common to all modules' paths: exporters wrap a model into another,
/// `model.down_blocks.0…`, and all layers of a text encoder are in `text_model.encoder`.
fn beginnings(weights: &[ModuleWeight]) -> Vec<usize> {
    let mut lengths = vec![0];
    let Some(first) = weights.first() else { return lengths };
    for (at, _) in first.module.match_indices('.') {
        let start = first.module.get(..=at);
        if !weights.iter().all(|weight| weight.module.get(..=at) == start) {
            break;
        }
        lengths.push(at + 1);
    }
    lengths
}
