//! The modules of a graph, found by the names that LoRA files give them.

use std::collections::HashMap;

use super::blocks::Blocks;
use super::names::flat;
use crate::bundle::ModuleWeight;

/// The modules of a graph by their names.
pub struct Modules<'w> {
    by_name: HashMap<String, Vec<&'w ModuleWeight>>,
    /// How often each stored weight is read, and by which module first.
    readers: HashMap<&'w str, &'w str>,
    shared: HashMap<&'w str, &'w str>,
    blocks: Blocks,
}

impl<'w> Modules<'w> {
    /// Takes down the modules of a graph.
    pub fn new(weights: &'w [ModuleWeight]) -> Self {
        let beginnings = beginnings(weights);
        let without = |beginning: usize, module: &'w str| module.get(beginning..).unwrap_or(module);
        let mut by_name: HashMap<String, Vec<&ModuleWeight>> = HashMap::new();
        let (mut readers, mut shared) = (HashMap::new(), HashMap::new());
        for weight in weights {
            for &beginning in &beginnings {
                let same = by_name.entry(flat(without(beginning, &weight.module))).or_default();
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

    /// Whether the graph tells of no module at all.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The weight of a module named with `_` for `.`; `None` where there is none, or more than one.
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

    /// True if the graph has a module of this name, be it in several weights.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some() || self.by_name.contains_key(name)
    }

    /// Two modules that this weight serves, where it serves more than one: exporters store equal weights once.
    pub fn sharing(&self, weight: &ModuleWeight) -> Option<(&'w str, &'w str)> {
        let name = weight.name.as_str();
        Some((self.readers.get(name)?, self.shared.get(name)?))
    }
}

/// The lengths of what may be left away at the front of all modules' paths, since all begin with it: exporters wrap a
/// model into another, `model.down_blocks.0…`, and all layers of a text encoder are below `text_model.encoder`.
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
