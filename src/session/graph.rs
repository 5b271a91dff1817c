//! An opened graph.

mod graph_run;
mod opening;
mod single_run;
mod small_graphs;

use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use ort::value::DynValue;

use super::Cancel;
use super::convert::Buffer;
use super::device_runs::DeviceRuns;
use super::invoke::{OpenGraph, read};
use super::library::Runtime;
use super::options::SessionOptions;
use super::placement::Placement;
use super::provider::{ProviderChoice, find_provider};
use crate::error::Result;
use crate::tensor::{DType, TensorInfo, TensorView, Weight};
pub use graph_run::GraphRun;
use opening::{Opening, check_file, open};
use single_run::SingleRunGraph;
pub use small_graphs::SmallGraphs;

/// A graph opened on its execution providers, ready to run.
///
/// Running needs exclusive access (`&mut self`). A session is `Send`.
pub struct Session {
    // Dropped before the runtime below it.
    graph: OpenGraph,
    /// One buffer per input, in the graph's order.
    buffers: Vec<Buffer>,
    /// The buffers of each further concurrent run, created when first needed.
    others: Vec<Vec<Buffer>>,
    callers: usize,
    /// The graph opened for a single run with all threads, if concurrent runs share them otherwise.
    single_run: Option<SingleRunGraph>,
    placement: Placement,
    providers: Vec<ProviderChoice>,
    runtime: Runtime,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("component", &self.graph.component)
            .field("path", &self.graph.path)
            .field("inputs", &self.graph.inputs)
            .field("outputs", &self.graph.outputs)
            .field("placement", &self.placement)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Opens the graph in the file `path`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for a file that is not an ONNX graph (missing, empty, an HTML page, a Git
    /// LFS pointer, truncated); [`Error::Provider`](crate::Error::Provider) for a provider that is unknown, cannot be
    /// used here, or takes no node of the graph; [`Error::Interrupted`](crate::Error::Interrupted) if `options.cancel`
    /// was cancelled; [`Error::Graph`](crate::Error::Graph) for everything else that the runtime rejects.
    pub fn open(runtime: &Runtime, path: &Path, options: &SessionOptions) -> Result<Self> {
        Self::open_with(runtime, path, options, Vec::new())
    }

    /// Opens the graph in the file `path`, with `weights` instead of the stored ones of the same names. The other
    /// weights and the file do not change.
    ///
    /// # Errors
    /// As [`Session::open`]; [`Error::Graph`](crate::Error::Graph) also for a weight that the graph does not store, or
    /// an external one with another shape or type.
    pub fn open_with(runtime: &Runtime, path: &Path, options: &SessionOptions, weights: Vec<Weight>) -> Result<Self> {
        Self::open_from(runtime, path, None, options, weights)
    }

    /// As [`Session::open_with`], but opens the graph in `bytes` instead of the file's contents. External weights are
    /// still found next to `path`. [`SessionOptions::edits`] are already applied.
    ///
    /// A single run uses the threads of one concurrent run.
    ///
    /// # Errors
    /// As [`Session::open_with`].
    pub fn open_bytes(
        runtime: &Runtime,
        path: &Path,
        bytes: Vec<u8>,
        options: &SessionOptions,
        weights: Vec<Weight>,
    ) -> Result<Self> {
        Self::open_from(runtime, path, Some(bytes), options, weights)
    }

    fn open_from(
        runtime: &Runtime,
        path: &Path,
        bytes: Option<Vec<u8>>,
        options: &SessionOptions,
        weights: Vec<Weight>,
    ) -> Result<Self> {
        check_file(path)?;
        let on_processor = options.providers.iter().all(|choice| choice.name == "cpu");
        let callers = if on_processor { options.callers.max(1) } else { 1 };
        let stored = weights.is_empty() && bytes.is_none();
        let opening = Opening { bytes, ..Opening::shared(options, callers) };
        let (graph, placement) = open(runtime, path, options, weights, opening)?;
        Ok(Self {
            single_run: (callers > 1 && stored).then(|| SingleRunGraph::Closed(path.to_path_buf(), options.clone())),
            callers,
            ..Self::of_graph(graph, placement, options.providers.clone(), runtime)
        })
    }

    /// Returns true if the tensors of the first provider are not in the host's memory.
    pub fn has_device_memory(&self) -> bool {
        self.providers
            .first()
            .is_some_and(|choice| find_provider(&choice.name).is_ok_and(|known| known.has_own_memory()))
    }

    /// Has runs from now on leave the memory of their intermediate results to those after them although the session frees it
    /// ([`SessionOptions::frees_memory`]): for all runs of a loop but the last.
    pub fn keep_memory(&mut self, keeps: bool) {
        self.graph.arenas.keep(keeps);
        if let Some(SingleRunGraph::Open(graph)) = &self.single_run {
            graph.arenas.keep(keeps);
        }
    }

    /// Prepares runs whose tensors stay on the device of the first provider.
    ///
    /// # Errors
    /// [`Error::Graph`](crate::Error::Graph) if the runtime rejects it.
    pub fn device_runs(&mut self) -> Result<DeviceRuns<'_>> {
        DeviceRuns::new(&mut self.graph, self.providers.first())
    }

    /// A session of a graph that is opened once.
    fn of_graph(graph: OpenGraph, placement: Placement, providers: Vec<ProviderChoice>, runtime: &Runtime) -> Self {
        Self {
            buffers: graph.buffers(),
            others: Vec::new(),
            graph,
            single_run: None,
            callers: 1,
            placement,
            providers,
            runtime: runtime.clone(),
        }
    }

    /// Opens the graph in the file `path` with `options`, and writes it as ONNX Runtime optimized it to the file `to`,
    /// with its weights in an external file next to it. If `bytes` are given, they are used instead of the file's
    /// contents; external weights are still found next to `path`.
    ///
    /// The result is specific to this machine and this version of ONNX Runtime. Open it with
    /// [`Optimization::None`](super::Optimization::None), and without the edits, which are already applied.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn save_optimized(
        runtime: &Runtime,
        path: &Path,
        bytes: Option<Vec<u8>>,
        options: &SessionOptions,
        to: &Path,
    ) -> Result<()> {
        check_file(path)?;
        let weights = to.with_extension("weights");
        let name = weights.file_name().unwrap_or_default().to_string_lossy();
        let mut options = options.clone();
        for (key, value) in [(SAVED_WEIGHTS, &*name), (SAVED_WEIGHT_BYTES, "1024")] {
            options.config.push((key.to_owned(), value.to_owned()));
        }
        let opening = Opening { threads: options.threads, bytes, save_to: Some(to) };
        open(runtime, path, &options, Vec::new(), opening).map(|_| ())
    }

    /// Returns the graph's inputs, in its own order.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.graph.inputs
    }

    /// Returns the graph's outputs, in its own order.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.graph.outputs
    }

    /// Returns the type of an input or output, which a rewritten graph may have otherwise than its file.
    pub fn dtype(&self, info: &TensorInfo) -> DType {
        let mut ports = self.inputs().iter().chain(self.outputs());
        ports.find(|own| own.name == info.name).map_or(info.dtype, |own| own.dtype)
    }

    /// Returns the component's name, [`SessionOptions::component`].
    pub fn component(&self) -> &str {
        &self.graph.component
    }

    /// Returns [`SessionOptions::computes_in_half`].
    pub(super) fn computes_in_half(&self) -> bool {
        self.graph.computes_in_half
    }

    /// Returns the path of the graph's file.
    pub fn path(&self) -> &Path {
        &self.graph.path
    }

    /// Returns the number of nodes that each execution provider took.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Runs the graph and returns the outputs named in `outputs`, in that order, as `f32`.
    ///
    /// `inputs` names each of the graph's inputs once, in any order. Values are converted to the graph's element type:
    /// floats to any float type, integers to any integer type they fit, `bool` to 0 and 1.
    ///
    /// # Errors
    /// [`Error::Graph`](crate::Error::Graph) for a name that the graph does not have, a missing input, a shape that the
    /// graph does not accept, a value that its type cannot hold, and all errors of the runtime;
    /// [`Error::Interrupted`](crate::Error::Interrupted) if `cancel` was cancelled before or during the run.
    pub fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        outputs: &[&str],
        cancel: &Cancel,
    ) -> Result<Vec<ArrayD<f32>>> {
        self.graph.run(&mut self.buffers, inputs, outputs, cancel, |values| {
            let read = |(&name, value): (&&str, &DynValue)| {
                let mut array = ArrayD::zeros(IxDyn(&[]));
                read(value, &mut array).map_err(|problem| format!("output {name}: {problem}"))?;
                Ok(array)
            };
            outputs.iter().zip(values).map(read).collect()
        })
    }

    /// Runs the graph and writes the output named `output` to `out` as `f32`, row-major.
    ///
    /// For loops: apart from the runtime's own allocations, nothing of a tensor's size is allocated after the first
    /// call. Inputs that are row-major and have the graph's element type are read without a copy.
    ///
    /// # Errors
    /// As [`Session::run`]; [`Error::Graph`](crate::Error::Graph) also if the output's number of values differs from
    /// that of `out`.
    pub fn run_into(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        output: &str,
        out: &mut [f32],
        cancel: &Cancel,
    ) -> Result<()> {
        self.graph.run_into(&mut self.buffers, inputs, (output, out, None), None, cancel)
    }
}

/// ONNX Runtime's options for the file of a saved graph's weights, and for the size from which on weights go there.
///
/// It can also save them packed for its kernels (`session.save_external_prepacked_constant_initializers`), but does so
/// without alignment, which crashes kernels that load whole vectors at a time.
const SAVED_WEIGHTS: &str = "session.optimized_model_external_initializers_file_name";
const SAVED_WEIGHT_BYTES: &str = "session.optimized_model_external_initializers_min_size_in_bytes";
