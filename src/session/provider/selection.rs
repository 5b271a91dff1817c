//! Selects the providers of a session.

use ort::device::Device;
use ort::session::builder::SessionBuilder;

use super::choice::{ProviderChoice, find_provider, ort_name};
use super::locate::{Implementation, help, locate};
use super::plugin;
use super::table::Provider;
use crate::error::{Error, Result};
use crate::session::library::{self, Runtime, error_message};

/// ONNX Runtime's name of the CPU provider.
pub(in crate::session) const CPU: &str = "CPUExecutionProvider";

/// Returns the error for a provider that cannot be used, with ONNX Runtime's message and, if it logged an error of this thread
/// since the provider was registered, with that: OpenVINO's reasons are nowhere else.
pub(in crate::session) fn unusable(choice: &ProviderChoice, message: &str) -> Error {
    let logged = library::take_error().filter(|logged| !message.contains(logged.as_str()));
    let message = &logged.map_or_else(|| message.to_owned(), |logged| format!("{message}: {logged}"));
    let (provider, mut help) = match find_provider(&choice.name) {
        Ok(provider) => (provider.name.to_owned(), help(provider, message)),
        Err(_) => (choice.name.clone(), String::new()),
    };
    if !choice.options.is_empty() {
        let or = if help.is_empty() { String::new() } else { format!(", or {help}") };
        help = format!("check its options{or}");
    }
    Error::Provider { provider, problem: format!("cannot be set up: {message}"), help }
}

/// Registers `choices` with a session's options, in their order.
pub(in crate::session) fn select(
    mut builder: SessionBuilder,
    runtime: &Runtime,
    choices: &[ProviderChoice],
) -> Result<SessionBuilder> {
    for (i, choice) in choices.iter().enumerate() {
        let known = find_provider(&choice.name);
        let name = known.as_ref().map_or(choice.name.as_str(), |provider| provider.name);
        let error = |problem: String, help: String| Error::Provider { provider: name.into(), problem, help };
        if let Some(nul) = choice.options.iter().find(|(key, value)| key.contains('\0') || value.contains('\0')) {
            return Err(error(format!("option {:?} contains a NUL character", nul.0), String::new()));
        }
        if name == "cpu" {
            if let Some(next) = choices.get(i + 1) {
                return Err(error(
                    format!("comes before {} in the list and would leave it no nodes", next.name),
                    "put cpu last, or leave the others out".into(),
                ));
            }
            if let Some(key) = choice.options.keys().next() {
                return Err(error(
                    format!("takes no option {key}"),
                    "the number of threads is `[device] threads`".into(),
                ));
            }
            continue;
        }
        let implementation = match known {
            Ok(provider) => {
                check_options(provider, choice)?;
                locate(provider, runtime).map_err(|(problem, help)| error(problem, help))?
            }
            Err(unknown) => Implementation::Plugin(plugin::find(name, runtime).ok_or_else(|| {
                let offered = plugin::offered(runtime);
                match offered.is_empty() {
                    true => unknown,
                    false => error(
                        "no registered provider library offers it on this machine".into(),
                        format!("the libraries offer {}", offered.join(", ")),
                    ),
                }
            })?),
        };
        library::forget_error();
        builder = implementation
            .register(builder, runtime, &choice.options)
            .map_err(|e| unusable(choice, &error_message(&e)))?;
    }
    if choices.iter().any(|choice| ort_name(&choice.name) != CPU) {
        return Ok(builder);
    }
    on_cpu(builder, runtime).map_err(|e| unusable(&ProviderChoice::new("cpu"), &error_message(&e)))
}

/// Registers the CPU provider if the environment has others.
///
/// For a session without a registered provider, ort lets ONNX Runtime choose one: it takes a plugin for the CPU or an NPU,
/// and the graph would silently run there.
pub(in crate::session) fn on_cpu(builder: SessionBuilder, runtime: &Runtime) -> ort::Result<SessionBuilder> {
    let is_cpu = |device: &Device<'_>| device.ep().is_ok_and(|name| name == CPU);
    let (own, others): (Vec<_>, Vec<_>) = runtime.environment().devices().partition(is_cpu);
    match own.into_iter().next() {
        Some(device) if !others.is_empty() => Ok(builder.with_devices([device], None)?),
        _ => Ok(builder),
    }
}

/// Requires that a provider that ignores unknown options knows all of them.
fn check_options(provider: &Provider, choice: &ProviderChoice) -> Result<()> {
    let unknown = choice.options.keys().find(|key| provider.ignores(key));
    unknown.map_or(Ok(()), |key| {
        Err(Error::Provider {
            provider: provider.name.to_owned(),
            problem: format!("has no option {key}"),
            help: format!("its options are {}", provider.options.join(", ")),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_would_be_ignored_is_refused_by_name() {
        let mut choice = ProviderChoice::new("webgpu");
        let webgpu = find_provider("webgpu").unwrap();
        choice.options.insert("preferredLayout".into(), "NHWC".into());
        check_options(webgpu, &choice).unwrap();
        choice.options.insert("prefered_layout".into(), "NHWC".into());
        let error = check_options(webgpu, &choice).unwrap_err().to_string();
        assert!(
            error.contains("webgpu: has no option prefered_layout") && error.contains("preferredLayout"),
            "{error}"
        );
        // CUDA refuses unknown options itself.
        check_options(find_provider("cuda").unwrap(), &choice).unwrap();
    }

    #[test]
    fn an_error_of_options_says_to_check_them() {
        let mut choice = ProviderChoice::new("cuda");
        let error = unusable(&choice, "libcuda.so.1: cannot open shared object file").to_string();
        assert!(error.contains("hint: install NVIDIA's driver"), "{error}");
        choice.options.insert("device_id".into(), "7".into());
        let error = unusable(&choice, "Invalid device ID: 7").to_string();
        assert!(error.contains("hint: check its options, or get `ldm-ort runtime install cuda`"), "{error}");
    }
}
