//! Opens pipelines.

use std::path::Path;

use super::{Engine, Event, Pipeline, model_spec, pipeline_spec};
use crate::error::Result;
use crate::session::Cancel;
use crate::spec::{Overrides, Spec};

impl Engine {
    /// Opens the pipeline of a file: checks it, loads ONNX Runtime, and loads its graphs.
    ///
    /// # Errors
    /// [`Error`](crate::Error) of every kind but `internal`: whatever is wrong with the file, the model directory, the
    /// runtime or the providers.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Pipeline> {
        self.open_spec(Spec::load(path.as_ref(), &self.overrides(&Overrides::default()))?, &Cancel::new(), &mut |_| {})
    }

    /// Opens the pipeline in the text of a pipeline file; its paths are relative to the current directory.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_toml(&self, text: &str) -> Result<Pipeline> {
        self.open_spec(Spec::parse(text, None, &self.overrides(&Overrides::default()))?, &Cancel::new(), &mut |_| {})
    }

    /// Opens a model directory, for the first task that it fits (`ldm-ort inspect` lists them).
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_model(&self, dir: impl AsRef<Path>) -> Result<Pipeline> {
        self.open_spec(model_spec(dir.as_ref(), &self.overrides(&Overrides::default()))?, &Cancel::new(), &mut |_| {})
    }

    /// Opens a pipeline file or a model directory with settings over it, reporting events; `cancel` stops that from another
    /// thread.
    ///
    /// # Errors
    /// As [`Engine::open`], and [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn open_with(
        &self,
        path: impl AsRef<Path>,
        overrides: &Overrides,
        cancel: &Cancel,
        observer: &mut dyn FnMut(Event),
    ) -> Result<Pipeline> {
        self.open_spec(pipeline_spec(path.as_ref(), &self.overrides(overrides))?, cancel, observer)
    }

    /// Opens a pipeline that is given as a value, reporting events; `cancel` stops that from another thread.
    ///
    /// # Errors
    /// As [`Engine::open`], and [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn open_spec(&self, spec: Spec, cancel: &Cancel, observer: &mut dyn FnMut(Event)) -> Result<Pipeline> {
        Pipeline::open(self, spec, false, cancel, observer)
    }

    /// As [`Engine::open_spec`], for a single request ([`Pipeline::run_last`]): graphs that OpenVINO and other providers
    /// compile in the host's memory are opened when the request needs them, so that one of their errors may come late.
    ///
    /// # Errors
    /// As [`Engine::open_spec`].
    pub fn open_for_one_run(&self, spec: Spec, cancel: &Cancel, observer: &mut dyn FnMut(Event)) -> Result<Pipeline> {
        Pipeline::open(self, spec, true, cancel, observer)
    }
}
