//! The backend, its models and their instances.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::completion::complete;
use crate::config::ModelConfig;
use crate::fault::{Answer, Fault};
use crate::interface::{EVENT_WARNING, LdmEvent};
use crate::library::{Engine, Library, Pipeline, c_text, text};
use crate::server::{CONFIG_VERSION, Level, Object, check, get, json_of, log, path_of, server};

/// The backend: the library and the engine settings of all models.
pub(crate) struct Backend {
    library: Library,
    engine: Map<String, Value>,
}

/// A loaded model.
pub(crate) struct Model {
    pub config: ModelConfig,
    pub library: Library,
    engine: Engine,
    pipeline: CString,
}

/// An instance of a model, with an open pipeline of its own.
pub(crate) struct Instance {
    pub raw: *mut Object,
    pub model: Arc<Model>,
    pub pipeline: Pipeline,
}

impl Backend {
    /// Loads the library from the backend's folder.
    ///
    /// # Safety
    /// `backend` is the backend that the server initializes.
    pub(crate) unsafe fn new(backend: *mut Object) -> Answer<Self> {
        // SAFETY: as this function demands; the server writes texts that end in NUL.
        let (folder, config) = unsafe {
            let folder = path_of(|kind, location| (server().backend_artifacts)(backend, kind, location))?;
            let message = get(null_mut(), |message| (server().backend_config)(backend, message))?;
            (folder, json_of(message)?)
        };
        let mut engine = match config["cmdline"]["engine"].as_str() {
            Some(settings) => settings_object("--backend-config=ldm_ort,engine", settings)?,
            None => Map::new(),
        };
        if let Some(runtime) = own_runtime(&folder).filter(|_| !engine.contains_key("runtime")) {
            engine.insert("runtime".to_owned(), runtime.to_string_lossy().into());
        }
        let library = Library::load(&folder)?;
        log(Level::Info, &format!("ldm_ort {} from {}", library.version(), folder.display()));
        Ok(Self { library, engine })
    }
}

/// Returns the ONNX Runtime next to the backend, unless the environment names another.
fn own_runtime(folder: &Path) -> Option<PathBuf> {
    if std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()) {
        return None;
    }
    let is_runtime = |name: &str| name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.");
    let entries = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_runtime)).min()
}

fn settings_object(name: &str, text: &str) -> Answer<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(settings)) => Ok(settings),
        Ok(_) => Err(Fault::invalid(format!("{name}: expected a JSON object"))),
        Err(error) => Err(Fault::invalid(format!("{name}: is not JSON: {error}"))),
    }
}

impl Model {
    /// Reads a model's configuration, completes it, and creates its engine.
    ///
    /// # Safety
    /// `model` is the model that the server initializes, of this `backend`.
    pub(crate) unsafe fn new(model: *mut Object, backend: &Backend) -> Answer<Self> {
        // SAFETY: as this function demands.
        let (config, repository, version) = unsafe {
            let repository = path_of(|kind, location| (server().model_repository)(model, kind, location))?;
            let version = get(0, |version| (server().model_version)(model, version))?;
            (completed_config(model)?, repository, version)
        };
        let config = ModelConfig::read(&config)?;
        let pipeline = config.pipeline_path(&repository.join(version.to_string()))?;
        let mut settings = backend.engine.clone();
        if let Some(own) = &config.engine {
            settings.extend(settings_object("parameters.engine", own)?);
        }
        let settings = c_text("parameters.engine", Value::Object(settings).to_string())?;
        let engine = backend.library.engine(Some(&settings))?;
        let pipeline = c_text("parameters.pipeline", pipeline.to_string_lossy().into_owned())?;
        Ok(Self { config, library: backend.library, engine, pipeline })
    }
}

/// Returns a model's configuration, with inputs and outputs completed if the server asks for that.
///
/// # Safety
/// As [`Model::new`].
unsafe fn completed_config(model: *mut Object) -> Answer<Value> {
    let server = server();
    // SAFETY: as this function demands; each message is deleted once.
    unsafe {
        let message = get(null_mut(), |message| (server.model_config)(model, CONFIG_VERSION, message))?;
        let config = json_of(message);
        check((server.message_delete)(message))?;
        let mut config = config?;
        let is_asked = get(false, |is_asked| (server.model_completes_config)(model, is_asked))?;
        if is_asked && complete(&mut config) {
            let text = config.to_string();
            let message = get(null_mut(), |message| (server.message_new)(message, text.as_ptr().cast(), text.len()))?;
            let set = check((server.model_set_config)(model, CONFIG_VERSION, message));
            check((server.message_delete)(message))?;
            set?;
        }
        Ok(config)
    }
}

impl Instance {
    /// Opens the pipeline of an instance.
    ///
    /// # Safety
    /// `instance` is the instance that the server initializes, of this `model`.
    pub(crate) unsafe fn new(raw: *mut Object, model: Arc<Model>) -> Answer<Self> {
        // SAFETY: as this function demands.
        let (device, name) = unsafe {
            let name = get(std::ptr::null(), |name| (server().instance_name)(raw, name))?;
            (get(0, |device| (server().instance_device)(raw, device))?, text(name))
        };
        let settings = model.config.instance_settings(device);
        let settings = settings.map(|settings| c_text("parameters.settings", settings)).transpose()?;
        let pipeline = model.engine.open(&model.pipeline, settings.as_deref(), &mut log_warning)?;
        log(Level::Info, &format!("{name}: open, ONNX Runtime {}", pipeline.runtime_version()));
        Ok(Self { raw, model, pipeline })
    }
}

/// Writes a warning of the library to the server's log.
pub(crate) fn log_warning(event: &LdmEvent) {
    if event.kind != EVENT_WARNING {
        return;
    }
    // SAFETY: the text lives as long as the event.
    let json = unsafe { text(event.json) };
    let event: Value = serde_json::from_str(&json).unwrap_or_default();
    log(Level::Warn, event["text"].as_str().unwrap_or(&json));
}
