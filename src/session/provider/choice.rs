//! Requested providers, by name.

use std::collections::BTreeMap;

use super::table::{PROVIDERS, Provider};
use crate::error::{Error, Result};

/// A requested provider, with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderChoice {
    /// The name or an alias, such as `cuda` or `dml`, or ONNX Runtime's name of a provider of a registered library.
    pub name: String,
    /// Options under ONNX Runtime's own names, such as `device_id`, without the provider's name before them.
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
        help: format!("the providers are {known}; a plugin provider needs its library (--provider-library)"),
    })
}

/// Returns ONNX Runtime's name of a provider: that of a row of [`PROVIDERS`], or else the name itself, which is a plugin's.
pub(in crate::session) fn ort_name(name: &str) -> &str {
    find_provider(name).map_or(name, |provider| provider.ort_name)
}

/// Returns true if the options of a provider have it replay a run at fixed addresses.
pub(in crate::session) fn captures_runs(choice: &ProviderChoice) -> bool {
    let is_capture = |key: &str| {
        let key = key.to_ascii_lowercase();
        key.contains("graphcapture") || key.contains("cuda_graph")
    };
    choice.options.iter().any(|(key, value)| is_capture(key) && !["0", "false", "False"].contains(&value.as_str()))
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
