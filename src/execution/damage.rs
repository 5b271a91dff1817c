//! Optimized graphs that turn out to be damaged after they were opened.

use super::ModelExecution;
use super::parts::Parts;
use crate::error::Result;
use crate::graph_cache::GraphCache;
use crate::plan::ModelPlan;
use crate::session::Cancel;

impl ModelExecution {
    /// Closes all graphs, and forgets the prompts' encodings, if one may be damaged: the next to open it makes it again.
    pub(super) fn close_damaged(&mut self) {
        let damages = damages(&self.plan);
        if damages != self.damages {
            let uncached = std::mem::take(&mut self.parts.uncached);
            self.parts = Parts { stay: self.parts.stay, uncached, ..Parts::default() };
            self.damages = damages;
        }
    }

    /// Waits until the optimized graphs that were opened are checked, so that no image is handed out that a damaged one
    /// made.
    pub(super) fn wait_checked(&self, cancel: &Cancel) -> Result<()> {
        self.plan.prepared.as_ref().map_or(Ok(()), |cache| cache.wait_checked(cancel))
    }
}

/// The damaged files that a plan's cache has found so far.
pub(super) fn damages(plan: &ModelPlan) -> usize {
    plan.prepared.as_ref().map_or(0, GraphCache::damages)
}
