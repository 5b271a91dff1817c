//! An opened graph.

use std::io::Read;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use ort::ErrorCode;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, SessionOutputs};
use ort::value::Outlet;

use super::cancel::SharedRunOptions;
use super::convert::{self, Buffer};
use super::library::{Runtime, plain};
use super::options::{Optimization, SessionOptions, limited_threads};
use super::placement::{Placement, Recorder};
use super::{Cancel, provider, weights};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, TensorInfo, TensorView, Weight};

/// A graph opened on its execution providers, ready to run.
///
/// A session runs one thing at a time, hence `&mut self`; it may move between threads.
pub struct Session {
    // Released before the runtime below it.
    inner: ort::session::Session,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    /// One an input, in the order of `inputs`.
    buffers: Vec<Buffer>,
    component: String,
    path: PathBuf,
    placement: Placement,
    _runtime: Runtime,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("component", &self.component)
            .field("path", &self.path)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
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
        check_file(path)?;
        if options.cancel.is_cancelled() {
            return Err(Error::Interrupted { at_step: None });
        }
        let failed = |e: ort::Error| opening_failed(&options.component, path, &e);
        let recorder = Recorder::for_providers(&options.providers);
        let mut builder = builder(runtime, options, &recorder).map_err(failed)?;
        provider::register(&mut builder, runtime, &options.providers)?;
        let (mut builder, source) = weights::replace(builder, path, weights, &options.edits, failed)?;

        let opened = options.cancel.during_open(builder.canceler(), || source.commit(&mut builder));
        let inner = match opened {
            Ok(inner) => inner,
            Err(_) if options.cancel.is_cancelled() => return Err(Error::Interrupted { at_step: None }),
            Err(e) => return Err(failed(e)),
        };
        let placement = recorder.placement();
        placement.check(&options.providers, &options.component, path)?;

        let inputs: Vec<_> = inner.inputs().iter().map(tensor_info).collect();
        let outputs = inner.outputs().iter().map(tensor_info).collect();
        Ok(Self {
            buffers: inputs.iter().map(|_| Buffer::default()).collect(),
            inner,
            inputs,
            outputs,
            component: options.component.clone(),
            path: path.to_path_buf(),
            placement,
            _runtime: runtime.clone(),
        })
    }

    /// The graph's inputs, in its own order.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// The graph's outputs, in its own order.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// The component's name, as [`SessionOptions::component`] gave it.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The graph's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many nodes each execution provider took. Known only where a provider besides the processor was asked for.
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
        self.run_raw(inputs, outputs, cancel, |values| {
            outputs
                .iter()
                .map(|&name| {
                    let value = values.get(name).ok_or_else(|| format!("output {name} is missing"))?;
                    let about = |problem| format!("output {name}: {problem}");
                    let shape = convert::output_shape(value).map_err(about)?;
                    let mut array = ArrayD::zeros(IxDyn(&shape));
                    if let Some(slice) = array.as_slice_mut() {
                        convert::output(value, slice).map_err(about)?;
                    }
                    Ok(array)
                })
                .collect()
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
        self.run_raw(inputs, &[output], cancel, |values| {
            let value = values.get(output).ok_or_else(|| format!("output {output} is missing"))?;
            let about = |problem| format!("output {output}: {problem}");
            let shape = convert::output_shape(value).map_err(about)?;
            if shape.iter().product::<usize>() != out.len() {
                return Err(format!(
                    "output {output}: expected {} values, found {shape:?} with {}",
                    out.len(),
                    shape.iter().product::<usize>(),
                ));
            }
            convert::output(value, out).map_err(about)
        })
    }

    fn run_raw<T>(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        outputs: &[&str],
        cancel: &Cancel,
        read: impl FnOnce(&SessionOutputs<'_>) -> Result<T, String>,
    ) -> Result<T> {
        if cancel.is_cancelled() {
            return Err(Error::Interrupted { at_step: None });
        }
        let Self { inner, inputs: infos, outputs: output_infos, buffers, component, path, .. } = self;
        let failed = |problem: String| Error::Graph {
            component: component.clone(),
            path: path.clone(),
            action: "running",
            problem,
        };
        check_names(inputs, infos, outputs, output_infos).map_err(failed)?;

        let mut values = Vec::with_capacity(infos.len());
        for (info, buffer) in infos.iter().zip(buffers.iter_mut()) {
            let Some((_, view)) = inputs.iter().find(|(name, _)| *name == info.name) else { continue };
            check_shape(info, view).map_err(failed)?;
            let value =
                convert::input(view, info.dtype, buffer).map_err(|p| failed(format!("input {}: {p}", info.name)))?;
            values.push((info.name.as_str(), value));
        }

        let selector = outputs.iter().fold(OutputSelector::no_default(), |s, name| s.with(*name));
        let options = run_options().map_err(|e| failed(plain(&e)))?.with_outputs(selector);
        let options = SharedRunOptions::new(options);
        let ran = cancel.during_run(&options, || inner.run_with_options(values, options.get()));
        match ran {
            Ok(outputs) => read(&outputs).map_err(failed),
            Err(_) if cancel.is_cancelled() => Err(Error::Interrupted { at_step: None }),
            Err(e) => Err(failed(plain(&e))),
        }
    }
}

fn builder(runtime: &Runtime, options: &SessionOptions, recorder: &Recorder) -> ort::Result<SessionBuilder> {
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
    if let Some(threads) = options.threads.or_else(limited_threads) {
        builder = builder.with_intra_threads(threads)?;
    }
    for (key, value) in &options.config {
        builder = builder.with_config_entry(key, value)?;
    }
    Ok(builder)
}

/// Options of one run. A session that was opened at ONNX Runtime's most talkative level would go on at it otherwise.
fn run_options() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set_log_level(LogLevel::Warning)?;
    Ok(options)
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
    let file = std::fs::File::open(path).map_err(|e| match e.kind() {
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

fn check_names(
    inputs: &[(&str, TensorView<'_>)],
    infos: &[TensorInfo],
    outputs: &[&str],
    output_infos: &[TensorInfo],
) -> Result<(), String> {
    let list = |infos: &[TensorInfo]| infos.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
    for (i, (name, _)) in inputs.iter().enumerate() {
        if !infos.iter().any(|info| info.name == *name) {
            return Err(format!("the graph has no input {name}; its inputs are {}", list(infos)));
        }
        if inputs.iter().take(i).any(|(other, _)| other == name) {
            return Err(format!("input {name} was given twice"));
        }
    }
    let missing: Vec<_> = infos.iter().filter(|info| !inputs.iter().any(|(name, _)| info.name == *name)).collect();
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        return Err(format!("no value was given for input {}", missing.join(" and input ")));
    }
    for name in outputs {
        if !output_infos.iter().any(|info| info.name == *name) {
            return Err(format!("the graph has no output {name}; its outputs are {}", list(output_infos)));
        }
    }
    Ok(())
}

fn check_shape(info: &TensorInfo, view: &TensorView<'_>) -> Result<(), String> {
    let shape = view.shape();
    let fits = shape.len() == info.shape.len()
        && shape.iter().zip(&info.shape).all(|(n, dim)| dim.fixed().is_none_or(|fixed| fixed == *n));
    if fits { Ok(()) } else { Err(format!("input {info} was given {} {shape:?}", convert::kind(view))) }
}
