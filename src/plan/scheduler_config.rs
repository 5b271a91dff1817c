//! A model's scheduler configuration, as the pipeline class of the task leaves it.

use serde_json::Value;

use crate::bundle::SchedulerFile;
use crate::family::{ConfigValue, Correction, PipelineClass, Wrong};
use crate::scheduler::{self, Config, SchedulerEntry, SchedulerKeyKind};

/// A model's scheduler_config.json together with the pipeline class that corrects it.
#[derive(Clone, Default)]
pub(super) struct ModelScheduler {
    /// The file's keys, `[model] prediction_type` over them.
    config: Config,
    /// The scheduler class that the pipeline builds from the file, if it is known.
    class: Option<&'static SchedulerEntry>,
    /// The class that corrects the configuration, if diffusers has one for the task.
    pipeline: Option<&'static PipelineClass>,
}

/// A value of the scheduler's configuration that a pipeline class corrects.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedCorrection {
    /// The key.
    pub key: &'static str,
    /// The value that the run uses.
    pub value: Value,
    /// The value of scheduler_config.json; `None` if it lacks the key.
    pub found: Option<Value>,
    /// The pipeline class, such as `StableDiffusionPipeline`.
    pub class: &'static str,
}

impl std::fmt::Display for AppliedCorrection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value, found, class } = self;
        write!(f, "{key} = {value}, which {class} sets (scheduler_config.json ")?;
        match found {
            Some(found) => write!(f, "has {found})"),
            None => f.write_str("lacks it)"),
        }
    }
}

impl ModelScheduler {
    /// Joins a file with the pipeline class of the task.
    pub(super) fn new(
        file: Option<&SchedulerFile>,
        prediction_type: Option<&str>,
        pipeline: Option<&'static PipelineClass>,
    ) -> Self {
        let mut config = file.map(|file| file.config.clone()).unwrap_or_default();
        // Keys that are listed there have values that nobody chose: diffusers takes them as missing.
        if let Some(Value::Array(unset)) = config.remove("_use_default_values") {
            unset.iter().filter_map(Value::as_str).for_each(|key| drop(config.remove(key)));
        }
        if let Some(prediction) = prediction_type {
            config.insert("prediction_type".to_owned(), prediction.into());
        }
        let converted = file.and(pipeline).and_then(|class| class.scheduler);
        let class = converted.or_else(|| file?.class.as_deref()).and_then(scheduler::find);
        Self { config, class, pipeline }
    }

    /// The configuration from which a scheduler of class `entry` is built, and the corrections in it.
    ///
    /// The model's own class is built first and corrected afterwards, so that a missing key whose default is wrong is
    /// corrected too. Another class is `X.from_config(pipe.scheduler.config)`, which carries the keys of the file, the
    /// corrected ones among them, and no others.
    pub(super) fn for_class(&self, entry: &'static SchedulerEntry) -> (Config, Vec<AppliedCorrection>) {
        let mut config = self.config.clone();
        let mut applied = Vec::new();
        let is_own = self.class.is_some_and(|own| own.name == entry.name);
        for (class, correction) in self.corrections() {
            let found = self.config.get(correction.key).cloned();
            let is_corrected = match &found {
                Some(value) => is_wrong(correction, value),
                None => is_own && default_of(entry, correction.key).is_some_and(|value| is_wrong(correction, &value)),
            };
            if is_corrected {
                let value = json(correction.value);
                config.insert(correction.key.to_owned(), value.clone());
                applied.push(AppliedCorrection { key: correction.key, value, found, class: class.name });
            }
        }
        applied.retain(|correction| entry.has_key(correction.key));
        (config, applied)
    }

    fn corrections(&self) -> impl Iterator<Item = (&'static PipelineClass, &'static Correction)> {
        self.pipeline.into_iter().flat_map(|class| class.corrections.iter().map(move |correction| (class, correction)))
    }
}

fn json(value: ConfigValue) -> Value {
    match value {
        ConfigValue::Integer(n) => n.into(),
        ConfigValue::Switch(is_on) => is_on.into(),
    }
}

/// True if the pipeline's constructor replaces this value: its comparisons are Python's, where 1, 1.0 and `True` are equal.
fn is_wrong(correction: &Correction, value: &Value) -> bool {
    match correction.wrong {
        Wrong::Switch(wrong) => *value == Value::Bool(wrong),
        Wrong::AnyOther => {
            let number = |value: &Value| value.as_f64().or_else(|| value.as_bool().map(f64::from));
            number(value) != number(&json(correction.value))
        }
    }
}

/// The default of a scheduler class's key; `None` if it has none, or no such key.
fn default_of(entry: &SchedulerEntry, key: &str) -> Option<Value> {
    match entry.keys.iter().find(|known| known.name == key)?.kind {
        SchedulerKeyKind::Integer(default) => Some(default.into()),
        SchedulerKeyKind::Switch(default) => Some(default.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family;

    fn model(class: &str, config: Value, pipeline: &str) -> ModelScheduler {
        let config = config.as_object().cloned().unwrap_or_default();
        let file = SchedulerFile { path: "scheduler_config.json".into(), class: Some(class.to_owned()), config };
        ModelScheduler::new(Some(&file), None, family::find(pipeline).map(|(_, class)| class))
    }

    /// One row a rule: the file's class and keys, the pipeline class, the class built, and the value of a key.
    #[test]
    fn a_key_is_corrected_as_the_pipeline_class_corrects_it() {
        use serde_json::json;
        let sd = "StableDiffusionPipeline";
        let inpaint = "StableDiffusionInpaintPipeline";
        let rows = [
            // The model's own class: missing and wrong.
            ("DDIMScheduler", json!({}), sd, "ddim", "steps_offset", Some(json!(1))),
            ("DDIMScheduler", json!({}), sd, "ddim", "clip_sample", Some(json!(false))),
            ("DDIMScheduler", json!({"steps_offset": 0}), sd, "ddim", "steps_offset", Some(json!(1))),
            ("DDIMScheduler", json!({"steps_offset": 2}), sd, "ddim", "steps_offset", Some(json!(1))),
            ("DDIMScheduler", json!({"steps_offset": null}), sd, "ddim", "steps_offset", Some(json!(1))),
            ("DDIMScheduler", json!({"steps_offset": 1.0}), sd, "ddim", "steps_offset", Some(json!(1.0))),
            ("DDIMScheduler", json!({"clip_sample": true}), sd, "ddim", "clip_sample", Some(json!(false))),
            ("DDIMScheduler", json!({"clip_sample": null}), sd, "ddim", "clip_sample", Some(json!(null))),
            ("HeunDiscreteScheduler", json!({}), sd, "heun", "clip_sample", None),
            ("PNDMScheduler", json!({}), sd, "pndm", "skip_prk_steps", None),
            ("PNDMScheduler", json!({}), inpaint, "pndm", "skip_prk_steps", Some(json!(true))),
            ("PNDMScheduler", json!({"skip_prk_steps": false}), inpaint, "pndm", "skip_prk_steps", Some(json!(true))),
            ("DDIMScheduler", json!({"clip_sample": true}), inpaint, "ddim", "clip_sample", Some(json!(true))),
            (
                "DDIMScheduler",
                json!({}),
                "OnnxStableDiffusionInpaintPipeline",
                "ddim",
                "clip_sample",
                Some(json!(false)),
            ),
            // Another class: what is wrong is carried corrected, what is missing is not carried.
            ("PNDMScheduler", json!({"steps_offset": 0}), sd, "ddim", "steps_offset", Some(json!(1))),
            ("PNDMScheduler", json!({"clip_sample": true}), sd, "ddim", "clip_sample", Some(json!(false))),
            ("PNDMScheduler", json!({}), sd, "ddim", "steps_offset", None),
            ("PNDMScheduler", json!({}), sd, "ddim", "clip_sample", None),
            // A key that nobody chose counts as missing.
            (
                "PNDMScheduler",
                json!({"steps_offset": 0, "_use_default_values": ["steps_offset"]}),
                sd,
                "ddim",
                "steps_offset",
                None,
            ),
            (
                "PNDMScheduler",
                json!({"steps_offset": 0, "_use_default_values": ["steps_offset"]}),
                sd,
                "pndm",
                "steps_offset",
                Some(json!(1)),
            ),
            // Classes that correct nothing.
            ("DDIMScheduler", json!({}), "StableDiffusionControlNetPipeline", "ddim", "steps_offset", None),
            ("DDIMScheduler", json!({}), "StableDiffusionXLPipeline", "ddim", "clip_sample", None),
            ("DDIMScheduler", json!({}), "LatentConsistencyModelPipeline", "ddim", "steps_offset", None),
            ("DDIMScheduler", json!({}), "StableDiffusionInstructPix2PixPipeline", "ddim", "steps_offset", None),
            ("DDIMScheduler", json!({}), "StableDiffusionUpscalePipeline", "ddim", "steps_offset", None),
            ("DDIMScheduler", json!({}), "StableDiffusionDepth2ImgPipeline", "ddim", "steps_offset", None),
        ];
        for (class, config, pipeline, name, key, expected) in rows {
            let entry = scheduler::find(name).unwrap();
            let (corrected, _) = model(class, config.clone(), pipeline).for_class(entry);
            assert_eq!(corrected.get(key), expected.as_ref(), "{class} {config} under {pipeline}, {name}: {key}");
        }
    }

    #[test]
    fn corrections_say_where_they_come_from() {
        let model = model(
            "PNDMScheduler",
            serde_json::json!({"steps_offset": 0, "clip_sample": true}),
            "StableDiffusionPipeline",
        );
        let said = |name| {
            let (_, applied) = model.for_class(scheduler::find(name).unwrap());
            applied.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let offset = "steps_offset = 1, which StableDiffusionPipeline sets (scheduler_config.json has 0)";
        let clip = "clip_sample = false, which StableDiffusionPipeline sets (scheduler_config.json has true)";
        assert_eq!(said("pndm"), [offset], "a key that the class does not have is not shown");
        assert_eq!(said("ddim"), [offset, clip]);
    }
}
