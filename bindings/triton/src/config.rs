//! The configuration of a model.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fault::{Answer, Fault};
use crate::library::c_text;
use crate::names::{INPUTS, Input, OUTPUTS, Output};

const PARAMETERS: [&str; 7] = ["pipeline", "settings", "engine", "format", "quality", "join", "allow_paths"];

/// A declared output, with its number of dimensions without that of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeclaredOutput {
    pub output: Output,
    pub rank: usize,
}

/// A model's configuration, as the backend uses it.
#[derive(Debug, PartialEq)]
pub(crate) struct ModelConfig {
    /// The pipeline file or model directory, if it is named.
    pub pipeline: Option<String>,
    /// JSON settings over those of the pipeline's file.
    pub settings: Option<String>,
    /// JSON settings of the engine.
    pub engine: Option<String>,
    /// The format of `ENCODED`.
    pub format: CString,
    pub quality: i32,
    /// True if rows whose seeds follow one another share a run.
    pub joins: bool,
    /// True if a request may name files of the server.
    pub allows_paths: bool,
    pub is_decoupled: bool,
    /// True if the first dimension of inputs and outputs is the batch.
    pub is_batched: bool,
    pub outputs: Vec<DeclaredOutput>,
}

impl ModelConfig {
    /// Reads a configuration as Triton gives it.
    pub(crate) fn read(config: &Value) -> Answer<Self> {
        if let Some(unknown) = parameters(config).find(|name| !PARAMETERS.contains(name)) {
            let valid = PARAMETERS.join(", ");
            return Err(Fault::invalid(format!("parameters.{unknown}: unknown parameter; expected one of {valid}")));
        }
        let is_decoupled = config["model_transaction_policy"]["decoupled"].as_bool().unwrap_or(false);
        let is_batched = config["max_batch_size"].as_i64().unwrap_or(0) > 0;
        if is_decoupled && is_batched {
            return Err(Fault::invalid(
                "max_batch_size: expected 0, since a decoupled model answers each request by itself",
            ));
        }
        check_inputs(config, is_decoupled)?;
        Ok(Self {
            pipeline: parameter(config, "pipeline")?,
            settings: parameter(config, "settings")?,
            engine: parameter(config, "engine")?,
            format: c_text("parameters.format", format(config)?)?,
            quality: quality(config)?,
            joins: flag(config, "join")?,
            allows_paths: flag(config, "allow_paths")?,
            is_decoupled,
            is_batched,
            outputs: outputs(config, is_decoupled)?,
        })
    }

    /// Returns the path of the pipeline: what the configuration names, relative to the version's folder, else
    /// `pipeline.toml` in that folder, else the folder as a model directory.
    pub(crate) fn pipeline_path(&self, version: &Path) -> Answer<PathBuf> {
        if let Some(pipeline) = &self.pipeline {
            return Ok(version.join(pipeline));
        }
        let file = version.join("pipeline.toml");
        match (file.is_file(), version.join("model_index.json").is_file()) {
            (true, _) => Ok(file),
            (false, true) => Ok(version.to_owned()),
            (false, false) => Err(Fault::invalid(format!(
                "{}: expected pipeline.toml or a model directory\nhint: name it with the parameter `pipeline`",
                version.display()
            ))),
        }
    }

    /// Returns the settings of an instance: `${device_id}` is the number of its GPU.
    pub(crate) fn instance_settings(&self, device_id: i32) -> Option<String> {
        let settings = self.settings.as_ref()?;
        let id = device_id.to_string();
        Some(settings.replace("\"${device_id}\"", &id).replace("${device_id}", &id))
    }
}

fn parameters(config: &Value) -> impl Iterator<Item = &str> {
    config["parameters"].as_object().into_iter().flatten().map(|(name, _)| name.as_str())
}

fn parameter(config: &Value, name: &str) -> Answer<Option<String>> {
    match &config["parameters"][name] {
        Value::Null => Ok(None),
        value => match value["string_value"].as_str() {
            Some(text) => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
            None => Err(Fault::invalid(format!("parameters.{name}: expected a string_value"))),
        },
    }
}

fn flag(config: &Value, name: &str) -> Answer<bool> {
    match parameter(config, name)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            Err(Fault::invalid(format!("parameters.{name}: expected \"true\" or \"false\", found {other:?}")))
        }
    }
}

fn format(config: &Value) -> Answer<String> {
    let format = parameter(config, "format")?.unwrap_or_else(|| "png".to_owned());
    if ["png", "jpeg", "webp"].contains(&format.as_str()) {
        return Ok(format);
    }
    Err(Fault::invalid(format!("parameters.format: expected \"png\", \"jpeg\" or \"webp\", found {format:?}")))
}

/// The quality of JPEG, which other formats do not have; 0 for the library's.
fn quality(config: &Value) -> Answer<i32> {
    let Some(text) = parameter(config, "quality")? else { return Ok(0) };
    match text.parse() {
        Ok(quality @ 1..=100) if format(config)? == "jpeg" => Ok(quality),
        Ok(1..=100) => Err(Fault::invalid("parameters.quality: has no effect without the format \"jpeg\"")),
        _ => Err(Fault::invalid(format!("parameters.quality: expected 1 to 100, found {text:?}"))),
    }
}

fn check_inputs(config: &Value, is_decoupled: bool) -> Answer<()> {
    for declared in config["input"].as_array().into_iter().flatten() {
        let (name, data_type) = (text_of(&declared["name"]), data_type(declared));
        let Some(input) = Input::find(name).filter(|input| is_decoupled || !input.is_decoupled) else {
            let valid: Vec<_> =
                INPUTS.iter().filter(|input| is_decoupled || !input.is_decoupled).map(|input| input.name).collect();
            return Err(Fault::input(name, format!("unknown input; expected one of {}", valid.join(", "))));
        };
        if !input.types().contains(&data_type) {
            let valid: Vec<_> = input.types().iter().map(|valid| format!("TYPE_{valid}")).collect();
            return Err(Fault::input(name, format!("expected {}, found TYPE_{data_type}", valid.join(" or "))));
        }
    }
    Ok(())
}

fn outputs(config: &Value, is_decoupled: bool) -> Answer<Vec<DeclaredOutput>> {
    let declared = config["output"].as_array().into_iter().flatten().map(|declared| {
        let (name, data_type) = (text_of(&declared["name"]), data_type(declared));
        let Some(output) = Output::find(name).filter(|output| is_decoupled || !output.is_decoupled()) else {
            let valid = OUTPUTS.iter().filter(|output| is_decoupled || !output.is_decoupled());
            let valid: Vec<_> = valid.map(|output| output.name().to_string_lossy()).collect();
            return Err(Fault::invalid(format!("output {name}: unknown output; expected one of {}", valid.join(", "))));
        };
        let rank = declared["dims"].as_array().map_or(0, Vec::len);
        let expected = output.data_type();
        if data_type != expected {
            return Err(Fault::invalid(format!("output {name}: expected TYPE_{expected}, found TYPE_{data_type}")));
        }
        if output == Output::Image && !(3..=4).contains(&rank) {
            return Err(Fault::invalid(format!(
                "output {name}: expected dims [-1, -1, 3] or [-1, -1, -1, 3], found {rank} dims"
            )));
        }
        Ok(DeclaredOutput { output, rank })
    });
    declared.collect()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn data_type(declared: &Value) -> &str {
    text_of(&declared["data_type"]).trim_start_matches("TYPE_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::completion::complete;
    use crate::fault::Code;

    fn completed(mut config: Value) -> Answer<ModelConfig> {
        complete(&mut config);
        ModelConfig::read(&config)
    }

    fn with_parameter(name: &str, value: &str) -> Answer<ModelConfig> {
        completed(json!({"parameters": {name: {"string_value": value}}}))
    }

    /// A completed configuration can be read, with and without batches and decoupled.
    #[test]
    fn reads_completed_configurations() {
        let config = completed(json!({})).expect("a configuration");
        assert_eq!(config.format.as_c_str(), c"png");
        assert_eq!(config.outputs.len(), 4);
        assert!(!config.joins && !config.allows_paths && !config.is_batched && !config.is_decoupled);
        assert!(completed(json!({"max_batch_size": 4})).is_ok_and(|config| config.is_batched));
        let decoupled = json!({"model_transaction_policy": {"decoupled": true}});
        assert!(completed(decoupled).is_ok_and(|config| config.outputs.len() == 5));
    }

    #[test]
    fn reads_parameters() {
        assert!(with_parameter("join", "true").is_ok_and(|config| config.joins));
        assert!(with_parameter("format", "webp").is_ok_and(|config| config.format.as_c_str() == c"webp"));
        let settings = with_parameter("settings", r#"{"device": {"cuda": {"device_id": "${device_id}"}}}"#);
        let settings = settings.ok().and_then(|config| config.instance_settings(3));
        assert_eq!(settings.as_deref(), Some(r#"{"device": {"cuda": {"device_id": 3}}}"#));
    }

    /// Each mistake is an invalid argument that names its place.
    #[test]
    fn refuses_mistakes() {
        let cases = [
            (with_parameter("pipline", "x"), "parameters.pipline"),
            (with_parameter("join", "yes"), "parameters.join"),
            (with_parameter("format", "gif"), "parameters.format"),
            (with_parameter("quality", "90"), "parameters.quality"),
            (with_parameter("quality", "0"), "parameters.quality"),
            (completed(json!({"parameters": {"settings": 3}})), "parameters.settings"),
            (completed(json!({"input": [{"name": "PROMT", "data_type": "TYPE_STRING"}]})), "input PROMT"),
            (completed(json!({"input": [{"name": "PREVIEW", "data_type": "TYPE_INT32"}]})), "input PREVIEW"),
            (completed(json!({"input": [{"name": "STEPS", "data_type": "TYPE_FP32"}]})), "input STEPS"),
            (completed(json!({"output": [{"name": "IMG", "data_type": "TYPE_UINT8"}]})), "output IMG"),
            (completed(json!({"output": [{"name": "IMAGE", "data_type": "TYPE_FP32"}]})), "output IMAGE"),
            (completed(json!({"output": [{"name": "IMAGE", "data_type": "TYPE_UINT8", "dims": [1]}]})), "output IMAGE"),
            (
                completed(json!({"max_batch_size": 2, "model_transaction_policy": {"decoupled": true}})),
                "max_batch_size",
            ),
        ];
        for (answer, place) in cases {
            let fault = answer.expect_err(place);
            assert_eq!(fault.code, Code::InvalidArgument);
            assert!(fault.message.contains(place), "{place}: {}", fault.message);
        }
    }
}
