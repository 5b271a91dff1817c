//! How the graphs of a plan are opened and run.

use super::execution_plan::ExecutionPlan;
use super::part::Part;
use crate::bundle::{ComponentKind, GraphFile};
use crate::graph_cache::{GraphCache, Rows};
use crate::memory;
use crate::rewrite::Pass;
use crate::session::{ProviderChoice, SessionOptions, WeightFile};
use crate::spec::Batching;
use crate::tensor::ByteEdit;

/// A graph that is opened.
#[derive(Debug, Clone)]
pub struct Opening<'p> {
    /// Which component it is.
    pub kind: ComponentKind,
    /// Whether it is the denoiser's shallow layers alone.
    pub is_shallow: bool,
    /// The file.
    pub graph: &'p GraphFile,
    /// What is read otherwise.
    pub edits: &'p [ByteEdit],
    /// What it is rewritten with.
    pub passes: Vec<Pass>,
    /// Bytes of the weights that it reads.
    pub weight_bytes: u64,
}

impl Opening<'_> {
    /// What people call it.
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

/// What people call a component's graph, or that of its shallow layers alone.
pub(crate) fn name(kind: ComponentKind, is_shallow: bool) -> String {
    if is_shallow { format!("{kind} (shallow layers)") } else { kind.to_string() }
}

impl ExecutionPlan {
    /// What a component's graph is rewritten with before it is opened. All but a cut ([`Pass::cuts`]) is only done to graphs
    /// that are kept.
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
        let is_plain = self.memory_budget.is_some_and(|memory_budget| memory_budget.decodes_plainly);
        let rounds_once = self.model.encoder.as_ref().is_some_and(|part| part.kind == kind)
            || self.model.decoder.as_ref().is_some_and(|part| part.kind == kind && !is_plain);
        let winograd = (rounds_once || self.device.fast_convolutions).then_some(Pass::Winograd);
        let loose = self.memory_budget.map(|_| Pass::DynamicShapes);
        [Pass::Attention, Pass::FeedForward, Pass::Subpixel].into_iter().chain(winograd).chain(loose)
    }

    /// Where the graph of this component is kept once it was optimized for this machine, if it is.
    ///
    /// Graphs that are opened on other weights than they store are not, and those that run on another provider than the
    /// processor go through that provider's own hands.
    pub fn cache_for(&self, kind: ComponentKind) -> Option<&GraphCache> {
        self.graph_cache.as_ref().filter(|_| self.can_be_cached(kind))
    }

    /// Whether the graph of this component can be kept optimized.
    pub(super) fn can_be_cached(&self, kind: ComponentKind) -> bool {
        let on_processor = self.device.providers_of(kind).iter().all(|name| name == "cpu");
        let of_text = kind.text_encoder_number().is_some();
        let learns = self
            .model
            .text
            .iter()
            .flat_map(|text| &text.encoders)
            .any(|t| t.part.kind == kind && t.added_tokens.is_some());
        let is_changed = learns || (!self.model.loras.is_empty() && (of_text || kind == self.model.denoiser.kind));
        on_processor && self.device.optimize && !is_changed
    }

    /// True if parts stay open for the next image once they have done their work: as the pipeline file says, or if the
    /// machine has room for the `unopened` bytes of weights that are still to be opened.
    pub fn keeps_open(&self, unopened: u64) -> bool {
        /// What activations take beside the weights of a large model.
        const BESIDE: u64 = 2 << 30;
        let fits = || memory::available().is_none_or(|free| unopened + BESIDE.min(unopened) < free);
        self.device.offload.map_or_else(|| self.memory_budget.is_none() && fits(), |offload| !offload)
    }

    /// How a component's session is opened.
    pub fn session_options(&self, kind: ComponentKind) -> SessionOptions {
        let choice = |name: &String| ProviderChoice {
            name: name.clone(),
            options: self.device.options.get(name).cloned().unwrap_or_default(),
        };
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
            axes: if self.cache_for(kind).is_some() { self.axes(kind) } else { Vec::new() },
            callers: if kind == self.model.denoiser.kind { self.callers() } else { 1 },
            ..SessionOptions::default()
        }
    }

    /// How the rows of the denoiser's calls are run: as the pipeline file says, or in the way that was the fastest one when it
    /// was measured.
    fn batching(&self) -> Batching {
        match self.device.batching {
            Batching::Auto if !self.denoises_on_cpu() => Batching::Batched,
            // The fastest on two cores, by 15 %.
            Batching::Auto => self.measured_rows.map_or(Batching::Split, |rows| fastest(&rows, self.can_batch())),
            told => told,
        }
    }

    /// Whether each row of the denoiser's calls is a run of its graph by itself.
    pub fn runs_by_row(&self) -> bool {
        self.batching() != Batching::Batched
    }

    /// Whether the way in which rows are run is this program's choice, and there are several to run.
    pub fn chooses_rows(&self) -> bool {
        let is_thrifty = self.memory_budget.is_some_and(|memory_budget| memory_budget.denoises_alone);
        self.device.batching == Batching::Auto && self.denoises_on_cpu() && self.rows() > 1 && !is_thrifty
    }

    /// Whether one run of all rows is a choice: the graph takes as many as there are, all calls have as many, and their memory
    /// is not bounded.
    pub fn can_batch(&self) -> bool {
        let as_many = self.sizes.rows > 1 && !self.sizes.fewer_at_times;
        as_many && self.model.model.denoiser.batch.is_none() && self.memory_budget.is_none()
    }

    /// Rows of one call of the denoiser.
    pub fn rows(&self) -> usize {
        self.sizes.rows
    }

    /// How many runs of the denoiser's graph are made at the same time.
    pub(super) fn callers(&self) -> usize {
        /// More rows are more runs, one after the other.
        const MOST: usize = 2;
        let is_thrifty = self.memory_budget.is_some_and(|memory_budget| memory_budget.denoises_alone);
        match self.batching() {
            Batching::Split if !is_thrifty => self.rows().min(MOST),
            _ => 1,
        }
    }

    /// Whether the denoiser runs on the CPU alone.
    pub fn denoises_on_cpu(&self) -> bool {
        self.device.providers_of(self.model.denoiser.kind).iter().all(|name| name == "cpu")
    }

    /// How a part's graph is opened.
    pub fn opening<'p, C>(&self, part: &'p Part<C>) -> Opening<'p> {
        Opening {
            kind: part.kind,
            is_shallow: false,
            graph: &part.graph,
            edits: &part.edits,
            passes: self.passes(part.kind),
            weight_bytes: part.graph.weight_bytes,
        }
    }

    /// How the denoiser's shallow layers are opened, where a cache runs them alone.
    pub fn shallow_opening(&self) -> Option<Opening<'_>> {
        let (passes, shallow) = self.shallow_passes().zip(self.model.shallow.as_ref())?;
        let whole = self.opening(&self.model.denoiser);
        Some(Opening { is_shallow: true, passes, weight_bytes: shallow.weight_bytes, ..whole })
    }

    /// What the graph of the shallow layers is rewritten with, where there is one.
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
