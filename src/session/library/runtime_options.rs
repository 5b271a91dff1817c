//! Settings of the search for the library.

use std::path::PathBuf;

use super::flavor::Flavor;
use super::host::Host;
use crate::session::Cancel;

/// The places to search for the library, and whether it may be fetched.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// The host program's own ONNX Runtime. Nothing else is then considered.
    pub host: Option<Host>,
    /// True if graphs run on the global thread pool of the host's environment, which it creates first.
    pub host_threads: bool,
    /// The library's file or folder, from `--runtime`. Nothing else is then considered.
    pub path: Option<PathBuf>,
    /// The preferred build in the cache, because a requested provider needs it. `None` prefers `cpu`. If the preferred
    /// build is not in the cache, another one that is there is used: it may include the provider too. If nothing at all
    /// is found, the preferred build is fetched.
    pub flavor: Option<Flavor>,
    /// True if the network may not be used.
    pub offline: bool,
    /// The environment's settings.
    pub env: Env,
    /// Stops a download.
    pub cancel: Cancel,
}

/// The environment's settings for the search. The library itself reads no environment variables; with the default, the
/// search ignores them.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `ORT_DYLIB_PATH`.
    pub ort_dylib_path: Option<PathBuf>,
    /// The folders of `LD_LIBRARY_PATH`, `DYLD_LIBRARY_PATH` or `PATH`, the one from which the system loads libraries.
    pub library_path: Vec<PathBuf>,
    /// The folder of the running program.
    pub program_dir: Option<PathBuf>,
    /// The folder with the library of Python's package `onnxruntime`, for a program that runs in its environment. It is taken
    /// before the cache if the build has the preferred one's provider.
    pub package_dir: Option<PathBuf>,
    /// The program's folder in the user's cache; `None` is the system's usual place for it.
    pub cache_dir: Option<PathBuf>,
    /// The URL of a Python package index ("simple" repository) to use instead of the public one.
    pub index_url: Option<String>,
    /// Configuration files of pip, in order of precedence. An `index-url` there is used if [`Env::index_url`] is empty.
    pub pip_config: Vec<PathBuf>,
    /// A file with certificates (PEM) to trust instead of the system's, as in `SSL_CERT_FILE`.
    pub ca_bundle: Option<PathBuf>,
}
