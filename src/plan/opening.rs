//! Options for opening and running the graphs of a plan.

use super::execution_plan::ExecutionPlan;
use super::openvino;
use super::part::Part;
use crate::bundle::{ComponentKind, GraphFile};
use crate::graph_cache::{GraphCache, Rows};
use crate::kernels::OperandType;
use crate::rewrite::Pass;
use crate::session::{ProviderChoice, SessionOptions, WeightFile, find_provider};
use crate::spec::{Batching, DenoisingLoop};
use crate::tensor::ByteEdit;

/// The provider with the faults in docs/known-issues.md.
const WEBGPU: &str = "webgpu";

/// A graph that is opened.
#[derive(Debug, Clone)]
pub struct Opening<'p> {
    /// The component.
    pub kind: ComponentKind,
    /// True for the denoiser's shallow layers alone.
    pub is_shallow: bool,
    /// The file.
    pub graph: &'p GraphFile,
    /// Edits of the graph's bytes.
    pub edits: &'p [ByteEdit],
    /// The passes that rewrite it.
    pub passes: Vec<Pass>,
    /// Bytes of the weights that it reads.
    pub weight_bytes: u64,
}

impl Opening<'_> {
    /// Returns its name for people.
    pub fn name(&self) -> String {
        name(self.kind, self.is_shallow)
    }

    /// The files of weights that ONNX Runtime is handed: all of the graph's, where links lead to any of them.
    pub fn weight_files(&self) -> Vec<WeightFile> {
        let files = &self.graph.external;
        let handed = files.iter().filter(|_| files.iter().any(|file| file.is_linked));
        handed.map(|file| WeightFile { location: file.location.clone(), path: file.path.clone() }).collect()
    }
}

/// The fastest way to run rows, one run of all of them only where that is possible.
pub(crate) fn fastest(rows: &Rows, can_batch: bool) -> Batching {
    let batched = rows.batched.filter(|_| can_batch).unwrap_or(f64::INFINITY);
    match batched < rows.split.min(rows.sequential) {
        true => Batching::Batched,
        false if rows.sequential < rows.split => Batching::Sequential,
        false => Batching::Split,
    }
}

/// Returns the name, for people, of a component's graph or of its shallow layers alone.
pub(crate) fn name(kind: ComponentKind, is_shallow: bool) -> String {
    if is_shallow { format!("{kind} (shallow layers)") } else { kind.to_string() }
}

impl ExecutionPlan {
    /// Returns the passes that rewrite a component's graph before it is opened. Those that it does not need to run
    /// ([`Pass::is_required`]) are only done to graphs that are cached.
    pub fn passes(&self, kind: ComponentKind) -> Vec<Pass> {
        let cut = self
            .model
            .shallow
            .iter()
            .filter(|_| kind == self.model.denoiser.kind)
            .map(|shallow| Pass::DeepOutput(shallow.branch));
        self.plain_passes(kind).chain(cut).collect()
    }

    /// The same without a cut.
    ///
    /// Winograd's form rounds a little more than a plain convolution. A VAE does that once an image; a denoiser's
    /// rounding goes on from step to step, and is left alone unless it is asked for.
    pub(super) fn plain_passes(&self, kind: ComponentKind) -> impl Iterator<Item = Pass> {
        let rounds_once = self.rounds_once(kind) && !self.decodes_plainly(kind);
        let own = self.operator_choice(kind).map(Pass::Operators);
        let is_fast = self.device.fast_convolutions && own.is_none() && self.is_heavy(kind);
        let winograd = (rounds_once && !self.device.exact || is_fast).then_some(Pass::Winograd);
        let loose = self.memory_budget.map(|_| Pass::DynamicShapes);
        let upcast = self.is_widened(kind).then_some(Pass::Float32);
        let is_on_webgpu = self.may_run_on(kind, WEBGPU);
        let padding = is_on_webgpu.then_some(Pass::ChannelPadding);
        let mask_bias = self.may_run_on(kind, openvino::PROVIDER).then_some(Pass::MaskBias);
        // ONNX Runtime with OpenVINO runs the components on the CPU too.
        let angles = self.device.uses(openvino::PROVIDER).then_some(Pass::Angles);
        let names = (self.is_compiled(kind) || own.is_some()).then_some(Pass::AxisNames);
        [Pass::Attention, Pass::FeedForward, Pass::Subpixel]
            .into_iter()
            .chain(upcast)
            .chain(winograd)
            .chain(padding)
            .chain(mask_bias)
            .chain(angles)
            .chain(names)
            .chain(own)
            .chain(loose)
    }

    /// Returns the cache for this component's optimized graph, if it is cached.
    ///
    /// Graphs that are opened on other weights than they store are not, and those that run on another provider than the
    /// processor go through that provider's own hands.
    pub fn cache_for(&self, kind: ComponentKind) -> Option<&GraphCache> {
        self.graph_cache.as_ref().filter(|_| self.can_be_cached(kind))
    }

    /// True if this component's optimized graph can be cached.
    pub(super) fn can_be_cached(&self, kind: ComponentKind) -> bool {
        let of_text = kind.text_encoder_number().is_some();
        let learns = self
            .model
            .text
            .iter()
            .flat_map(|text| &text.encoders)
            .any(|t| t.part.kind == kind && t.added_tokens.is_some());
        let is_changed = learns || (!self.model.loras.is_empty() && (of_text || kind == self.model.denoiser.kind));
        self.device.is_on_cpu(kind) && self.device.optimize && !is_changed
    }

    /// True if the memory of a component's activations is freed after its last run for an image: as `[device]
    /// free_activations` says, or on the CPU.
    pub fn frees_activations(&self, kind: ComponentKind) -> bool {
        self.device.free_activations.unwrap_or_else(|| self.device.is_on_cpu(kind))
    }

    /// True if a component is compared with the CPU before it is first used: as `[device] verify` says, or on providers other
    /// than the CPU.
    pub fn verifies(&self, kind: ComponentKind) -> bool {
        self.device.verify.unwrap_or_else(|| !self.device.is_on_cpu(kind))
    }

    /// True if any node of a component may run on the provider of this name.
    fn may_run_on(&self, kind: ComponentKind, provider: &str) -> bool {
        self.device.providers_of(kind).iter().any(|name| name == provider)
    }

    /// True if a provider compiles a component for the lengths of its axes.
    fn is_compiled(&self, kind: ComponentKind) -> bool {
        self.device.providers_of(kind).iter().any(|name| find_provider(name).is_ok_and(|provider| provider.compiles))
    }

    /// The free axes of a component's graph that are fixed when it is opened, by name, and their lengths: those of cached
    /// and of compiled graphs.
    fn fixed_axes(&self, opening: &Opening<'_>) -> Vec<(String, usize)> {
        let is_fixed = self.cache_for(opening.kind).is_some() || self.is_compiled(opening.kind);
        if is_fixed { self.axes(opening) } else { Vec::new() }
    }

    /// Returns the options of a component's session.
    pub fn session_options(&self, opening: &Opening<'_>) -> SessionOptions {
        let kind = opening.kind;
        let choice = |name: &String| ProviderChoice { name: name.clone(), options: self.provider_options(kind, name) };
        // On CPUs whose 8-bit products overflow, those without VNNI, ONNX Runtime makes them in another way where it
        // is asked to; on others this changes nothing.
        let overflows = |(of, graph): &(ComponentKind, &GraphFile)| *of == kind && graph.multiplies_in_integers();
        let exact =
            self.model.graphs().iter().any(overflows).then(|| ("session.x64quantprecision".to_owned(), "1".to_owned()));
        SessionOptions {
            component: kind.name().to_owned(),
            config: exact.into_iter().collect(),
            providers: self.device.providers_of(kind).iter().map(choice).collect(),
            threads: self.threads(),
            axes: self.fixed_axes(opening),
            uses_arena: self.uses_arenas,
            frees_memory: self.frees_activations(kind),
            callers: if kind == self.model.denoiser.kind { self.callers() } else { 1 },
            computes_in_half: self.computes_in_half(kind),
            ..SessionOptions::default()
        }
    }

    /// True if a component's graph computes in half precision as it is opened.
    fn computes_in_half(&self, kind: ComponentKind) -> bool {
        let is_half = |(of, graph): &(ComponentKind, &GraphFile)| *of == kind && graph.multiplies_in_half();
        self.model.graphs().iter().any(is_half) && !self.is_widened(kind)
    }

    /// Returns the way the rows of the denoiser's calls are run: as the pipeline file says, or in the way that was the
    /// fastest one when it was measured.
    fn batching(&self) -> Batching {
        match self.device.batching {
            // An operator of our own divides its work among all threads, whatever the rows: fewer take less memory.
            Batching::Auto if self.operands_of(self.model.denoiser.kind).is_some() => {
                // One graph for all calls, those with fewer rows too; a loop on the device has all rows in one run.
                let is_on_device = self.device.denoising_loop == DenoisingLoop::Device;
                let is_by_row = self.is_bounded() || (self.sizes.fewer_at_times && !is_on_device);
                if is_by_row { Batching::Sequential } else { Batching::Batched }
            }
            Batching::Auto if !self.denoises_on_cpu() => Batching::Batched,
            Batching::Auto if self.device.denoising_loop == DenoisingLoop::Device => Batching::Batched,
            // The fastest on two cores, by 15 %.
            Batching::Auto => self.measured_rows.map_or(Batching::Split, |rows| fastest(&rows, self.can_batch())),
            told => told,
        }
    }

    /// True if the run has a memory budget, also while that is planned.
    pub(super) fn is_bounded(&self) -> bool {
        self.memory_budget.is_some() || self.device.memory_budget.is_some()
    }

    /// True if each row of the denoiser's calls is a separate run of its graph.
    pub fn runs_by_row(&self) -> bool {
        self.batching() != Batching::Batched
    }

    /// True if this program chooses the way rows are run, and there are several rows.
    pub fn chooses_rows(&self) -> bool {
        let is_thrifty = self.memory_budget.is_some_and(|memory_budget| memory_budget.denoises_alone);
        let is_measured =
            self.device.batching == Batching::Auto && self.operands_of(self.model.denoiser.kind).is_none();
        let is_measured = is_measured && self.device.denoising_loop != DenoisingLoop::Device;
        is_measured && self.denoises_on_cpu() && self.rows() > 1 && !is_thrifty
    }

    /// True if one run of all rows is a choice: the graph takes as many as there are, all calls have as many, and their
    /// memory is not bounded.
    pub fn can_batch(&self) -> bool {
        let as_many = self.sizes.rows > 1 && !self.sizes.fewer_at_times;
        as_many && self.model.model.denoiser.batch.is_none() && !self.is_bounded()
    }

    /// Rows of one call of the denoiser.
    pub fn rows(&self) -> usize {
        self.sizes.rows
    }

    /// Returns the number of concurrent runs of the denoiser's graph.
    pub(super) fn callers(&self) -> usize {
        /// More rows are more runs, one after the other.
        const MOST: usize = 2;
        let is_thrifty = self.memory_budget.is_some_and(|memory_budget| memory_budget.denoises_alone);
        match self.batching() {
            // Operators of our own divide each run among all threads.
            Batching::Split if !is_thrifty && self.operands_of(self.model.denoiser.kind).is_none() => {
                self.rows().min(MOST)
            }
            _ => 1,
        }
    }

    /// True if the denoiser runs on the CPU alone.
    pub fn denoises_on_cpu(&self) -> bool {
        self.device.is_on_cpu(self.model.denoiser.kind)
    }

    /// True if the decoder runs on the CPU alone.
    pub fn decodes_on_cpu(&self) -> bool {
        self.model.decoder.as_ref().is_some_and(|part| self.device.is_on_cpu(part.kind))
    }

    /// Returns the options for opening a part's graph.
    pub fn opening<'p, C>(&self, part: &'p Part<C>) -> Opening<'p> {
        Opening {
            kind: part.kind,
            is_shallow: false,
            graph: &part.graph,
            edits: &part.edits,
            passes: self.passes(part.kind),
            weight_bytes: self.weight_bytes(part.kind, part.graph.weight_bytes),
        }
    }

    /// The bytes of weights that are stored as so many: twice as many in float32.
    fn weight_bytes(&self, kind: ComponentKind, stored: u64) -> u64 {
        let is_wide = self.is_widened(kind) && self.operands_of(kind) != Some(OperandType::Bf16);
        if is_wide { stored.saturating_mul(2) } else { stored }
    }

    /// Returns the options for opening the denoiser's shallow layers, if a cache runs them alone.
    pub fn shallow_opening(&self) -> Option<Opening<'_>> {
        let (passes, shallow) = self.shallow_passes().zip(self.model.shallow.as_ref())?;
        let whole = self.opening(&self.model.denoiser);
        let weight_bytes = self.weight_bytes(whole.kind, shallow.weight_bytes);
        Some(Opening { is_shallow: true, passes, weight_bytes, ..whole })
    }

    /// The rewriting passes of the graph of the shallow layers, if there is one.
    pub fn shallow_passes(&self) -> Option<Vec<Pass>> {
        let shallow = self.model.shallow.as_ref()?;
        Some(self.plain_passes(self.model.denoiser.kind).chain([Pass::Shallow(shallow.branch)]).collect())
    }

    /// The graphs that are opened, in the order in which an image needs them.
    pub fn openings(&self) -> Vec<Opening<'_>> {
        let mut graphs = Vec::new();
        let text = self.model.text.iter().flat_map(|text| &text.encoders);
        graphs.extend(text.map(|text| self.opening(&text.part)));
        graphs.extend(self.model.class_embedder.iter().map(|part| self.opening(part)));
        let conditions = self.model.conditions.iter().filter_map(|condition| condition.part.as_ref());
        graphs.extend(conditions.map(|part| self.opening(part)));
        graphs.extend(self.model.encoder.iter().map(|part| self.opening(part)));
        graphs.extend(self.model.controls.iter().map(|control| self.opening(&control.part)));
        graphs.push(self.opening(&self.model.denoiser));
        graphs.extend(self.shallow_opening());
        graphs.extend(self.model.decoder.iter().map(|part| self.opening(part)));
        graphs
    }
}
