//! The denoiser's shallow layers as a graph of their own, for caches that run them alone.

use super::sources::ModelSources;
use crate::bundle::GraphFile;
use crate::denoise::StepCache;
use crate::error::{Error, Result};
use crate::rewrite::SkipBranch;

/// Where the denoiser is cut, and what lies outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShallowPlan {
    /// The number of the branch, 0 for the outermost.
    pub branch: usize,
    /// The tensor that the deep layers give to the shallow ones.
    pub tensor: String,
    /// Bytes of the weights that the shallow layers read.
    pub weight_bytes: u64,
}

impl ShallowPlan {
    /// Resolves where `cache` wants the denoiser's graph cut; `None` where it does not.
    ///
    /// # Errors
    /// [`Error::Input`] where the graph has no such long skip connection; as [`crate::rewrite::branches`].
    pub(super) fn new(cache: Option<&StepCache>, graph: &GraphFile, sources: &ModelSources) -> Result<Option<Self>> {
        let Some((cache, branch)) = cache.and_then(|cache| Some((cache, cache.branch()?))) else { return Ok(None) };
        let found = sources.branches(graph)?;
        let (count, table) = (found.len(), format!("cache.{}", cache.entry().name));
        if count == 0 {
            return Err(Error::input(
                table,
                format!(
                    "cuts a UNet along a long skip connection, and none was found in {}: no two tensors of [n, c, h, w] that \
                     come from the same layers, one by way of deeper ones, are joined along their channels",
                    graph.path.display()
                ),
                "choose another cache, such as [cache.spectrum], which sees a denoiser from outside",
            ));
        }
        match found.get(branch).cloned() {
            Some(SkipBranch { tensor, shallow_weights }) => {
                Ok(Some(Self { branch, tensor, weight_bytes: shallow_weights }))
            }
            None => Err(Error::input(
                format!("{table}.branch"),
                format!("{branch} is asked for, and {} has {count} long skip connections", graph.path.display()),
                format!("choose from 0 to {}", count - 1),
            )),
        }
    }
}
