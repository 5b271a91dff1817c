//! Settings from the process's environment variables.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::aliases;
use crate::error::{Error, Result};
use crate::graph_cache::SizeLimit;
use crate::kernels::InstructionSet;
use crate::session::Env;

/// The variable that turns the graph cache off.
const OPTIMIZE: &str = "LDM_ORT_OPTIMIZE";

/// The variable with the size limit of the graph cache.
const GRAPH_CACHE_SIZE: &str = "LDM_ORT_GRAPH_CACHE_SIZE";

/// The variable with the name of the instruction set that operators of our own use instead of the CPU's best.
const INSTRUCTION_SET: &str = "LDM_ORT_INSTRUCTION_SET";

/// The settings that environment variables give an [`Engine`](super::Engine).
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Variables about ONNX Runtime and the user's cache.
    pub(crate) runtime: Env,
    /// True if `LDM_ORT_OFFLINE` is set and not `0`.
    pub(crate) offline: bool,
    /// False if `LDM_ORT_OPTIMIZE` is `0`.
    pub(crate) optimize: bool,
    /// `LDM_ORT_GRAPH_CACHE_SIZE`.
    graph_cache_size: Option<OsString>,
    /// `LDM_ORT_INSTRUCTION_SET`.
    instruction_set: Option<OsString>,
    /// Warnings about old names that were read, until they are taken.
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Environment {
    /// Reads the variables of this process.
    pub fn from_process() -> Self {
        let value = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        let (optimize, warning) = aliases::variable(OPTIMIZE, |name| std::env::var_os(name));
        Self {
            runtime: runtime(),
            offline: is_set("LDM_ORT_OFFLINE"),
            optimize: optimize.is_none_or(|value| value != "0"),
            graph_cache_size: value(GRAPH_CACHE_SIZE),
            instruction_set: value(INSTRUCTION_SET),
            warnings: Arc::new(Mutex::new(warning.into_iter().collect())),
        }
    }

    /// The settings of an empty environment.
    pub fn empty() -> Self {
        Self {
            runtime: Env::default(),
            offline: false,
            optimize: true,
            graph_cache_size: None,
            instruction_set: None,
            warnings: Arc::default(),
        }
    }

    /// The size limit of the graph cache.
    ///
    /// # Errors
    /// [`Error::Input`] if `LDM_ORT_GRAPH_CACHE_SIZE` is not a size.
    pub(crate) fn graph_cache_limit(&self) -> Result<SizeLimit> {
        let Some(value) = &self.graph_cache_size else { return Ok(SizeLimit::default()) };
        value.to_str().and_then(SizeLimit::parse).ok_or_else(|| {
            let problem = format!("expected a size such as \"20 GB\", or \"unlimited\", found {value:?}");
            Error::input(GRAPH_CACHE_SIZE, problem, "correct the environment variable, or unset it")
        })
    }

    /// Makes the instruction set of `LDM_ORT_INSTRUCTION_SET`, if that is set, the one of this process.
    ///
    /// # Errors
    /// [`Error::Input`] if it names none of this CPU.
    pub(crate) fn choose_instruction_set(&self) -> Result<()> {
        let Some(value) = &self.instruction_set else { return Ok(()) };
        InstructionSet::choose(&value.to_string_lossy())
            .map_err(|problem| Error::input(INSTRUCTION_SET, problem, "correct the environment variable, or unset it"))
    }

    /// Takes the warnings about old names of variables; a second time there are none.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the path in a variable unless it is empty.
fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn runtime() -> Env {
    let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let library_path = if cfg!(windows) {
        "PATH"
    } else if cfg!(target_os = "macos") {
        "DYLD_LIBRARY_PATH"
    } else {
        "LD_LIBRARY_PATH"
    };
    Env {
        ort_dylib_path: path("ORT_DYLIB_PATH"),
        library_path: std::env::var_os(library_path).map(|v| std::env::split_paths(&v).collect()).unwrap_or_default(),
        package_dir: None,
        program_dir: std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from)),
        cache_dir: path("LDM_ORT_CACHE_DIR"),
        index_url: ["LDM_ORT_INDEX_URL", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"].into_iter().find_map(text),
        pip_config: pip_config(),
        ca_bundle: path("SSL_CERT_FILE"),
    }
}

/// The places of pip's configuration, the one with precedence first.
fn pip_config() -> Vec<PathBuf> {
    let home = path("HOME");
    let under = |base: &Option<PathBuf>, rest: &str| base.as_ref().map(|base| base.join(rest));
    let config = path("XDG_CONFIG_HOME").or_else(|| under(&home, ".config"));
    let places = if cfg!(windows) {
        vec![
            path("PIP_CONFIG_FILE"),
            under(&path("APPDATA"), "pip/pip.ini"),
            under(&path("ProgramData"), "pip/pip.ini"),
        ]
    } else {
        vec![
            path("PIP_CONFIG_FILE"),
            under(&home, "Library/Application Support/pip/pip.conf").filter(|_| cfg!(target_os = "macos")),
            under(&config, "pip/pip.conf"),
            under(&home, ".pip/pip.conf"),
            Some(PathBuf::from("/etc/pip.conf")),
        ]
    };
    places.into_iter().flatten().collect()
}
