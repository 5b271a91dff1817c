//! The status of execution providers: usable on this machine or not, with the reason and a hint.

use std::collections::BTreeMap;
use std::path::Path;

use super::table::{PROVIDERS, Provider};
use crate::session::library::{Runtime, check_library, error_message, library_file_name};

/// The status of an execution provider on this machine.
#[derive(Debug, Clone)]
pub struct ProviderStatus {
    /// The provider.
    pub provider: &'static Provider,
    /// The reason why it cannot be used, and a hint; `None` if it can.
    ///
    /// A missing device only shows when a session is opened, so a provider without an obstacle can still fail.
    pub obstacle: Option<(String, String)>,
}

/// Returns the status of every provider of [`PROVIDERS`] with this library.
///
/// ONNX Runtime sets each of them up for a session that is never opened, which loads the libraries they need.
pub fn provider_statuses(runtime: &Runtime) -> Vec<ProviderStatus> {
    let status = |provider: &'static Provider| {
        let obstacle = obstacle(provider, runtime).and_then(|()| try_out(provider, runtime));
        ProviderStatus { provider, obstacle: obstacle.err() }
    };
    PROVIDERS.iter().map(status).collect()
}

fn try_out(provider: &Provider, runtime: &Runtime) -> Result<(), (String, String)> {
    let session = ort::session::Session::builder(runtime.environment());
    let registered = session.and_then(|mut builder| (provider.register)(&mut builder, &BTreeMap::new()));
    registered.map_err(|e| (format!("cannot be set up: {}", error_message(&e)), format!("install {}", provider.obtain)))
}

/// Checks for obstacles that can be found without setting the provider up.
pub(super) fn obstacle(provider: &Provider, runtime: &Runtime) -> Result<(), (String, String)> {
    let os = std::env::consts::OS;
    if !provider.systems.is_empty() && !provider.systems.contains(&os) {
        let help = "`ldm-ort list providers` prints the providers that can be used here";
        return Err((format!("exists only on {}, this is {os}", provider.systems.join(", ")), help.to_owned()));
    }
    let help = || format!("get {}", provider.obtain);
    match (provider.is_built_in)() {
        Ok(true) => {}
        Ok(false) => {
            let problem =
                format!("is not part of the ONNX Runtime in use ({}, {})", runtime.path().display(), runtime.version());
            return Err((problem, help()));
        }
        Err(e) => return Err((format!("cannot be looked up in ONNX Runtime: {}", error_message(&e)), help())),
    }
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
