//! Comparisons of providers with the CPU, stored next to the optimized graphs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cache_folder::{GraphCache, VERIFIED};
use super::checksums::{read_sealed, write_sealed};
use super::digest::digest;
use super::key::processor;
use super::stamp::Stamp;
use crate::bundle::GraphFile;
use crate::error::Result;
use crate::files;
use crate::rewrite::Pass;
use crate::session::{Runtime, SessionOptions};

/// The version of the comparisons. It changes when a graph is compared in another way.
const FORM: &str = "1";

/// The difference between a graph's outputs on its provider and on the CPU: the worst of all outputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The norm of the difference by the norm of the CPU's output.
    pub relative_l2: f64,
    /// The largest difference by the largest magnitude of the CPU's output.
    pub largest: f64,
}

/// The file with the comparison of one graph on one list of providers with their options.
#[derive(Debug, Clone)]
pub struct VerificationFile {
    path: PathBuf,
    is_read_only: bool,
}

impl GraphCache {
    /// The file with the comparison of `graph`, opened with `options` and rewritten with `passes`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the graph's files cannot be read.
    pub fn verified(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
    ) -> Result<VerificationFile> {
        let mut hash = Sha256::new();
        let known = [FORM, &digest(Some(self), graph)?, runtime.version(), &processor()].map(str::to_owned);
        let providers = options.providers.iter().map(|choice| format!("{} {:?}", choice.name, choice.options));
        let passes = passes.iter().map(|pass| format!("{pass:?}"));
        // The version of a plugin is in its library alone.
        let plugins = runtime.provider_libraries();
        let plugins = plugins.iter().filter_map(|path| Some(format!("{:?}", Stamp::of(path).ok()?)));
        for part in known.into_iter().chain(providers).chain(plugins).chain(passes) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut name = files::hexadecimal(hash);
        name.truncate(32);
        Ok(VerificationFile {
            is_read_only: self.is_read_only,
            path: self.root.join(VERIFIED).join(format!("{name}.json")),
        })
    }
}

impl VerificationFile {
    /// The stored difference, which was within the tolerance; `None` if the graph was not compared yet.
    pub fn read(&self) -> Option<Difference> {
        read_sealed(&self.path)
    }

    /// Stores a difference. If it cannot be written, the next run compares again.
    pub fn write(&self, difference: Difference) {
        if !self.is_read_only && self.path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok()) {
            let _ = write_sealed(&self.path, &difference);
        }
    }
}
