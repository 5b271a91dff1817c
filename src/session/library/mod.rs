//! ONNX Runtime's library: finds it, checks it and loads it once.

mod assignment_api;
mod cache;
pub(super) mod digests;
mod extent;
mod file_name;
mod flavor;
mod host;
mod loaded_copies;
mod probe;
mod runtime_options;
mod search;
mod versions;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::LogLevel;

use super::fetch;
use super::memory_messages::is_lack_of_memory;
use crate::error::{Error, Result};

pub(super) use assignment_api::AssignmentApi;
pub use cache::{CachedBuild, cached_builds, user_cache};
pub(super) use cache::{directory, flavor_directory};
pub(super) use file_name::library_file_name;
pub use flavor::Flavor;
pub use host::{Host, HostApi};
pub(super) use probe::{check_library, load_error};
pub use runtime_options::{Env, RuntimeOptions};
pub use search::{Candidate, LibrarySource, Search, Verdict, search};
pub use versions::minimum_version;

/// The loaded ONNX Runtime. All clones, and all values loaded in one process, are the same.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
    /// True if graphs run on the environment's global thread pool.
    host_threads: bool,
    /// The plugin providers in the user's cache, best first.
    plugins: Arc<[CachedBuild]>,
}

struct Inner {
    environment: ort::environment::Environment,
    path: PathBuf,
    version: String,
    search: Search,
    /// The functions that tell which provider has which node, from version 1.31 on.
    assignment_api: Option<&'static AssignmentApi>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, version, search, .. } = self;
        f.debug_struct("Inner")
            .field("path", path)
            .field("version", version)
            .field("search", search)
            .finish_non_exhaustive()
    }
}

/// The process's only runtime.
///
/// ONNX Runtime allows one environment per process and ort allows none after it, so it is created once and never
/// released: an application can load, drop and load again, and destruction order at process exit does not matter.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Finds ONNX Runtime's library, fetches it if there is none and `options` allow that, and loads it.
    ///
    /// # Errors
    /// [`Error::Runtime`] if an explicitly named library cannot be used, if none is found and none may or can be
    /// fetched, or if this process has already loaded another one.
    pub fn load(options: &RuntimeOptions) -> Result<Self> {
        Self::load_with(options, &mut |_| {})
    }

    /// As [`Runtime::load`], with an observer of the fetch.
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
        if search.selected().is_none() {
            if let Some(error) = search.error() {
                return Err(error);
            }
            let wanted = options.flavor.unwrap_or(Flavor::Cpu);
            fetch::install(wanted, options, observer)?;
            search = search::search(options);
        }
        let (path, version) = search.selected().ok_or_else(|| {
            Error::runtime(format!("no usable library was found\n{search}"), "`ldm-ort runtime` shows the search")
        })?;
        let (path, version) = (path.to_path_buf(), version.to_string());
        tracing::info!("ONNX Runtime {version} is {}", path.display());
        let environment = start(&path, options.host.as_ref())?;
        let assignment_api = AssignmentApi::find(&path, &version, options.host.as_ref());
        let inner = Arc::new(Inner { environment, path, version, search, assignment_api });
        let runtime = Self { inner, host_threads: options.host_threads, plugins: cached_plugins(options) };
        Ok(loaded.insert(runtime).clone())
    }

    /// Returns the path of the library's file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Returns the library's version, such as `1.31.1`.
    pub fn version(&self) -> &str {
        &self.inner.version
    }

    /// Returns the record of the search for the library.
    pub fn search(&self) -> &Search {
        &self.inner.search
    }

    /// Returns the functions that tell which provider has which node; `None` before version 1.31.
    pub(super) fn assignment_api(&self) -> Option<&'static AssignmentApi> {
        self.inner.assignment_api
    }

    pub(super) fn environment(&self) -> &ort::environment::Environment {
        &self.inner.environment
    }

    /// Returns the library of a plugin provider in the user's cache.
    pub(super) fn cached_plugin(&self, flavor: Flavor) -> Option<PathBuf> {
        self.plugins.iter().find(|build| build.flavor == flavor)?.plugin_library()
    }

    /// Returns the runtime that this process has already loaded, if it satisfies `options`.
    fn reused(&self, options: &RuntimeOptions) -> Result<Self> {
        let plugins = cached_plugins(options);
        let runtime = Self { host_threads: options.host_threads, plugins, ..self.clone() };
        if let Some(host) = &options.host
            && !host.is_in(self.path())
        {
            return Err(self.another(&host.path()));
        }
        let Some(path) = options.path.as_ref().filter(|_| options.host.is_none()) else { return Ok(runtime) };
        let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        if search::files_named(path).iter().any(|file| same(file, self.path())) {
            return Ok(runtime);
        }
        Err(self.another(path))
    }

    /// True if graphs run on the environment's global thread pool.
    pub(super) fn has_host_threads(&self) -> bool {
        self.host_threads
    }

    /// The error of a request for another library.
    fn another(&self, path: &Path) -> Error {
        let (asked, own, version) = (path.display(), self.path().display(), self.version());
        Error::runtime(
            format!("{asked} was requested, but this process already uses {own} ({version})"),
            "a process can load only one ONNX Runtime; start another process",
        )
    }
}

fn cached_plugins(options: &RuntimeOptions) -> Arc<[CachedBuild]> {
    cached_builds(&options.env, None).into_iter().filter(|build| build.flavor.is_plugin()).collect()
}

/// The target under which the library's loader logs.
pub const LOADER_LOG: &str = "ort::load_dynamic";

/// Loads the library into ort and creates the environment, which is the host's where that has one.
fn start(path: &Path, host: Option<&Host>) -> Result<ort::environment::Environment> {
    let failed = |problem: String| {
        Error::runtime(
            format!("{}: {problem}", path.display()),
            "`ldm-ort runtime` prints where it looked; --runtime names another library",
        )
    };
    let of_host = host.map(|host| host.environment(path)).transpose().map_err(failed)?;
    let builder = match of_host {
        Some(Ok(environment)) => return Ok(environment),
        Some(Err(builder)) => builder,
        None => ort::init_from(path).map_err(|e| failed(e.to_string()))?,
    };
    // Official builds from 1.29 on send telemetry from the moment the environment is created, and write a device id to
    // the user's cache. Only this variable, read at that moment, prevents both. The later call on the environment
    // itself covers builds that ignore the variable.
    //
    // Changing the environment is unsound while another thread reads it outside Rust's standard library. It
    // happens once per process, under `LOADED`'s lock, before the first thread of ONNX Runtime exists. The command line
    // gets here without another thread that reads the environment. An application that embeds this library and has such
    // threads sets the variable to 1 before it starts them; then nothing changes here.
    //
    // A host program decides for itself, with its environment.
    if host.is_none() && std::env::var_os(TELEMETRY_OFF).is_none_or(|value| value != "1") {
        // SAFETY: no thread reads the environment meanwhile, as said above.
        unsafe { std::env::set_var(TELEMETRY_OFF, "1") };
    }
    let environment = builder
        .with_name("ldm-ort")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|e| failed(e.to_string()))?;
    if host.is_none() {
        environment.set_log_level(LogLevel::Warning);
    }
    Ok(environment)
}

const TELEMETRY_OFF: &str = "ORT_DISABLE_TELEMETRY";

thread_local! {
    /// The last error that ONNX Runtime logged on this thread, or the last about a lack of memory, which others follow from.
    static LOGGED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Forgets the error that ONNX Runtime logged last on this thread.
pub(super) fn forget_error() {
    LOGGED.take();
}

/// Takes the error that ONNX Runtime logged last on this thread, without its source location.
pub(super) fn take_error() -> Option<String> {
    let logged = LOGGED.take()?;
    // A location is a file with a line, and a function's signature.
    let (_, rest) = logged.split_once(".cc:").unwrap_or(("", &logged));
    let end = [")::<lambda()> ", ") "].iter().find_map(|end| Some(rest.find(end)? + end.len()));
    Some(rest.get(end.unwrap_or(0)..).unwrap_or(rest).trim().to_owned())
}

/// Forwards ONNX Runtime's log to `tracing`, under the target `onnxruntime`.
pub(super) fn log(level: LogLevel, _category: &str, id: &str, location: &str, message: &str) {
    if level >= LogLevel::Error {
        LOGGED.with_borrow_mut(|logged| {
            if is_lack_of_memory(message) || !logged.as_deref().is_some_and(is_lack_of_memory) {
                *logged = Some(message.to_owned());
            }
        });
    }
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", id, location, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", id, location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", id, location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", id, location, "{message}"),
    }
}

/// Returns ONNX Runtime's error message without its source location and error code.
pub(super) fn error_message<R>(error: &ort::Error<R>) -> String {
    let message = error.message();
    let rest = message.split_once("[ONNXRuntimeError] : ").and_then(|(_, rest)| rest.splitn(3, " : ").nth(2));
    rest.unwrap_or(message).trim().to_string()
}
