//! Whether an execution provider can be used here and now, and if not, why and what to do.

use std::path::{Path, PathBuf};

use super::table::{PROVIDERS, Provider};
use crate::session::library::{Runtime, library_file_name};

/// Whether an execution provider can be used now.
#[derive(Debug, Clone)]
pub struct ProviderStatus {
    /// The provider.
    pub provider: &'static Provider,
    /// What stands in the way and what to do about it; `None` where the provider can be used.
    ///
    /// A device that is absent shows only when a session is opened, so a provider without an obstacle can still fail.
    pub obstacle: Option<(String, String)>,
}

/// The status of every provider of [`PROVIDERS`] with this library.
pub fn provider_statuses(runtime: &Runtime) -> Vec<ProviderStatus> {
    PROVIDERS.iter().map(|provider| check(provider, runtime)).collect()
}

pub(super) fn check(provider: &'static Provider, runtime: &Runtime) -> ProviderStatus {
    ProviderStatus { provider, obstacle: obstacle(provider, runtime).err() }
}

fn obstacle(provider: &Provider, runtime: &Runtime) -> Result<(), (String, String)> {
    let os = std::env::consts::OS;
    if !provider.systems.is_empty() && !provider.systems.contains(&os) {
        return Err((format!("exists only on {}, this is {os}", provider.systems.join(", ")), String::new()));
    }
    let help = || format!("get {}", provider.obtain);
    match (provider.is_built_in)() {
        Ok(true) => {}
        Ok(false) => {
            let problem =
                format!("is not part of the ONNX Runtime in use ({}, {})", runtime.path().display(), runtime.version());
            return Err((problem, help()));
        }
        Err(e) => return Err((format!("ONNX Runtime does not say whether it has it: {}", e.message()), help())),
    }
    let folder = runtime.path().parent().unwrap_or(Path::new("."));
    for library in provider.libraries {
        let file = folder.join(library_file_name(library));
        if !file.exists() {
            return Err((format!("{} is missing", file.display()), help()));
        }
        load(folder, &file).map_err(|problem| (problem, help()))?;
    }
    Ok(())
}

/// Loads a provider's library as ONNX Runtime will, to learn which of its dependencies is missing.
fn load(folder: &Path, file: &PathBuf) -> Result<(), String> {
    // Providers take ONNX Runtime's side of the interface from this library, whose symbols must be visible to them.
    let shared = folder.join(library_file_name("onnxruntime_providers_shared"));
    if shared.exists() {
        keep_loaded(&shared, true)?;
    }
    keep_loaded(file, false)
}

/// Loads a library for the life of the process. Taking a GPU's libraries out again runs their destructors, which is
/// where they crash.
fn keep_loaded(file: &Path, visible: bool) -> Result<(), String> {
    // SAFETY: these libraries are ONNX Runtime's own parts, lying beside the one in use, which loads them in the same
    // way when a session asks for the provider; their initialisers have no preconditions.
    #[cfg(unix)]
    let loaded = unsafe {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL};
        Library::open(Some(file), RTLD_LAZY | if visible { RTLD_GLOBAL } else { RTLD_LOCAL })
    };
    // SAFETY: as above.
    #[cfg(windows)]
    let loaded = unsafe {
        use libloading::os::windows::{LOAD_WITH_ALTERED_SEARCH_PATH, Library};
        let _ = visible;
        Library::load_with_flags(file, LOAD_WITH_ALTERED_SEARCH_PATH)
    };
    match loaded {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(e) => Err(format!("{} cannot be loaded: {}", file.display(), crate::session::library::load_error(&e))),
    }
}
