//! Opening a graph.

use std::io::Read;
use std::path::Path;

use ort::AsPointer;
use ort::ErrorCode;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::Outlet;

use crate::error::{Error, Result};
use crate::files;
use crate::session::arenas::Arenas;
use crate::session::assignment::{RECORD, read_assignment};
use crate::session::graph_error::graph_error;
use crate::session::invoke::OpenGraph;
use crate::session::library::{Runtime, error_message, forget_error};
use crate::session::options::{Optimization, SessionOptions, cpu_threads, limited_threads, threads};
use crate::session::placement::{Placement, PlacementRecorder};
use crate::session::{operators, provider, weights};
use crate::tensor::{DType, Dim, TensorInfo, Weight};

/// The parameters of one opening.
pub(super) struct Opening<'a> {
    /// Threads of one run, including the calling thread.
    pub threads: Option<usize>,
    /// The graph's bytes, read instead of the file.
    pub bytes: Option<Vec<u8>>,
    /// The path to which the optimized graph is written.
    pub save_to: Option<&'a Path>,
}

impl Opening<'_> {
    /// Parameters for `callers` concurrent runs.
    pub(super) fn shared(options: &SessionOptions, callers: usize) -> Self {
        Self { threads: threads(options.threads, callers), bytes: None, save_to: None }
    }
}

/// Opens a graph.
pub(super) fn open(
    runtime: &Runtime,
    path: &Path,
    options: &SessionOptions,
    weights: Vec<Weight>,
    opening: Opening<'_>,
) -> Result<(OpenGraph, Placement)> {
    options.cancel.check()?;
    forget_error();
    let failed = |e: ort::Error| opening_failed(&options.component, path, &e);
    let recorder = PlacementRecorder::for_providers(&options.providers, runtime);
    let builder = builder(runtime, options, &opening, &recorder).map_err(failed)?;
    let mut builder = provider::select(builder, runtime, &options.providers)?;
    let mapped = weights::hand_over(&mut builder, &options.weight_files, failed)?;
    let (mut builder, source) = weights::replace(builder, path, opening.bytes, weights, &options.edits, failed)?;

    forget_error();
    let opened = options.cancel.during_open(builder.canceler(), || source.commit(&mut builder));
    let inner = match opened {
        Ok(inner) => inner,
        Err(_) if options.cancel.is_cancelled() => return Err(Error::Interrupted { at_step: None }),
        Err(e) => return Err(failed(e)),
    };
    forget_error();
    let placement = match runtime.assignment_api() {
        Some(api) => read_assignment(api, &inner).map_err(failed)?,
        None => recorder.placement(),
    };
    placement.check(&options.providers, &options.component, path)?;
    let graph = OpenGraph {
        arenas: Arenas::new(options),
        inputs: inner.inputs().iter().map(tensor_info).collect(),
        outputs: inner.outputs().iter().map(tensor_info).collect(),
        inner,
        _mapped: mapped,
        _held: options.held.clone(),
        component: options.component.clone(),
        computes_in_half: options.computes_in_half,
        path: options.display_path.clone().unwrap_or_else(|| path.to_path_buf()),
    };
    Ok((graph, placement))
}

fn builder(
    runtime: &Runtime,
    options: &SessionOptions,
    opening: &Opening<'_>,
    recorder: &PlacementRecorder,
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
    if runtime.assignment_api().is_some() {
        builder = builder.with_config_entry(RECORD, "1")?;
    }
    if !options.uses_arena {
        disable_arena(&mut builder)?;
    }
    if runtime.has_host_threads() {
        use_global_threads(&mut builder)?;
    } else if let Some(threads) = opening.threads.or_else(limited_threads) {
        builder = builder.with_intra_threads(threads)?;
    }
    if options.has_own_operators {
        let threads = opening.threads.or_else(limited_threads).unwrap_or_else(cpu_threads);
        builder = builder.with_operators(operators::domain(threads)?)?;
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

/// Has the CPU's memory allocated piece by piece.
fn disable_arena(builder: &mut SessionBuilder) -> ort::Result<()> {
    // SAFETY: the options exist as long as their builder.
    let status = unsafe { (ort::api().DisableCpuMemArena)(builder.ptr_mut()) };
    // SAFETY: the status belongs to whoever called the function.
    unsafe { ort::Error::result_from_status(status) }
}

/// Runs a graph on the environment's global thread pool.
fn use_global_threads(builder: &mut SessionBuilder) -> ort::Result<()> {
    // SAFETY: the options exist as long as their builder.
    let status = unsafe { (ort::api().DisablePerSessionThreads)(builder.ptr_mut()) };
    // SAFETY: the status belongs to whoever called the function.
    unsafe { ort::Error::result_from_status(status) }
}

fn opening_failed(component: &str, path: &Path, error: &ort::Error) -> Error {
    match error.code() {
        ErrorCode::InvalidProtobuf | ErrorCode::NoModel => Error::model(
            path,
            format!("is not a whole ONNX graph: {}", error_message(error)),
            "the file is damaged or its download is incomplete; fetch or export it again",
        ),
        _ if error.message().contains("CreateEnvWithGlobalThreadPools") => Error::runtime(
            "host_threads: the environment of this process has no global thread pool",
            "create the host's environment with CreateEnvWithGlobalThreadPools before the first pipeline is opened, or leave \
             host_threads out",
        ),
        _ => graph_error(component, path, "opening", error_message(error)),
    }
}

/// Checks the first bytes for common mistakes. ONNX Runtime's message ("Protobuf parsing failed") would not explain
/// them.
pub(super) fn check_file(path: &Path) -> Result<()> {
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
