//! The status of execution providers: usable on this machine or not, with the reason and a hint.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::choice::find_provider;
use super::devices::ProviderDevice;
use super::locate::{Implementation, help, library_files, locate};
use super::plugin;
use super::requirement::Obstacle;
use super::table::{PROVIDERS, Provider};
use crate::session::library::{Runtime, error_message};

/// The part of the installation that a provider is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderPlace {
    /// The ONNX Runtime in use, and the libraries next to it.
    Runtime,
    /// A plugin's library.
    Plugin,
}

/// The status of an execution provider on this machine.
#[derive(Debug, Clone)]
pub struct ProviderStatus {
    /// The name in pipeline.toml.
    pub name: String,
    /// Its other names.
    pub aliases: &'static [&'static str],
    /// One sentence about it.
    pub about: String,
    /// The part of the installation that it is in; `None` if it is in none.
    pub place: Option<ProviderPlace>,
    /// The files of its own libraries that were found.
    pub libraries: Vec<PathBuf>,
    /// The devices that it offers, as far as ONNX Runtime lists them.
    pub devices: Vec<ProviderDevice>,
    /// The reason why it cannot be used, and a hint; `None` if it can.
    ///
    /// A missing device of a provider that is no plugin only shows when a session is opened, so a provider without an
    /// obstacle can still fail.
    pub obstacle: Option<(String, String)>,
}

/// Returns the status of every provider of [`PROVIDERS`] with this library, and of the other providers of registered plugin
/// libraries.
///
/// ONNX Runtime sets each of them up for a session that is never opened, which loads the libraries they need, and lists the
/// devices of those that can be used.
pub fn provider_statuses(runtime: &Runtime) -> Vec<ProviderStatus> {
    let mut statuses: Vec<_> = PROVIDERS.iter().map(|provider| of_table(provider, runtime)).collect();
    let others = plugin::offered(runtime).into_iter().filter(|name| find_provider(name).is_err());
    statuses.extend(others.filter_map(|name| of_plugin(name, runtime)));
    statuses
}

fn of_table(provider: &'static Provider, runtime: &Runtime) -> ProviderStatus {
    let located = locate(provider, runtime);
    let is_built_in = (provider.is_built_in)().unwrap_or(false);
    let place = match &located {
        Ok(Implementation::Plugin(_)) => Some(ProviderPlace::Plugin),
        _ if is_built_in => Some(ProviderPlace::Runtime),
        _ => None,
    };
    let usable = located.and_then(|implementation| {
        try_out(&implementation, runtime).map_err(|message| {
            let help = help(provider, &message);
            (format!("cannot be set up: {message}"), help)
        })
    });
    let libraries = library_files(provider, runtime);
    if is_built_in && usable.is_ok() {
        libraries.iter().for_each(|library| plugin::list_devices(library, runtime));
    }
    ProviderStatus {
        name: provider.name.to_owned(),
        aliases: provider.aliases,
        about: provider.about.to_owned(),
        place,
        libraries,
        devices: devices(provider.ort_name, runtime),
        obstacle: usable.err(),
    }
}

fn of_plugin(name: String, runtime: &Runtime) -> Option<ProviderStatus> {
    let plugin = plugin::find(&name, runtime)?;
    let tried = try_out(&Implementation::Plugin(plugin.clone()), runtime);
    let obstacle: Option<Obstacle> = tried.err().map(|message| (format!("cannot be set up: {message}"), String::new()));
    Some(ProviderStatus {
        aliases: &[],
        about: "a plugin provider".to_owned(),
        place: Some(ProviderPlace::Plugin),
        libraries: vec![plugin.library().to_path_buf()],
        devices: devices(&name, runtime),
        obstacle,
        name,
    })
}

fn devices(ort_name: &str, runtime: &Runtime) -> Vec<ProviderDevice> {
    runtime.devices().into_iter().filter(|device| device.provider == ort_name).collect()
}

fn try_out(implementation: &Implementation, runtime: &Runtime) -> Result<(), String> {
    let session = ort::session::Session::builder(runtime.environment());
    let registered = session.and_then(|builder| implementation.register(builder, runtime, &BTreeMap::new()));
    registered.map(drop).map_err(|e| error_message(&e))
}
