//! The choice between graphs that stay loaded for the next image and graphs that are unloaded once they have run.

use std::collections::BTreeMap;

use super::execution_plan::{DeviceMemory, ExecutionPlan};
use super::opening::Opening;
use crate::memory;
use crate::session::{Runtime, find_provider};

/// The bytes of activations next to the weights of a large model.
const BESIDE: u64 = 2 << 30;

impl ExecutionPlan {
    /// Reads the memory of the devices of all providers that are in use, as far as ONNX Runtime reports it.
    pub fn read_device_memory(&mut self, runtime: &Runtime) {
        let lists = std::iter::once(&self.device.providers).chain(self.device.components.values());
        let names = lists.filter_map(|list| list.first()).filter(|name| *name != "cpu");
        let known = names.filter_map(|name| {
            let (device, bytes) = runtime.device_memory(name)?;
            Some((name.clone(), DeviceMemory { device, bytes }))
        });
        self.device_memory = known.collect();
    }

    /// True if graphs stay loaded once they have run: as `[device] offload` says, or without a memory budget, if there is room
    /// for all of them. Those on a device whose memory is known are held against that, the others, as far as they are not
    /// `open` yet, against what the machine has free.
    pub fn keeps_open(&self, is_open: &dyn Fn(&Opening<'_>) -> bool) -> bool {
        let fits = || self.memory_budget.is_none() && self.shortage(is_open).is_none();
        self.device.offload.map_or_else(fits, |offload| !offload)
    }

    /// True if a graph is compiled in the host's memory by its provider, as OpenVINO does. That takes more memory than the
    /// compiled graph.
    pub fn compiles_on_host(&self) -> bool {
        let is_compiled_here = |opening: &Opening<'_>| {
            let first = self.device.providers_of(opening.kind).first();
            first.is_some_and(|name| find_provider(name).is_ok_and(|known| known.compiles && !known.has_own_memory()))
        };
        self.openings().iter().any(is_compiled_here)
    }

    /// Returns a sentence about the graphs that are unloaded once they have run, with the reason; `None` if all stay loaded.
    pub fn offload_remark(&self) -> Option<String> {
        let reason = match (self.device.offload, self.memory_budget) {
            (Some(false), _) => None,
            (Some(true), _) => Some("device.offload = true".to_owned()),
            (None, Some(_)) => Some("device.memory_budget".to_owned()),
            (None, None) => self.shortage(&|_| false),
        };
        reason.map(|reason| format!("each graph is unloaded after it has run: {reason}"))
    }

    /// Says which memory has no room for all weights at once, if one has none.
    fn shortage(&self, is_open: &dyn Fn(&Opening<'_>) -> bool) -> Option<String> {
        let mut on_host = 0;
        let mut on_devices: BTreeMap<&str, u64> = BTreeMap::new();
        let preview = self.model.preview_decoder().map(|part| self.opening(part));
        for opening in self.openings().into_iter().chain(preview) {
            let first = self.device.providers_of(opening.kind).first();
            match first.filter(|name| self.device_memory.contains_key(*name)) {
                Some(name) => *on_devices.entry(name).or_default() += opening.weight_bytes,
                None if is_open(&opening) => {}
                None => on_host += opening.weight_bytes,
            }
        }
        let is_short = |weights: u64, room: u64| weights.saturating_add(BESIDE.min(weights)) >= room;
        let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
        for (name, weights) in on_devices {
            let memory = self.device_memory.get(name)?;
            if is_short(weights, memory.bytes) {
                let (weights, bytes) = (gigabytes(weights), gigabytes(memory.bytes));
                return Some(format!("the weights are {weights}, and {} has {bytes}", memory.device));
            }
        }
        let free = memory::available().filter(|free| on_host > 0 && is_short(on_host, *free))?;
        Some(format!("the weights are {}, and {} are free", gigabytes(on_host), gigabytes(free)))
    }
}
