//! The way in which a model runs on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::ModelPlan;
use super::run_plan::RunPlan;
use crate::bundle::ComponentKind;
use crate::graph_cache::{GraphCache, Rows};
use crate::session::usable_threads;
use crate::spec::{DecodeTile, DeviceSpec};
use crate::task::TaskModel;
use crate::tiles::Tiles;

/// The way in which a model runs on this machine: providers, sizes, memory budget, the runs of a guided call, graph cache.
#[derive(Debug, Clone)]
pub struct ExecutionPlan {
    /// The model.
    pub model: Arc<ModelPlan>,
    /// Providers and threads.
    pub device: DeviceSpec,
    /// The sizes that the graphs are opened for.
    pub sizes: Sizes,
    /// The losses that keep memory within its budget, if there is one.
    pub memory_budget: Option<MemoryBudget>,
    /// The components that `precision = "auto"` leaves in float32, since their products cannot be bf16's.
    pub(super) float32_components: BTreeSet<ComponentKind>,
    /// The measured times of the denoiser's rows on this machine, if they are known.
    pub measured_rows: Option<Rows>,
    /// The cache of graphs that are optimized for this machine; `None` opens them as they are.
    pub graph_cache: Option<GraphCache>,
    /// The memory of the devices in use, by their providers, as far as it is known ([`ExecutionPlan::read_device_memory`]).
    pub device_memory: BTreeMap<String, DeviceMemory>,
    /// False if graphs are opened without ONNX Runtime's arena, since memory is short.
    pub uses_arenas: bool,
    /// Remarks on the memory budget.
    pub(super) remarks: Vec<String>,
}

/// The sizes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of one call of the denoiser: images denoised at once, times the branches of their guidance.
    pub rows: usize,
    /// True if some of the calls have fewer rows, since guidance is at work in a part of the run only, or the last batch has
    /// fewer images.
    pub fewer_at_times: bool,
    /// Width of the images in pixels.
    pub width: usize,
    /// Height of the images in pixels.
    pub height: usize,
    /// The tiles in which denoiser and decoder work, where they do.
    pub tiles: Option<Tiles>,
    /// The tiles in which the decoder works, if it is chosen.
    pub decode_tile: DecodeTile,
}

impl Sizes {
    /// Those of `request` on this model.
    pub fn of(request: &RunPlan, model: &TaskModel) -> Self {
        Self {
            rows: request.batch * request.task.branches(model),
            fewer_at_times: request.guidance_interval.is_some()
                || request.indices().is_ok_and(|indices| indices.len() % request.batch.max(1) != 0),
            width: request.width,
            height: request.height,
            tiles: request.tiles,
            decode_tile: request.decode_tile,
        }
    }
}

/// The memory of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMemory {
    /// The device's name.
    pub device: String,
    /// All of its memory.
    pub bytes: u64,
}

/// The losses that keep the memory of a run within `[device] memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryBudget {
    /// The rows of a guided call are run one after the other.
    pub denoises_alone: bool,
    /// The VAE's convolutions are not rewritten in Winograd's form, which takes four times their weights.
    pub decodes_plainly: bool,
    /// The tiles in which the VAE's decoder works.
    pub tiles: Option<Tiles>,
}

impl ExecutionPlan {
    /// Plans a model for a request, with nothing measured and no cache.
    pub(super) fn new(model: Arc<ModelPlan>, request: &RunPlan, device: DeviceSpec) -> Self {
        let sizes = Sizes::of(request, &model.model);
        Self {
            model,
            device,
            sizes,
            memory_budget: None,
            float32_components: BTreeSet::new(),
            measured_rows: None,
            graph_cache: None,
            device_memory: BTreeMap::new(),
            uses_arenas: true,
            remarks: Vec::new(),
        }
    }

    /// Returns warnings to show before a run.
    pub fn warnings(&self) -> Vec<String> {
        let own = [self.memory_budget_warning(), self.threads_warning()].into_iter().flatten();
        self.model.warnings().into_iter().chain(self.remarks.iter().cloned()).chain(own).collect()
    }

    /// A warning if the memory budget changes the image.
    fn memory_budget_warning(&self) -> Option<String> {
        let tiles = self.memory_budget?.tiles?;
        let side = tiles.size * self.model.spatial_factor;
        Some(format!(
            "to keep within device.memory_budget the image is decoded in tiles of {side}×{side} pixels, each of which is normalised by \
             itself: it differs a little from one decoded whole"
        ))
    }

    /// A warning if `[device] threads` is more than can run at the same time.
    fn threads_warning(&self) -> Option<String> {
        let (asked, used) = (self.device.threads?, self.threads()?);
        (asked > used).then(|| {
            format!(
                "device.threads = {asked} is more than the CPUs this process may use, which are {used}; {used} are used"
            )
        })
    }

    /// `[device] threads`, at most as many as can run at the same time unless `overcommit` allows more.
    pub fn threads(&self) -> Option<usize> {
        let most = if self.device.overcommit { usize::MAX } else { usable_threads() };
        self.device.threads.map(|threads| threads.min(most))
    }

    /// The same plan without ONNX Runtime's arenas, and with its decoder working in tiles of this side, in latents, if one is
    /// given.
    pub fn with_less_memory(&self, decode_tile: Option<usize>) -> Self {
        let decode_tile = decode_tile.map_or(self.sizes.decode_tile, DecodeTile::Side);
        Self { sizes: Sizes { decode_tile, ..self.sizes }, uses_arenas: false, ..self.clone() }
    }

    /// The tiles in which decoders work, if they do.
    pub fn decoding_tiles(&self) -> Option<Tiles> {
        let of_budget = self.memory_budget.and_then(|memory_budget| memory_budget.tiles);
        decoding_tiles(self.sizes.decode_tile, self.sizes.tiles.or(of_budget))
    }
}

/// The tiles in which decoders work: those that are chosen for them, or else the `others`.
pub(super) fn decoding_tiles(chosen: DecodeTile, others: Option<Tiles>) -> Option<Tiles> {
    match chosen {
        DecodeTile::IfNeeded => others,
        DecodeTile::Never => None,
        DecodeTile::Side(side) => Some(Tiles::of_decoder(side)),
    }
}
