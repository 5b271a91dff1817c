//! Finds the implementation of a provider: in ONNX Runtime's own library and those next to it, or in a plugin.

use std::path::{Path, PathBuf};

use ort::session::builder::SessionBuilder;

use super::plugin::{self, PluginProvider};
use super::register::ProviderOptions;
use super::requirement::{NO_DEVICE, Obstacle, named_in};
use super::table::Provider;
use crate::session::library::{Runtime, check_library, error_message, library_file_name};

/// The implementation of a provider.
#[derive(Debug, Clone)]
pub(super) enum Implementation {
    /// A part of the ONNX Runtime in use.
    BuiltIn(&'static Provider),
    /// A provider of a registered library.
    Plugin(PluginProvider),
}

impl Implementation {
    /// Registers the provider with a session's options.
    pub(super) fn register(
        &self,
        mut builder: SessionBuilder,
        runtime: &Runtime,
        options: &ProviderOptions,
    ) -> ort::Result<SessionBuilder> {
        match self {
            Self::BuiltIn(provider) => (provider.register)(&mut builder, options).map(|()| builder),
            Self::Plugin(plugin) => plugin.register(builder, runtime, options),
        }
    }
}

/// Finds the implementation of a provider, as far as that is known without setting it up. A library that was registered
/// comes first, then ONNX Runtime's own, then a plugin in the user's cache.
pub(super) fn locate(provider: &'static Provider, runtime: &Runtime) -> Result<Implementation, Obstacle> {
    if let Some(plugin) = plugin::find(provider.ort_name, runtime) {
        return Ok(Implementation::Plugin(plugin));
    }
    if !provider.exists_here() {
        let os = std::env::consts::OS;
        let help = "`ldm-ort list providers` prints the providers that can be used here";
        return Err((format!("exists only on {}, this is {os}", provider.systems.join(", ")), help.to_owned()));
    }
    match (provider.is_built_in)() {
        Ok(true) => {
            check_libraries(provider, runtime)?;
            check_driver(provider)?;
            Ok(Implementation::BuiltIn(provider))
        }
        Ok(false) => match provider.flavor.and_then(|flavor| runtime.cached_plugin(flavor)) {
            Some(library) => locate_plugin(provider, &library, runtime),
            None => Err(absent(provider, runtime)),
        },
        Err(e) => {
            let problem = format!("cannot be looked up in ONNX Runtime: {}", error_message(&e));
            Err((problem, format!("get {}", provider.obtain)))
        }
    }
}

/// Registers a plugin from the user's cache.
fn locate_plugin(provider: &'static Provider, library: &Path, runtime: &Runtime) -> Result<Implementation, Obstacle> {
    check_driver(provider)?;
    plugin::register_library(library, runtime)?;
    let found = plugin::find(provider.ort_name, runtime).map(Implementation::Plugin);
    found.ok_or_else(|| {
        let problem = format!("{} {NO_DEVICE}", library.display());
        let help = help(provider, &problem);
        (problem, help)
    })
}

/// Returns the files of the provider's libraries that are there.
pub(super) fn library_files(provider: &Provider, runtime: &Runtime) -> Vec<PathBuf> {
    let folder = runtime.path().parent().unwrap_or(Path::new("."));
    let beside = provider.libraries.iter().map(|library| folder.join(library_file_name(library)));
    let cached = provider.flavor.and_then(|flavor| runtime.cached_plugin(flavor));
    let registered = plugin::find(provider.ort_name, runtime).map(|plugin| plugin.library().to_path_buf());
    let mut files: Vec<_> = registered.into_iter().chain(cached).chain(beside).filter(|file| file.exists()).collect();
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    files
}

fn check_libraries(provider: &Provider, runtime: &Runtime) -> Result<(), Obstacle> {
    let help = || format!("get {}", provider.obtain);
    let folder = runtime.path().parent().unwrap_or(Path::new("."));
    for library in provider.libraries {
        let file = folder.join(library_file_name(library));
        if !file.exists() {
            return Err((format!("{} is missing", file.display()), help()));
        }
        check_library(&file).map_err(|problem| (format!("{} {problem}", file.display()), help()))?;
    }
    Ok(())
}

fn check_driver(provider: &Provider) -> Result<(), Obstacle> {
    let Some(driver) = provider.driver else { return Ok(()) };
    match driver.missing() {
        Some((_, message)) => {
            Err((format!("the driver of the GPU cannot be loaded: {message}"), driver.obtain.to_owned()))
        }
        None => Ok(()),
    }
}

/// The obstacle of a provider that is neither in the ONNX Runtime in use nor in the cache.
fn absent(provider: &Provider, runtime: &Runtime) -> Obstacle {
    let problem =
        format!("is not part of the ONNX Runtime in use ({}, {})", runtime.path().display(), runtime.version());
    let missing = provider.driver.and_then(|driver| Some((driver, driver.missing()?.0)));
    let help = match missing {
        Some((driver, file)) => format!("{file} is missing: {}; then get {}", driver.obtain, provider.obtain),
        None => format!("get {}", provider.obtain),
    };
    (problem, help)
}

/// Returns the next thing to do about a message of a provider.
pub(super) fn help(provider: &Provider, message: &str) -> String {
    match named_in(provider.requirements, message) {
        Some(obtain) => obtain.to_owned(),
        None => format!("get {}", provider.obtain),
    }
}
