//! The defaults that a task has on a model: those of its pipeline class's call.

use super::facts::from_config;
use super::{Bundle, Fact, json};
use crate::family::{self, DefaultSize, Defaults};

/// A task as pipeline classes see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskCall {
    /// The task's name in pipeline.toml.
    pub task: &'static str,
    /// Its defaults on models that no pipeline class of diffusers runs.
    pub own: Defaults,
}

/// The defaults of a task on a model, and the class that they belong to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallDefaults {
    /// The values.
    pub values: Defaults,
    /// The pipeline class; `None` if diffusers has none for this task and model, and the values are this program's own.
    pub class: Option<&'static str>,
}

impl CallDefaults {
    /// The source of the values, such as `default of StableDiffusionXLInpaintPipeline`.
    pub fn source(&self) -> String {
        match self.class {
            Some(class) => format!("default of {class}"),
            None => "default of ldm-ort".to_owned(),
        }
    }
}

impl Defaults {
    /// The defaults of a task without an input image on a model that no pipeline class of diffusers runs.
    pub const PLAIN: Self = Self {
        steps: 50,
        guidance_scale: Some(7.5),
        image_guidance_scale: None,
        strength: None,
        eta: None,
        max_sequence_length: None,
        noise_level: None,
        control_scale: Some(1.0),
        size: DefaultSize::Model,
    };

    /// `guidance_scale`; 1, which is no guidance, if the class has none.
    pub fn guidance_scale(&self) -> f64 {
        self.guidance_scale.unwrap_or(1.0)
    }

    /// `strength`; 1, which is the whole schedule, for a task without one.
    pub fn strength(&self) -> f64 {
        self.strength.unwrap_or(1.0)
    }

    /// With the values that this class lacks filled in from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            image_guidance_scale: self.image_guidance_scale.or(other.image_guidance_scale),
            strength: self.strength.or(other.strength),
            noise_level: self.noise_level.or(other.noise_level),
            control_scale: self.control_scale.or(other.control_scale),
            ..self
        }
    }
}

impl Bundle {
    /// The defaults of a task on this model, with ControlNets if `has_control`.
    ///
    /// The latent diffusion paper's systems have this program's own, unless model_index.json names one of diffusers' classes
    /// for them.
    pub fn call_defaults(&self, call: &TaskCall, has_control: bool) -> CallDefaults {
        let is_named = || self.class().and_then(family::find).is_some();
        let has_class_defaults = self.known_family().is_some_and(|family| family.row().has_class_defaults);
        let class = self.pipeline_class(call.task, has_control);
        let own = call.own;
        match class.filter(|_| has_class_defaults || is_named()) {
            Some(class) => CallDefaults { values: class.defaults.or(own), class: Some(class.name) },
            None => CallDefaults { values: own, class: None },
        }
    }

    /// The size in pixels, width and height, that `task` has on this model without one, unless it is that of an input.
    ///
    /// A size in the pipeline file or one that the graphs are fixed to comes before what the class has.
    pub fn default_size(&self, task: &str, has_control: bool) -> Fact<(usize, usize)> {
        let facts = &self.facts;
        let Some(class) = self.pipeline_class(task, has_control).filter(|_| facts.is_size_open) else {
            return facts.default_size.clone();
        };
        let corrected = || self.corrected_size().filter(|_| class.corrects_old_sample_size);
        match class.defaults.size {
            DefaultSize::Square512 => Fact::new((512, 512), format!("default of {}", class.name)),
            _ => corrected().unwrap_or_else(|| facts.default_size.clone()),
        }
    }

    /// The size that a denoiser's configuration stands for whose `sample_size` is below 64 and that a diffusers before 0.9
    /// wrote, for classes that correct it.
    fn corrected_size(&self) -> Option<Fact<(usize, usize)>> {
        const CORRECT: usize = 64;
        let size = from_config(self.denoiser().ok()?, &|c| {
            let mut parts = json::string(c, "_diffusers_version")?.split('.').map(|part| part.parse::<u64>().ok());
            let is_old = (parts.next()??, parts.next()??) < (0, 9);
            json::count(c, "sample_size").filter(|&size| is_old && size < CORRECT)
        })?;
        let factor = self.facts.spatial_factor.value;
        let side = CORRECT.saturating_mul(factor);
        let source = format!("sample_size {CORRECT} instead of {} in {}, × {factor}", size.value, size.source);
        Some(Fact::new(
            (side, side),
            format!("{source}, as diffusers reads configurations from before its version 0.9"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{Family, PipelineClass};
    use serde_json::{Map, Value, json};

    /// The defaults that scripts/goldens/golden_defaults.py reads from diffusers' classes, or observes.
    fn golden() -> Map<String, Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/defaults.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// A row in the golden's words.
    fn written(family: Family, class: &PipelineClass) -> Map<String, Value> {
        let Defaults { steps, guidance_scale, image_guidance_scale, strength, eta, .. } = class.defaults;
        let Defaults { max_sequence_length, noise_level, control_scale, size, .. } = class.defaults;
        let size = match size {
            DefaultSize::Model if !family.row().reads_sample_size => json!(128),
            DefaultSize::Model => json!("sample_size"),
            DefaultSize::Binned => json!([1024, 1024]),
            DefaultSize::InputImage | DefaultSize::Upscaled | DefaultSize::ControlImage => json!("image"),
            DefaultSize::PreferredResolution => json!("area"),
            DefaultSize::Square512 => json!([512, 512]),
        };
        let all = json!({
            "steps": steps,
            "guidance_scale": guidance_scale,
            "image_guidance_scale": image_guidance_scale,
            "strength": strength,
            "eta": eta,
            "max_sequence_length": max_sequence_length,
            "noise_level": noise_level,
            "control_scale": control_scale,
            "size": size,
            "old": class.corrects_old_sample_size.then_some(64),
        });
        let all = all.as_object().unwrap().clone();
        all.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    #[test]
    fn every_row_has_the_defaults_of_its_class() {
        let golden = golden();
        let mut compared = 0;
        let all = Family::all().flat_map(|family| family.row().classes.iter().map(move |class| (family, class)));
        for (family, class) in all {
            let Some(want) = golden.get(class.name).and_then(Value::as_object) else {
                panic!("{} is not in tests/golden/defaults.json", class.name);
            };
            let mut own = written(family, class);
            // The classes of the latent diffusion paper are not called without a size.
            if !want.contains_key("size") {
                own.remove("size");
            }
            assert_eq!(&own, want, "{}, {}", class.name, class.task);
            compared += 1;
        }
        assert!(compared >= golden.len(), "{compared} rows for {} classes", golden.len());
    }
}
