//! ONNX Runtime's library: found, checked, loaded once.

mod cache;
pub(super) mod digests;
mod extent;
mod loaded;
mod probe;
mod search;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::LogLevel;

use super::{Cancel, fetch};
use crate::error::{Error, Result};

pub use cache::{Cached, cached, user_cache};
pub(super) use cache::{directory, flavour_directory};
pub(super) use probe::check_library;
pub use search::{Candidate, Search, Source, Verdict, search};

/// The oldest ONNX Runtime this program works with.
pub fn minimum_version() -> String {
    format!("1.{}", ort::MINOR_VERSION)
}

/// A build of ONNX Runtime that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// The processor (and on macOS Core ML).
    Cpu,
    /// CUDA and TensorRT for NVIDIA GPUs.
    Cuda,
    /// OpenVINO.
    OpenVino,
}

impl Flavour {
    /// All of them, the one taken first where none is preferred in front.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::OpenVino];

    /// The name on the command line and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::OpenVino => "openvino",
        }
    }

    /// True if there is an official build of it for this machine, which can be fetched.
    pub fn is_built_here(self) -> bool {
        fetch::has_build(self)
    }

    /// The flavour of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the library is looked for, and whether it may be fetched.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// The library's file or folder, as `--runtime` gave it. Nothing else is then considered.
    pub path: Option<PathBuf>,
    /// The build preferred in the cache, because a provider in use needs it. `None` prefers `cpu`. Where the preferred
    /// build is not in the cache, another one that is there is taken all the same: it may hold the provider too. Where
    /// nothing at all is found, the preferred build is the one that is fetched.
    pub flavour: Option<Flavour>,
    /// Whether the network may not be used.
    pub offline: bool,
    /// What the environment says.
    pub env: Env,
    /// Stops a download.
    pub cancel: Cancel,
}

/// The environment, as the program found it. The library itself reads no environment variables; a caller that leaves
/// all this empty gets the search without them.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `ORT_DYLIB_PATH`.
    pub ort_dylib_path: Option<PathBuf>,
    /// The folders of `LD_LIBRARY_PATH`, `DYLD_LIBRARY_PATH` or `PATH`, whichever the system loads libraries from.
    pub library_path: Vec<PathBuf>,
    /// The folder of the running program.
    pub program_dir: Option<PathBuf>,
    /// The program's own folder in the user's cache; `None` is the system's usual place for it.
    pub cache_dir: Option<PathBuf>,
    /// The address of a Python package index ("simple" repository) to use instead of the public one.
    pub index_url: Option<String>,
    /// Configuration files of pip, in the order in which they count; an `index-url` there is used where
    /// [`Env::index_url`] is empty.
    pub pip_config: Vec<PathBuf>,
    /// A file with certificates (PEM) to trust instead of the system's, as `SSL_CERT_FILE` names one.
    pub ca_bundle: Option<PathBuf>,
}

/// ONNX Runtime, loaded. All clones, and all values loaded in one process, are the same.
#[derive(Debug, Clone)]
pub struct Runtime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    environment: ort::environment::Environment,
    path: PathBuf,
    version: String,
    search: Search,
}

/// The process's one runtime.
///
/// ONNX Runtime allows one environment a process and ort allows none after it, so it is made once and never released:
/// a library user can load, drop and load again, and no order of destruction at the end of the process can go wrong.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Finds ONNX Runtime's library, fetching it where none is found and `options` allow that, and loads it.
    ///
    /// # Errors
    /// [`Error::Runtime`] where a library named outright cannot be used, where none is found and none may or can be
    /// fetched, or where this process already holds another one.
    pub fn load(options: &RuntimeOptions) -> Result<Self> {
        Self::load_with(options, &mut |_| {})
    }

    /// As [`Runtime::load`], with an observer of what is fetched.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn load_with(options: &RuntimeOptions, observer: &mut dyn FnMut(&fetch::FetchEvent)) -> Result<Self> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return runtime.reused(options);
        }
        fetch::tidy(options);
        let mut search = search(options);
        if search.taken().is_none() {
            if let Some(error) = search.error() {
                return Err(error);
            }
            let wanted = options.flavour.unwrap_or(Flavour::Cpu);
            fetch::install(wanted, options, observer)?;
            search = search::search(options);
        }
        let (path, version) = search.taken().ok_or_else(|| {
            Error::runtime(format!("no usable library was found\n{search}"), "`ldm-ort runtime` shows the search")
        })?;
        let (path, version) = (path.to_path_buf(), version.to_string());
        tracing::info!("ONNX Runtime {version} is {}", path.display());
        let environment = start(&path)?;
        let runtime = Self(Arc::new(Inner { environment, path, version, search }));
        Ok(loaded.insert(runtime).clone())
    }

    /// The library's file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The library's version, such as `1.31.1`.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// How the library was found.
    pub fn search(&self) -> &Search {
        &self.0.search
    }

    pub(super) fn environment(&self) -> &ort::environment::Environment {
        &self.0.environment
    }

    /// The runtime this process already holds, if `options` can be content with it.
    fn reused(&self, options: &RuntimeOptions) -> Result<Self> {
        let Some(path) = &options.path else { return Ok(self.clone()) };
        let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        if search::files_named(path).iter().any(|file| same(file, self.path())) {
            return Ok(self.clone());
        }
        Err(Error::runtime(
            format!(
                "{} was asked for, but this process already runs {} ({})",
                path.display(),
                self.path().display(),
                self.version()
            ),
            "a process holds one ONNX Runtime; start another process",
        ))
    }
}

/// The target under which the loader of the library logs.
pub const LOADER_LOG: &str = "ort::load_dynamic";

/// Loads the library into ort and creates the environment.
fn start(path: &Path) -> Result<ort::environment::Environment> {
    let failed = |problem: String| Error::runtime(format!("{}: {problem}", path.display()), "");
    // Official builds from 1.29 on report to their maker from the moment the environment is created, and write a device
    // id into the user's cache; only this variable, read at that moment, keeps them from both. The call that follows
    // on the environment itself covers builds that ignore the variable.
    //
    // SAFETY: changing the environment is unsound while another thread reads it outside Rust's standard library. It is
    // done once in a process, under `LOADED`'s lock, before the first thread of ONNX Runtime exists. The command line
    // gets here with no other thread that reads the environment; a program that embeds this library and has such
    // threads sets the variable to 1 itself before it starts them, and then nothing is changed here.
    if std::env::var_os(TELEMETRY_OFF).is_none_or(|value| value != "1") {
        unsafe { std::env::set_var(TELEMETRY_OFF, "1") };
    }
    let environment = ort::init_from(path)
        .map_err(|e| failed(e.to_string()))?
        .with_name("ldm-ort")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|e| failed(e.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

const TELEMETRY_OFF: &str = "ORT_DISABLE_TELEMETRY";

/// Hands what ONNX Runtime says to `tracing`, under the target `onnxruntime`.
pub(super) fn log(level: LogLevel, _category: &str, id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", id, location, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", id, location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", id, location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", id, location, "{message}"),
    }
}

/// What ONNX Runtime says of a failure, without the place in its source and the name of the code in front.
pub(super) fn plain<R>(error: &ort::Error<R>) -> String {
    let message = error.message();
    let rest = message.split_once("[ONNXRuntimeError] : ").and_then(|(_, rest)| rest.splitn(3, " : ").nth(2));
    rest.unwrap_or(message).trim().to_string()
}

/// A library's file name on this system.
pub(super) fn library_file_name(stem: &str) -> String {
    format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}
