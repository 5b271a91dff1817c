//! Digests of the files that determine an image.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::bundle::ComponentKind;
use crate::error::Result;
use crate::files;
use crate::graph_cache;
use crate::plan::{ExecutionPlan, ModelPlan};

/// The digests of a model's files: sha256 in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelDigests {
    /// Over all of `weights`.
    pub whole: String,
    /// Of each graph with its weights by its component, and of each LoRA and each textual inversion.
    pub weights: BTreeMap<String, String>,
    /// Of each configuration and tokenizer file, by its path in the model directory.
    pub files: BTreeMap<String, String>,
}

impl ModelDigests {
    /// Digests everything that a plan opens. Those of graphs are remembered in the user's cache; the first time a large
    /// model takes seconds.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if a file cannot be read.
    pub fn new(plan: &ExecutionPlan) -> Result<Self> {
        Self::known(plan, &KnownDigests::default())
    }

    /// As [`ModelDigests::new`], reading no file whose digest is known.
    pub(crate) fn known(plan: &ExecutionPlan, known: &KnownDigests) -> Result<Self> {
        let (whole, weights) = weights(plan, known)?;
        let files = plan.model.configuration.iter();
        let digest = |path: &Path| known.get(path, || files::digest(path));
        let files = files.map(|(name, path)| Ok((name.clone(), digest(path)?))).collect::<Result<_>>()?;
        Ok(Self { whole, weights, files })
    }
}

/// The digests of files that an open pipeline has read, by their paths. A clone is the same collection.
#[derive(Debug, Clone, Default)]
pub struct KnownDigests(Arc<Mutex<HashMap<PathBuf, String>>>);

impl KnownDigests {
    fn get(&self, path: &Path, digest: impl FnOnce() -> Result<String>) -> Result<String> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(path).cloned();
        match found {
            Some(found) => Ok(found),
            None => {
                let digest = digest()?;
                known().insert(path.to_path_buf(), digest.clone());
                Ok(digest)
            }
        }
    }
}

/// A digest over all weights a plan opens: sha256, in hexadecimal.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if a file cannot be read.
pub fn model_digest(plan: &ExecutionPlan) -> Result<String> {
    Ok(weights(plan, &KnownDigests::default())?.0)
}

/// sha256 of each configuration and tokenizer file of a model, by its path in the model directory, in hexadecimal.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if a file cannot be read.
pub fn configuration_digests(plan: &ModelPlan) -> Result<BTreeMap<String, String>> {
    plan.configuration.iter().map(|(name, path)| Ok((name.clone(), files::digest(path)?))).collect()
}

fn weights(plan: &ExecutionPlan, known: &KnownDigests) -> Result<(String, BTreeMap<String, String>)> {
    let mut all = Sha256::new();
    let mut each = BTreeMap::new();
    let mut add = |kind: &str, name: String, digest: String| {
        all.update(kind);
        all.update(&digest);
        each.insert(name, digest);
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, graph) in plan.model.graphs() {
        let number = seen.entry(kind.name()).or_default();
        let name = if *number == 0 { kind.name().to_owned() } else { format!("{}[{number}]", kind.name()) };
        *number += 1;
        // The digest over all weights goes by the names of the first version, so that it stays the same for a model.
        let hashed = if kind == ComponentKind::TinyVaeDecoder { "small_decoder" } else { kind.name() };
        add(hashed, name, known.get(&graph.path, || graph_cache::digest(plan.graph_cache.as_ref(), graph))?);
    }
    for (at, inversion) in plan.model.text.iter().flat_map(|text| &text.inversions).enumerate() {
        add("embedding", format!("textual_inversion[{at}]"), inversion.digest().to_owned());
    }
    for (at, lora) in plan.model.loras.iter().enumerate() {
        add("lora", format!("lora[{at}]"), known.get(&lora.path, || lora.digest())?);
    }
    Ok((files::hexadecimal(all), each))
}
