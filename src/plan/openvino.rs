//! OpenVINO's own settings, which ONNX Runtime passes on as JSON in its option `load_config`.

use serde_json::{Map, Value, json};

use crate::spec::Options;

/// The provider's name.
pub(super) const PROVIDER: &str = "openvino";

const LOAD_CONFIG: &str = "load_config";
const DEVICE_TYPE: &str = "device_type";
const CPU: &str = "CPU";
const PRECISION_HINT: &str = "INFERENCE_PRECISION_HINT";

/// Adds OpenVINO's setting for bf16 on CPUs to a provider's options. The error is the key that contradicts it, and a sentence.
pub(super) fn with_bf16(mut options: Options) -> Result<Options, (&'static str, String)> {
    if let Some(device) = options.get(DEVICE_TYPE).filter(|device| *device != CPU) {
        return Err((DEVICE_TYPE, format!("device.precision needs device_type = \"CPU\", found {device:?}")));
    }
    let written = options.get(LOAD_CONFIG).map_or("{}", String::as_str);
    let parsed: Result<Map<String, Value>, _> = serde_json::from_str(written);
    let mut config =
        parsed.map_err(|error| (LOAD_CONFIG, format!("expected a JSON object of settings by device: {error}")))?;
    let cpu = config.entry(CPU).or_insert_with(|| json!({}));
    let Some(cpu) = cpu.as_object_mut() else {
        return Err((LOAD_CONFIG, format!("{CPU}: expected an object of settings, found {cpu}")));
    };
    if let Some(hint) = cpu.get(PRECISION_HINT) {
        return Err((LOAD_CONFIG, format!("{PRECISION_HINT} = {hint} conflicts with device.precision")));
    }
    cpu.insert(PRECISION_HINT.to_owned(), "bf16".into());
    options.insert(LOAD_CONFIG.to_owned(), Value::Object(config).to_string());
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn bf16_is_one_setting_more() {
        let config = |written| with_bf16(options(written)).map(|options| options[LOAD_CONFIG].clone());
        assert_eq!(config(&[]).unwrap(), r#"{"CPU":{"INFERENCE_PRECISION_HINT":"bf16"}}"#);
        let written = r#"{"CPU": {"NUM_STREAMS": "1"}}"#;
        let expected = r#"{"CPU":{"INFERENCE_PRECISION_HINT":"bf16","NUM_STREAMS":"1"}}"#;
        assert_eq!(config(&[(DEVICE_TYPE, CPU), (LOAD_CONFIG, written)]).unwrap(), expected);
    }

    #[test]
    fn what_contradicts_bf16_is_named() {
        for (key, value, words) in [
            (DEVICE_TYPE, "GPU", "found \"GPU\""),
            (LOAD_CONFIG, r#"{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}"#, "= \"f32\" conflicts"),
            (LOAD_CONFIG, r#"{"CPU": 1}"#, "found 1"),
            (LOAD_CONFIG, "config.json", "expected a JSON object"),
        ] {
            let (named, problem) = with_bf16(options(&[(key, value)])).unwrap_err();
            assert!(named == key && problem.contains(words), "{named}: {problem}");
        }
    }
}
