//! The settings of engines and of pipelines as JSON, for programs in other languages.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Engine, EngineBuilder, model_spec};
use crate::error::{Error, Result};
use crate::graph_cache::SizeLimit;
use crate::spec::{Overrides, Spec};

/// The settings of an engine. What is absent comes from the environment.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct EngineSettings {
    runtime: Option<String>,
    offline: Option<bool>,
    index_url: Option<String>,
    cache_dir: Option<String>,
    graph_cache: Option<bool>,
    graph_cache_size: Option<String>,
    host_threads: Option<bool>,
}

/// Keys of `[device]` that stand at the top of the settings, as the flat fields of a request do.
const DEVICE_FIELDS: [&str; 14] = [
    "provider",
    "provider_library",
    "threads",
    "batching",
    "denoising_loop",
    "optimize",
    "precision",
    "fast_convolutions",
    "exact",
    "offload",
    "free_activations",
    "memory_budget",
    "overcommit",
    "verify",
];

impl EngineBuilder {
    /// Starts with the settings of the process's environment and those of a JSON object over them: `runtime` (the path of
    /// ONNX Runtime's library), `offline`, `index_url`, `cache_dir`, `graph_cache` (false opens graphs as stored),
    /// `graph_cache_size` (such as `"20 GB"`, or `"unlimited"`) and `host_threads`.
    ///
    /// # Errors
    /// [`Error::Input`] if the text is not such an object.
    pub fn from_json(text: &str) -> Result<Self> {
        let invalid = |problem: String| {
            Error::input("engine settings", problem, "write a JSON object such as {\"offline\": true}")
        };
        let settings: EngineSettings = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let mut builder = Engine::builder();
        if let Some(path) = settings.runtime {
            builder = builder.runtime_path(path);
        }
        if let Some(is_offline) = settings.offline {
            builder = builder.offline(is_offline);
        }
        if let Some(has_host_threads) = settings.host_threads {
            builder = builder.host_threads(has_host_threads);
        }
        if let Some(url) = settings.index_url {
            builder = builder.index_url(url);
        }
        if let Some(dir) = settings.cache_dir {
            builder = builder.cache_dir(dir);
        }
        if let Some(has_graph_cache) = settings.graph_cache {
            builder = builder.graph_cache(has_graph_cache);
        }
        if let Some(size) = settings.graph_cache_size {
            let limit = SizeLimit::parse(&size);
            let expected =
                format!("graph_cache_size: expected a size such as \"20 GB\", or \"unlimited\", found {size:?}");
            builder = builder.graph_cache_limit(limit.ok_or_else(|| invalid(expected))?);
        }
        Ok(builder)
    }
}

impl Overrides {
    /// Reads settings over those of a pipeline file from a JSON object: its tables (`{"device": {"threads": 2}}`), or keys
    /// of `[device]` by themselves (`{"provider": "cpu", "threads": 2}`). Values are checked when a pipeline is opened.
    ///
    /// # Errors
    /// [`Error::Input`] if the text is not a JSON object or holds `null`.
    pub fn from_json(text: &str) -> Result<Self> {
        let invalid = |problem: String| {
            Error::input("pipeline settings", problem, "write a JSON object such as {\"provider\": \"cpu\"}")
        };
        let value: Value = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let Value::Object(fields) = value else { return Err(invalid("expected a JSON object".to_owned())) };
        let mut set = Vec::new();
        for (name, value) in &fields {
            let path = if DEVICE_FIELDS.contains(&name.as_str()) { format!("device.{name}") } else { quoted(name) };
            flatten(&path, value, &mut set).map_err(invalid)?;
        }
        Ok(Self { set, ..Self::default() })
    }
}

/// Writes a tree as assignments of its leaves.
fn flatten(path: &str, value: &Value, set: &mut Vec<String>) -> std::result::Result<(), String> {
    match value {
        Value::Null => return Err(format!("{path}: null is not a value; leave the key out")),
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&format!("{path}.{}", quoted(name)), value, set)?;
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&format!("{path}.{at}"), item, set)?;
            }
        }
        leaf => {
            let leaf = toml::Value::try_from(leaf).map_err(|error| format!("{path}: {error}"))?;
            set.push(format!("{path}={leaf}"));
        }
    }
    Ok(())
}

/// A key of TOML, in quotes where it needs them.
fn quoted(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => toml::Value::String(name.to_owned()).to_string(),
    }
}

/// Reads the pipeline at a path, which is a pipeline file or a model directory, with settings over it.
///
/// # Errors
/// As [`Spec::load`] and [`model_spec`].
pub fn pipeline_spec(path: &Path, overrides: &Overrides) -> Result<Spec> {
    if path.is_dir() { model_spec(path, overrides) } else { Spec::load(path, overrides) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_assignments() {
        let text = r#"{"provider": ["cuda", "cpu"], "threads": 2, "device": {"cuda": {"device_id": 1}},
            "stage": [{"run": {"steps": 5}}], "model": {"path": "a \"b\""}, "run": {"sigmas": [1.5, 0.0]}}"#;
        let mut set = Overrides::from_json(text).unwrap().set;
        set.sort();
        let expected = [
            "device.cuda.device_id=1",
            "device.provider=[\"cuda\", \"cpu\"]",
            "device.threads=2",
            "model.path='a \"b\"'",
            "run.sigmas=[1.5, 0.0]",
            "stage.0.run.steps=5",
        ];
        assert_eq!(set, expected);
        for wrong in ["", "[]", "{\"threads\": null}"] {
            assert!(Overrides::from_json(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn engine_settings_name_what_they_do_not_know() {
        let text = r#"{"runtime": "/x.so", "offline": true, "graph_cache": false, "graph_cache_size": "2 GB"}"#;
        assert!(EngineBuilder::from_json(text).is_ok());
        for (wrong, says) in [
            ("{\"ofline\": true}", "ofline"),
            ("{\"graph_cache_size\": \"big\"}", "big"),
            ("{\"offline\": \"yes\"}", "yes"),
            ("[1]", "integer"),
        ] {
            let error = EngineBuilder::from_json(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
