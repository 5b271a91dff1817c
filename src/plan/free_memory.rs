//! Comparing a run's memory with what is free.
//!
//! A run that takes more private memory than there is ends in the system's out-of-memory killer, often after minutes of
//! work, and takes other programs along. Mapped weights that don't fit are read from the disk again and again instead.

use super::execution_plan::ExecutionPlan;
use super::opening::Opening;
use crate::error::{Error, Result};
use crate::rewrite::{Footprint, footprint};

/// The memory that a run takes at least, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Memory of the process's own: activations, and weights that are stored within a graph's file.
    pub private: u64,
    /// Weights that are mapped from files.
    pub mapped: u64,
    /// The component that takes the most private memory.
    pub component: String,
}

/// The memory of a graph that a run takes besides what the process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountedMemory {
    /// None: it is open, and has run at these sizes.
    None,
    /// Its activations: it is open.
    Activations,
    /// Its weights and its activations.
    All,
}

impl ExecutionPlan {
    /// Adds up what the graphs on the CPU take at least: what is open at the same time, at the request's sizes, with every
    /// operator writing over its input that can. Tensors whose size isn't known before they are made are left out.
    ///
    /// # Errors
    /// [`Error::Io`] where a graph's files cannot be read.
    pub fn memory_need(&self) -> Result<MemoryNeed> {
        self.memory_need_of(&|_| CountedMemory::All)
    }

    /// The need of what `counted` says of each graph.
    fn memory_need_of(&self, counted: &dyn Fn(&Opening<'_>) -> CountedMemory) -> Result<MemoryNeed> {
        let mut need = MemoryNeed::default();
        let mut most = 0;
        let is_counted = |opening: &Opening<'_>| counted(opening) != CountedMemory::None;
        let openings: Vec<_> = self.openings().into_iter().filter(is_counted).collect();
        let stays = self.keeps_open(&|opening| counted(opening) == CountedMemory::None);
        for opening in openings.iter().filter(|opening| self.device.is_on_cpu(opening.kind)) {
            let [private, mapped] = self.least(opening, counted(opening))?;
            if private > most || need.component.is_empty() {
                (most, need.component) = (private, opening.name());
            }
            // Graphs that stay open keep the memory of their last run.
            let is_sure_to_stay = self.device.offload == Some(false);
            need.private =
                if is_sure_to_stay { need.private.saturating_add(private) } else { need.private.max(private) };
            need.mapped = if stays { need.mapped.saturating_add(mapped) } else { need.mapped.max(mapped) };
        }
        Ok(need)
    }

    /// Compares the need with the `free` bytes of the machine, and returns a warning if the mapped weights exceed them.
    ///
    /// # Errors
    /// [`Error::Memory`] if the private memory exceeds them and `[device] overcommit` is false; those of
    /// [`ExecutionPlan::memory_need`].
    pub fn check_free_memory(&self, free: u64) -> Result<Option<String>> {
        self.check_free_memory_for(free, &|_| CountedMemory::All)
    }

    /// As [`ExecutionPlan::check_free_memory`], for what `counted` says of each graph.
    pub(crate) fn check_free_memory_for(
        &self,
        free: u64,
        counted: &dyn Fn(&Opening<'_>) -> CountedMemory,
    ) -> Result<Option<String>> {
        let need = self.memory_need_of(counted)?;
        let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
        let [private, mapped, free_gb] = [need.private, need.mapped, free].map(gigabytes);
        if need.private > free {
            let problem = format!("{} needs {private} or more, and {free_gb} are free", need.component);
            if !self.device.overcommit {
                let help = "make smaller images, close other programs or raise the container's limit, set device.memory_budget to \
                            have the run use less, or set device.overcommit = true to start it all the same";
                return Err(Error::Memory { problem, help: help.to_owned() });
            }
            return Ok(Some(format!("{problem}: the system may end the run")));
        }
        let is_slow = need.private.saturating_add(need.mapped) > free;
        Ok(is_slow.then(|| {
            format!(
                "the weights are {mapped} beside {private} of other memory, and {free_gb} are free: they are read from the \
                 disk again and again, which is slow"
            )
        }))
    }

    /// The private and the mapped bytes that a graph takes at least while it runs.
    fn least(&self, opening: &Opening<'_>, counted: CountedMemory) -> Result<[u64; 2]> {
        let is_prepared = self.cache_for(opening.kind).is_some();
        let own = |pass: &&crate::rewrite::Pass| is_prepared || pass.cuts();
        let passes: Vec<_> = opening.passes.iter().filter(own).copied().collect();
        let told = footprint(opening.graph, &passes, &self.axes(opening))?;
        let Footprint { in_place, weights, .. } = told.unwrap_or_default();
        let callers = if opening.kind == self.model.denoiser.kind { self.callers() as u64 } else { 1 };
        let activations = in_place.saturating_mul(callers);
        if counted == CountedMemory::Activations {
            return Ok([activations, 0]);
        }
        // Optimized graphs have all weights beside them; others keep those within the file in memory.
        let mapped: u64 = opening.graph.external.iter().map(|file| file.needed).sum();
        Ok(match is_prepared {
            true => [activations, weights],
            false => [activations.saturating_add(opening.graph.weight_bytes.saturating_sub(mapped)), mapped],
        })
    }
}
