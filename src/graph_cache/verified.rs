//! Comparisons of providers with the CPU, stored next to the optimized graphs.

use serde::{Deserialize, Serialize};

use super::cache_file::CacheFile;
use super::cache_folder::{GraphCache, VERIFIED};
use super::digest::digest;
use super::key::processor;
use super::stamp::Stamp;
use crate::bundle::GraphFile;
use crate::error::Result;
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

impl GraphCache {
    /// The file with the comparison of `graph`, which was within the tolerance, opened with `options` and rewritten with `passes`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the graph's files cannot be read.
    pub fn verified(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
    ) -> Result<CacheFile<Difference>> {
        let known = [FORM, &digest(Some(self), graph)?, runtime.version(), &processor()].map(str::to_owned);
        let providers = options.providers.iter().map(|choice| format!("{} {:?}", choice.name, choice.options));
        let passes = passes.iter().map(|pass| format!("{pass:?}"));
        // The version of a plugin is in its library alone.
        let plugins = runtime.provider_libraries();
        let plugins = plugins.iter().filter_map(|path| Some(format!("{:?}", Stamp::of(path).ok()?)));
        Ok(self.file(VERIFIED, known.into_iter().chain(providers).chain(plugins).chain(passes)))
    }
}
