//! Plugin providers: libraries that are registered with ONNX Runtime's environment and offer providers on devices.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::AsPointer;
use ort::device::Device;
use ort::memory::DeviceType;
use ort::session::builder::SessionBuilder;

use super::register::ProviderOptions;
use super::requirement::Obstacle;
use crate::error::{Error, Result};
use crate::session::library::{Runtime, check_library, error_message};

/// A registered library.
#[derive(Debug, Clone)]
struct Plugin {
    path: PathBuf,
    registration: String,
    /// The addresses of ONNX Runtime's descriptions of its devices. They stay, as no library is ever unregistered.
    devices: Vec<usize>,
}

/// All libraries registered in this process, which has one environment.
static REGISTERED: Mutex<Vec<Plugin>> = Mutex::new(Vec::new());

/// The longest name that `SessionBuilder::with_devices` has room for.
const LONGEST_NAME: usize = 127;

/// A provider of a registered library.
#[derive(Debug, Clone)]
pub(super) struct PluginProvider {
    /// ONNX Runtime's name of the provider.
    name: String,
    library: PathBuf,
    devices: Vec<usize>,
}

impl PluginProvider {
    /// The library's file.
    pub(super) fn library(&self) -> &Path {
        &self.library
    }

    /// Registers the provider with a session's options, on the first of its devices that is not the CPU, or else on the
    /// CPU. Options are those of the provider, without a prefix.
    pub(super) fn register(
        &self,
        builder: SessionBuilder,
        runtime: &Runtime,
        options: &ProviderOptions,
    ) -> ort::Result<SessionBuilder> {
        let own = |device: &Device<'_>| self.devices.contains(&address(device));
        let devices: Vec<_> = runtime.environment().devices().filter(own).collect();
        let is_cpu = |device: &Device<'_>| device.hardware_device().ty() == DeviceType::CPU;
        let device = devices.into_iter().min_by_key(|device| is_cpu(device));
        let device = device.ok_or_else(|| ort::Error::new("its device is gone"))?;
        // Options without the provider's name before them are dropped.
        let prefixed: Vec<_> =
            options.iter().map(|(key, value)| (format!("{}.{key}", self.name), value.clone())).collect();
        Ok(builder.with_devices([device], Some(&prefixed))?)
    }
}

impl Runtime {
    /// Registers the library of a plugin provider with ONNX Runtime's environment, once for the process, and returns
    /// ONNX Runtime's names of the providers that it offers. Without a device for them here, there are none.
    ///
    /// # Errors
    /// [`Error::Runtime`] if the file is not a library for this machine, is no plugin provider, or refuses the version of
    /// ONNX Runtime.
    pub fn register_provider_library(&self, path: &Path) -> Result<Vec<String>> {
        register_library(path, self).map_err(|(problem, help)| Error::runtime(problem, help))
    }

    /// Returns the paths of the libraries of plugin providers that were registered in this process.
    pub fn provider_libraries(&self) -> Vec<PathBuf> {
        registered().iter().map(|plugin| plugin.path.clone()).collect()
    }
}

/// Registers a library, once for the process, and returns the names of the providers that it offers.
pub(super) fn register_library(path: &Path, runtime: &Runtime) -> std::result::Result<Vec<String>, Obstacle> {
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mut registered = registered();
    if let Some(known) = registered.iter().find(|plugin| plugin.path == *path) {
        return Ok(names(runtime, &known.devices));
    }
    check_library(path).map_err(|problem| {
        let help = "name the shared library of a plugin provider, such as libonnxruntime_providers_webgpu.so";
        (format!("the provider library {} {problem}", path.display()), help.to_owned())
    })?;
    let environment = runtime.environment();
    let before: BTreeSet<usize> = environment.devices().map(|device| address(&device)).collect();
    let registration = registration_name(path, &registered);
    environment.register_ep_library(&registration, path).map_err(|error| {
        let (path, version, reason) = (path.display(), runtime.version(), error_message(&error));
        let problem = format!("the provider library {path} cannot be registered with version {version}: {reason}");
        let help =
            "name a library of plugin providers, which exports CreateEpFactories, for this version of ONNX Runtime";
        (problem, help.to_owned())
    })?;
    let devices = environment.devices().map(|device| address(&device));
    let devices: Vec<_> = devices.filter(|address| !before.contains(address)).collect();
    let names = names(runtime, &devices);
    tracing::info!("{} is registered as {registration} and offers {names:?}", path.display());
    registered.push(Plugin { path: path.clone(), registration, devices });
    Ok(names)
}

/// Makes ONNX Runtime list the devices of a provider whose library is next to it, which it does for registered libraries
/// only. Sessions use the provider as before. One that has no such list is passed over.
pub(super) fn list_devices(library: &Path, runtime: &Runtime) {
    let registered = registered();
    if registered.iter().any(|plugin| plugin.path == library.canonicalize().unwrap_or_default()) {
        return;
    }
    let name = format!("devices of {}", registration_name(library, &[]));
    if let Err(error) = runtime.environment().register_ep_library(&name, library) {
        tracing::debug!("{} does not list its devices: {}", library.display(), error_message(&error));
    }
}

/// Returns the provider of this name in ONNX Runtime if a registered library offers it on a device.
pub(super) fn find(name: &str, runtime: &Runtime) -> Option<PluginProvider> {
    let of_name = |address: &usize| names(runtime, &[*address]).iter().any(|own| own == name);
    registered().iter().find_map(|plugin| {
        let devices: Vec<_> = plugin.devices.iter().copied().filter(of_name).collect();
        let (name, library) = (name.to_owned(), plugin.path.clone());
        (!devices.is_empty()).then_some(PluginProvider { name, library, devices })
    })
}

/// Returns ONNX Runtime's names of all providers that registered libraries offer, each once.
pub(super) fn offered(runtime: &Runtime) -> Vec<String> {
    let devices: Vec<_> = registered().iter().flat_map(|plugin| plugin.devices.clone()).collect();
    names(runtime, &devices)
}

fn registered() -> MutexGuard<'static, Vec<Plugin>> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(device: &Device<'_>) -> usize {
    device.ptr().addr()
}

/// Returns the names of the providers of devices, each once.
fn names(runtime: &Runtime, addresses: &[usize]) -> Vec<String> {
    let devices = runtime.environment().devices().filter(|device| addresses.contains(&address(device)));
    let names: BTreeSet<String> = devices.filter_map(|device| device.ep().ok().map(str::to_owned)).collect();
    names.into_iter().filter(|name| name.len() <= LONGEST_NAME).collect()
}

/// Returns the name under which a library is registered, which some libraries take for their provider's: the file's,
/// without what all such files' names begin with.
fn registration_name(path: &Path, registered: &[Plugin]) -> String {
    let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = stem.split('.').next().unwrap_or_default();
    let begins = [std::env::consts::DLL_PREFIX, "onnxruntime_", "providers_"];
    let name = begins.iter().fold(stem, |name, start| name.strip_prefix(start).unwrap_or(name));
    let name = if name.is_empty() { "plugin" } else { name };
    let is_free = |name: &String| registered.iter().all(|plugin| plugin.registration != *name);
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_registered_under_their_own_names() {
        let plugin = |registration: &str| Plugin {
            path: PathBuf::new(),
            registration: registration.into(),
            devices: Vec::new(),
        };
        let name = |stem: &str, taken: &[Plugin]| {
            registration_name(Path::new(&crate::session::library::library_file_name(stem)), taken)
        };
        assert_eq!(name("onnxruntime_ggml", &[]), "ggml");
        assert_eq!(name("onnxruntime_providers_webgpu", &[]), "webgpu");
        assert_eq!(name("my_provider", &[]), "my_provider");
        assert_eq!(name("onnxruntime_ggml", &[plugin("ggml"), plugin("ggml-2")]), "ggml-3");
        assert_eq!(name("onnxruntime_", &[]), "plugin");
    }
}
