//! Engines and pipelines.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};

use ldm_ort::engine::pipeline_spec;
use ldm_ort::{EngineBuilder, Event, Overrides, Spec};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::cancel::Cancel;
use crate::errors::to_python;
use crate::image::Image;
use crate::inputs::{Input, request_of};
use crate::watch::Watch;

/// The process that opened the first pipeline. A fork of it has ONNX Runtime's memory without its threads.
static OPENED_IN: OnceLock<u32> = OnceLock::new();

/// Opens pipelines.
#[pyclass(frozen, module = "ldm_ort._native")]
pub(crate) struct Engine(pub(crate) ldm_ort::Engine);

/// An open pipeline; `None` once it is closed.
#[pyclass(frozen, module = "ldm_ort._native")]
pub(crate) struct Pipeline {
    pipeline: Arc<Mutex<Option<ldm_ort::Pipeline>>>,
    runtime_version: String,
    process: u32,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(settings: &str, package_dir: Option<PathBuf>) -> PyResult<Self> {
        let builder = EngineBuilder::from_json(settings).map(|builder| match package_dir {
            Some(dir) => builder.package_dir(dir),
            None => builder,
        });
        builder.and_then(EngineBuilder::build).map(Self).map_err(|error| to_python(&error))
    }
}

/// Refuses to go on in a fork of the process that opened pipelines.
pub(crate) fn same_process(opened_in: u32) -> PyResult<()> {
    let own = std::process::id();
    if own == opened_in {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(format!(
        "process {own} was forked from {opened_in} after that had opened a pipeline, whose threads it lacks\n  \
         hint: fork first and open pipelines in each process, or use multiprocessing.get_context(\"spawn\")"
    )))
}

/// Marks this process as one that opens pipelines, unless it is a fork of one.
pub(crate) fn opens_here() -> PyResult<()> {
    same_process(*OPENED_IN.get_or_init(std::process::id))
}

/// The open pipeline or batch, `name` being the word for it, unless it runs another call.
pub(crate) fn idle<'a, T>(mutex: &'a Mutex<T>, name: &str) -> PyResult<MutexGuard<'a, T>> {
    mutex.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => PyValueError::new_err(format!(
            "the {name} runs another request\n  hint: wait for that call, or open a {name} for each thread"
        )),
        TryLockError::Poisoned(_) => PyRuntimeError::new_err(format!(
            "a bug ended an earlier call of this {name}\n  hint: close it and open it again"
        )),
    })
}

pub(crate) fn closed(name: &str) -> PyErr {
    PyValueError::new_err(format!("the {name} is closed\n  hint: open it again"))
}

impl Pipeline {
    /// The open pipeline, unless it runs another request.
    fn idle(&self) -> PyResult<MutexGuard<'_, Option<ldm_ort::Pipeline>>> {
        same_process(self.process)?;
        idle(&self.pipeline, "pipeline")
    }
}

#[pymethods]
impl Pipeline {
    /// Opens a pipeline file or a model directory, or the text of a pipeline file, with settings over it.
    #[staticmethod]
    fn open(
        py: Python<'_>,
        engine: &Engine,
        source: Source,
        settings: &str,
        callback: Option<Py<PyAny>>,
        cancel: Option<Py<Cancel>>,
    ) -> PyResult<Self> {
        let process = std::process::id();
        same_process(*OPENED_IN.get().unwrap_or(&process))?;
        let overrides = Overrides::from_json(settings).map_err(|error| to_python(&error))?;
        let engine = engine.0.clone();
        let pipeline = Watch::new(callback, cancel).run(py, move |cancel, observer| {
            let spec = match source {
                Source::Toml((text,)) => Spec::parse(&text, None, &overrides)?,
                Source::Path(path) => pipeline_spec(&path, &overrides)?,
            };
            OPENED_IN.get_or_init(std::process::id);
            engine.open_spec(spec, cancel, observer)
        })?;
        let runtime_version = pipeline.runtime().version().to_owned();
        Ok(Self { pipeline: Arc::new(Mutex::new(Some(pipeline))), runtime_version, process })
    }

    /// Checks a request without running it.
    fn check(&self, py: Python<'_>, request: &str, inputs: Vec<(String, Input)>) -> PyResult<()> {
        let request = request_of(request, inputs)?;
        let pipeline = self.idle()?;
        let pipeline = pipeline.as_ref().ok_or_else(|| closed("pipeline"))?;
        py.detach(|| pipeline.check(&request)).map_err(|error| to_python(&error))
    }

    /// Makes the images of a request.
    fn run(
        &self,
        py: Python<'_>,
        request: &str,
        inputs: Vec<(String, Input)>,
        callback: Option<Py<PyAny>>,
        cancel: Option<Py<Cancel>>,
    ) -> PyResult<Vec<Image>> {
        let request = request_of(request, inputs)?;
        let mut pipeline = self.idle()?;
        let pipeline = pipeline.as_mut().ok_or_else(|| closed("pipeline"))?;
        let images = Watch::new(callback, cancel).run(py, |cancel, observer| {
            let mut images = Vec::new();
            pipeline.run(&request, cancel, &mut |event| {
                if let Event::Image(image) = &event
                    && image.is_final()
                {
                    images.push((**image).clone());
                }
                observer(event);
            })?;
            Ok(images)
        })?;
        Ok(images.into_iter().map(Image::from).collect())
    }

    /// Releases the pipeline's memory. A second time does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let pipeline = match self.pipeline.is_poisoned() {
            // What a panic left behind may be torn down all the same.
            true => self.pipeline.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take(),
            false => self.idle()?.take(),
        };
        py.detach(|| drop(pipeline));
        Ok(())
    }

    #[getter]
    fn runtime_version(&self) -> &str {
        &self.runtime_version
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.pipeline.try_lock().is_ok_and(|pipeline| pipeline.is_none())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A fork cannot wait for threads that it does not have.
            std::mem::forget(Arc::clone(&self.pipeline));
        }
    }
}

/// The text of a pipeline file, in a tuple of one, or a path.
#[derive(FromPyObject)]
pub(crate) enum Source {
    Toml((String,)),
    Path(PathBuf),
}
