//! Execution providers: the backends on which ONNX Runtime runs a graph.

mod register;
mod status;
mod table;

use std::collections::BTreeMap;

use ort::session::builder::SessionBuilder;

use super::library::{Runtime, error_message};
use crate::error::{Error, Result};

pub use status::{ProviderStatus, provider_statuses};
pub use table::{PROVIDERS, Provider};

/// A requested provider, with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderChoice {
    /// The name or an alias: `cuda`, `dml`.
    pub name: String,
    /// Options under ONNX Runtime's own names, such as `device_id`.
    pub options: BTreeMap<String, String>,
}

impl ProviderChoice {
    /// Requests a provider with its default options.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), options: BTreeMap::new() }
    }
}

/// Finds a provider by its name or an alias, ignoring case.
///
/// # Errors
/// [`Error::Provider`] for an unknown name, with the nearest known one and all names.
pub fn find_provider(name: &str) -> Result<&'static Provider> {
    let is = |known: &str| known.eq_ignore_ascii_case(name);
    if let Some(provider) = PROVIDERS.iter().find(|p| is(p.name) || is(p.ort_name) || p.aliases.iter().any(|a| is(a))) {
        return Ok(provider);
    }
    let lower = name.to_ascii_lowercase();
    let nearest = PROVIDERS
        .iter()
        .flat_map(|p| std::iter::once(p.name).chain(p.aliases.iter().copied()).map(move |known| (p.name, known)))
        .map(|(name, known)| (strsim::jaro_winkler(known, &lower), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.75);
    let known = PROVIDERS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    Err(Error::Provider {
        provider: name.to_string(),
        problem: match nearest {
            Some((_, nearest)) => format!("unknown provider; did you mean {nearest}?"),
            None => "unknown provider".to_string(),
        },
        help: format!("the providers are {known}"),
    })
}

/// Returns the error for a known provider that cannot be used, with ONNX Runtime's message.
pub(super) fn unusable(choice: &ProviderChoice, problem: &str) -> Error {
    let (provider, obtain) = match find_provider(&choice.name) {
        Ok(provider) => (provider.name.to_owned(), provider.obtain),
        Err(error) => return error,
    };
    let help = match choice.options.is_empty() {
        true => format!("get {obtain}"),
        false => format!("check its options, or install {obtain}"),
    };
    Error::Provider { provider, problem: format!("cannot be set up: {problem}"), help }
}

/// Registers `choices` with a session's options, in their order.
pub(super) fn register(builder: &mut SessionBuilder, runtime: &Runtime, choices: &[ProviderChoice]) -> Result<()> {
    for (i, choice) in choices.iter().enumerate() {
        let provider = find_provider(&choice.name)?;
        let error = |problem: String, help: String| Error::Provider { provider: provider.name.into(), problem, help };
        if let Some(nul) = choice.options.iter().find(|(key, value)| key.contains('\0') || value.contains('\0')) {
            return Err(error(format!("option {:?} contains a NUL character", nul.0), String::new()));
        }
        if provider.name == "cpu" {
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
        status::obstacle(provider, runtime).map_err(|(problem, help)| error(problem, help))?;
        (provider.register)(builder, &choice.options).map_err(|e| unusable(choice, &error_message(&e)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_name_alias_and_ort_name() {
        for (name, expected) in [
            ("cuda", "cuda"),
            ("CUDA", "cuda"),
            ("dml", "directml"),
            ("CPUExecutionProvider", "cpu"),
            ("trt", "tensorrt"),
        ] {
            assert_eq!(find_provider(name).unwrap().name, expected);
        }
    }

    #[test]
    fn an_unknown_name_is_told_its_nearest() {
        let error = find_provider("cdua").unwrap_err().to_string();
        assert!(error.contains("did you mean cuda?") && error.contains("openvino"), "{error}");
        let error = find_provider("abacus").unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn no_two_providers_share_a_name() {
        let mut names: Vec<_> = PROVIDERS.iter().flat_map(|p| std::iter::once(&p.name).chain(p.aliases)).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
