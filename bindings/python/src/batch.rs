//! Batches: many requests into one content-addressed folder or bucket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ldm_ort::batch::{BatchEvent, ImageBatch, InputLine, OpenBatch, Shard, Store, batch_spec, open_store};
use ldm_ort::{Error, Overrides};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::cancel::Cancel;
use crate::errors::to_python;
use crate::image::format_of;
use crate::inputs::{Input, image_of};
use crate::pipeline::{Engine, closed, idle, opens_here, same_process};
use crate::watch::Watch;

/// A batch whose store is prepared; `None` once it is closed.
#[pyclass(frozen, module = "ldm_ort._native")]
pub(crate) struct Batch {
    batch: Arc<Mutex<Option<OpenBatch>>>,
    process: u32,
}

/// A request: its line's number, its JSON with its images in memory, or the reason that it has none.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct BatchRequest {
    line: Option<usize>,
    json: Option<String>,
    images: Vec<(String, Input)>,
    problem: Option<String>,
}

impl BatchRequest {
    fn into_line(self) -> InputLine {
        let images = self.images.into_iter().map(|(key, input)| Ok((key.clone(), image_of(&key, input)?)));
        let images = images.collect::<Result<Vec<_>, String>>();
        let (text, images) = match (self.problem, images) {
            (None, Ok(images)) => (Ok(self.json.unwrap_or_default()), images),
            (Some(problem), _) | (None, Err(problem)) => (Err(problem), Vec::new()),
        };
        InputLine::new(self.line, text, images)
    }
}

/// The store of a folder or a bucket, by the variables of this process.
pub(crate) fn store_of(out: &str) -> ldm_ort::Result<Arc<dyn Store>> {
    let variables = std::env::vars_os();
    open_store(out, variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))))
}

/// The name of a manifest below the batch's folder.
fn manifest_name(name: Option<&str>) -> PyResult<String> {
    let Some(name) = name else { return Ok(Shard::default().manifest()) };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_plain) {
        let problem = format!("manifest: expected letters, digits, - and _, found {name:?}");
        return Err(PyValueError::new_err(format!(
            "{problem}\n  hint: it is the name of a file in the folder manifest/"
        )));
    }
    Ok(format!("manifest/{name}.jsonl"))
}

#[pymethods]
impl Batch {
    /// Prepares the store, and reads the pipeline file or the model directory.
    #[staticmethod]
    #[expect(clippy::too_many_arguments, reason = "each is an argument in Python")]
    fn open(
        py: Python<'_>,
        engine: &Engine,
        pipeline: PathBuf,
        out: String,
        settings: &str,
        format: &str,
        quality: Option<i64>,
        manifest: Option<&str>,
    ) -> PyResult<Self> {
        let process = std::process::id();
        let overrides = Overrides::from_json(settings).map_err(|error| to_python(&error))?;
        let (format, manifest) = (format_of(format, quality)?, manifest_name(manifest)?);
        let engine = engine.0.clone();
        let opened = py.detach(|| {
            let store = store_of(&out)?;
            let spec = batch_spec(&pipeline, overrides)?;
            ImageBatch { engine, spec, store, shard: Shard::default(), manifest, format }.open()
        });
        let batch = opened.map_err(|error| to_python(&error))?;
        Ok(Self { batch: Arc::new(Mutex::new(Some(batch))), process })
    }

    /// Makes the images that are not stored, and returns the lines of the manifest as JSON, each with the index of its request.
    fn run(
        &self,
        py: Python<'_>,
        requests: Vec<BatchRequest>,
        callback: Option<Py<PyAny>>,
        cancel: Option<Py<Cancel>>,
    ) -> PyResult<Vec<(usize, String)>> {
        opens_here()?;
        same_process(self.process)?;
        let mut batch = idle(&self.batch, "batch")?;
        let batch = batch.as_mut().ok_or_else(|| closed("batch"))?;
        let mut rows = Watch::new(callback, cancel).run(py, move |cancel, observer| {
            let lines: Vec<InputLine> = requests.into_iter().map(BatchRequest::into_line).collect();
            let rows = Mutex::new(Vec::new());
            let observer = Mutex::new(observer);
            batch.run(&lines, cancel, &|event| {
                match event {
                    BatchEvent::Pipeline(event) => observer.lock().unwrap_or_else(PoisonError::into_inner)(event),
                    BatchEvent::Failed { at, entry } | BatchEvent::Recorded { at, entry } => {
                        let row = (at, entry.error.is_some(), entry.to_json()?);
                        rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                    }
                    _ => {}
                }
                Ok::<(), Error>(())
            })?;
            Ok(rows.into_inner().unwrap_or_else(PoisonError::into_inner))
        })?;
        // A request may have images and a failure.
        rows.sort_by_key(|(at, is_failure, _)| (*at, *is_failure));
        Ok(rows.into_iter().map(|(at, _, json)| (at, json)).collect())
    }

    /// Releases the pipeline's memory. A second time does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        same_process(self.process)?;
        let batch = idle(&self.batch, "batch")?.take();
        py.detach(|| drop(batch));
        Ok(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A fork cannot wait for threads that it does not have.
            std::mem::forget(Arc::clone(&self.batch));
        }
    }
}
