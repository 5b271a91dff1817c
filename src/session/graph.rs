//! An opened graph.

mod alone;
mod each;

use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ndarray::{ArrayD, IxDyn};
use ort::ErrorCode;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Outlet};

use super::convert::Buffer;
use super::invoke::{Graph, read};
use super::library::{Runtime, plain};
use super::options::{Optimization, SessionOptions, limited_threads, threads};
use super::placement::{Placement, Recorder};
use super::{Cancel, provider, weights};
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::{DType, Dim, TensorInfo, TensorView, Weight};
use alone::Alone;
pub use each::Run;

/// A graph opened on its execution providers, ready to run.
///
/// Who runs it has it for himself, hence `&mut self`; it may move between threads.
pub struct Session {
    // Released before the runtime below it.
    graph: Graph,
    /// One an input, in the order of the graph's.
    buffers: Vec<Buffer>,
    /// As many for each further caller, from the first time on that there is one.
    others: Vec<Vec<Buffer>>,
    callers: usize,
    /// What a run takes that no other is made beside, where the threads are shared among several.
    alone: Option<Alone>,
    placement: Placement,
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
    /// [`Error::Model`] for a file that is not an ONNX graph (missing, empty, an HTML page, a Git LFS pointer,
    /// truncated); [`Error::Provider`] for a provider that is unknown, cannot be used here, or takes no node of the
    /// graph; [`Error::Interrupted`] when `options.cancel` was thrown; [`Error::Graph`] for all else that the runtime
    /// refuses.
    pub fn open(runtime: &Runtime, path: &Path, options: &SessionOptions) -> Result<Self> {
        Self::open_with(runtime, path, options, Vec::new())
    }

    /// Opens the graph in the file `path` on `weights` in the place of those of their names that it stores; the others
    /// stay as they are, and so does the file.
    ///
    /// # Errors
    /// As [`Session::open`]; [`Error::Graph`] too for a weight that the graph does not store, or not in that shape and
    /// type, beside it.
    pub fn open_with(runtime: &Runtime, path: &Path, options: &SessionOptions, weights: Vec<Weight>) -> Result<Self> {
        Self::open_from(runtime, path, None, options, weights)
    }

    /// As [`Session::open_with`], of the graph that `bytes` hold: they stand in the place of what the file holds, and weights
    /// beside the file are found all the same. [`SessionOptions::edits`] are in them already.
    ///
    /// A lone run has the threads of one of several.
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
            buffers: graph.buffers(),
            others: Vec::new(),
            graph,
            alone: (callers > 1 && stored).then(|| Alone::Closed(path.to_path_buf(), options.clone())),
            callers,
            placement,
            runtime: runtime.clone(),
        })
    }

    /// Writes the graph in the file `path`, as ONNX Runtime has it once it is opened with `options`, to the file `to`,
    /// with its weights in a file beside it. `bytes`, where there are some, stand in the place of what the file holds;
    /// weights beside the file are found all the same.
    ///
    /// What is written belongs to this machine and this version of ONNX Runtime. It is to be opened with
    /// [`Optimization::None`], and without the edits that are in it already.
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

    /// The graph's inputs, in its own order.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.graph.inputs
    }

    /// The graph's outputs, in its own order.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.graph.outputs
    }

    /// The component's name, as [`SessionOptions::component`] gave it.
    pub fn component(&self) -> &str {
        &self.graph.component
    }

    /// The graph's file.
    pub fn path(&self) -> &Path {
        &self.graph.path
    }

    /// How many nodes each execution provider took. Known only where a provider besides the CPU was asked for.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Runs the graph and returns the outputs named in `outputs`, in that order, as `f32`.
    ///
    /// `inputs` names each of the graph's inputs once, in any order. Values are converted to the graph's element type:
    /// floats to any float type, whole numbers to any integer type they fit, `bool` to numbers 0 and 1.
    ///
    /// # Errors
    /// [`Error::Graph`] for a name the graph does not have or an input that was not given, a shape the graph does not
    /// take, a value its type cannot hold, and whatever the runtime reports; [`Error::Interrupted`] when `cancel` was
    /// thrown before or during the run.
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
    /// For loops: beyond what the runtime itself allocates, nothing of a tensor's size is allocated after the first
    /// call. Inputs that are row-major and of the graph's own element type are read where they lie.
    ///
    /// # Errors
    /// As [`Session::run`]; [`Error::Graph`] too when the output has another number of values than `out`.
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

/// ONNX Runtime's names for where the weights of a graph that it saves go, and from which size on.
///
/// It offers to save them packed for its kernels too (`session.save_external_prepacked_constant_initializers`), and does
/// so at whatever place in the file comes next, where kernels that load whole vectors at a time end the process.
const SAVED_WEIGHTS: &str = "session.optimized_model_external_initializers_file_name";
const SAVED_WEIGHT_BYTES: &str = "session.optimized_model_external_initializers_min_size_in_bytes";

/// What an opening is for.
struct Opening<'a> {
    /// Threads of one run, the caller's among them.
    threads: Option<usize>,
    /// What is read in the place of the file.
    bytes: Option<Vec<u8>>,
    /// Where the optimized graph is written.
    save_to: Option<&'a Path>,
}

impl Opening<'_> {
    /// For as many runs at a time as there are `callers`.
    fn shared(options: &SessionOptions, callers: usize) -> Self {
        Self { threads: threads(options.threads, callers), bytes: None, save_to: None }
    }
}

/// Opens a graph.
fn open(
    runtime: &Runtime,
    path: &Path,
    options: &SessionOptions,
    weights: Vec<Weight>,
    opening: Opening<'_>,
) -> Result<(Graph, Placement)> {
    if options.cancel.is_cancelled() {
        return Err(Error::Interrupted { at_step: None });
    }
    let failed = |e: ort::Error| opening_failed(&options.component, path, &e);
    let recorder = Recorder::for_providers(&options.providers);
    let mut builder = builder(runtime, options, &opening, &recorder).map_err(failed)?;
    provider::register(&mut builder, runtime, &options.providers)?;
    let mapped = weights::hand_over(&mut builder, &options.weight_files, failed)?;
    let (mut builder, source) = weights::replace(builder, path, opening.bytes, weights, &options.edits, failed)?;

    let opened = options.cancel.during_open(builder.canceler(), || source.commit(&mut builder));
    let inner = match opened {
        Ok(inner) => inner,
        Err(_) if options.cancel.is_cancelled() => return Err(Error::Interrupted { at_step: None }),
        Err(e) => return Err(failed(e)),
    };
    let placement = recorder.placement();
    placement.check(&options.providers, &options.component, path)?;
    let graph = Graph {
        inputs: inner.inputs().iter().map(tensor_info).collect(),
        outputs: inner.outputs().iter().map(tensor_info).collect(),
        inner,
        _mapped: mapped,
        _held: options.held.clone(),
        component: options.component.clone(),
        path: options.of.clone().unwrap_or_else(|| path.to_path_buf()),
    };
    Ok((graph, placement))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn builder(
    runtime: &Runtime,
    options: &SessionOptions,
    opening: &Opening<'_>,
    recorder: &Recorder,
) -> ort::Result<SessionBuilder> {
    let level = match options.optimization {
        Optimization::None => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::Extended => GraphOptimizationLevel::Level2,
        Optimization::All => GraphOptimizationLevel::All,
    };
    let mut builder = ort::session::Session::builder(runtime.environment())?
        .with_log_id(&options.component)?
        .with_optimization_level(level)?
        .with_memory_pattern(options.memory_pattern)?;
    builder = recorder.attach(builder)?;
    if let Some(threads) = opening.threads.or_else(limited_threads) {
        builder = builder.with_intra_threads(threads)?;
    }
    for (name, length) in &options.axes {
        builder = builder.with_dimension_override(name, *length as i64)?;
    }
    if let Some(path) = opening.save_to {
        builder = builder.with_optimized_model_path(path)?;
    }
    for (key, value) in &options.config {
        builder = builder.with_config_entry(key, value)?;
    }
    Ok(builder)
}

fn opening_failed(component: &str, path: &Path, error: &ort::Error) -> Error {
    match error.code() {
        ErrorCode::InvalidProtobuf | ErrorCode::NoModel => Error::model(
            path,
            format!("is not a whole ONNX graph: {}", plain(error)),
            "the file is damaged or was not downloaded to its end; fetch or export it again",
        ),
        _ => Error::Graph {
            component: component.to_string(),
            path: path.to_path_buf(),
            action: "opening",
            problem: plain(error),
        },
    }
}

/// Looks at the first bytes for the things that are found in place of a graph again and again. What ONNX Runtime says
/// of them ("Protobuf parsing failed") tells nobody what happened.
fn check_file(path: &Path) -> Result<()> {
    let mut head = Vec::with_capacity(64);
    let file = files::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::model(path, "does not exist", "give the path of a .onnx file"),
        _ => Error::io(path, "opening", e),
    })?;
    file.take(64).read_to_end(&mut head).map_err(|e| Error::io(path, "reading", e))?;
    let text = head.trim_ascii_start();
    let starts = |what: &[u8]| text.get(..what.len()).is_some_and(|start| start.eq_ignore_ascii_case(what));
    if head.is_empty() {
        Err(Error::model(path, "is empty", "fetch or export it again"))
    } else if starts(b"<!doctype") || starts(b"<html") || starts(b"<?xml") {
        Err(Error::model(
            path,
            "is a web page, not an ONNX graph",
            "the download link led to a page about the file; download the file itself",
        ))
    } else if starts(b"version https://git-lfs") {
        Err(Error::model(
            path,
            "is a Git LFS pointer, not an ONNX graph",
            "run `git lfs pull` in the repository it came from",
        ))
    } else {
        Ok(())
    }
}

fn tensor_info(outlet: &Outlet) -> TensorInfo {
    let dtype = outlet.dtype();
    let shape = match (dtype.tensor_shape(), dtype) {
        (Some(shape), ort::value::ValueType::Tensor { dimension_symbols, .. }) => shape
            .iter()
            .enumerate()
            .map(|(i, &n)| match usize::try_from(n) {
                Ok(n) => Dim::Fixed(n),
                Err(_) => Dim::Free(dimension_symbols.get(i).cloned().unwrap_or_default()),
            })
            .collect(),
        _ => Vec::new(),
    };
    let code = dtype.tensor_type().map_or(0, |ty| ort::sys::ONNXTensorElementDataType::from(ty) as i32);
    TensorInfo { name: outlet.name().to_string(), dtype: DType::from_onnx(code), shape }
}
