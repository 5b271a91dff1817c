//! pipeline.toml: the model, the task, the settings of a run, the device and the output.
//!
//! A file has one table for each of these: [`ModelSpec`] `[model]`, [`Task`] `[task.NAME]`, [`SchedulerSpec`]
//! `[scheduler.NAME]`, [`StepCache`] `[cache.NAME]`, [`RunSpec`] `[run]`, [`DeviceSpec`] `[device]`, [`OutputSpec`] `[output]`, and any
//! number of [`LoraSpec`] `[[lora]]`, [`TextualInversionSpec`] `[[textual_inversion]]`, [`ConditionSpec`] `[[condition]]` and [`ControlSpec`]
//! `[[control]]`. Models in a row are [`StageSpec`] `[[stage]]` tables behind them, each with tables of its own. The
//! documentation of those types is the
//! reference of the file's keys. Paths are relative to the file. Only `[model]` and one task table have to be there:
//!
//! ```
//! use ldm_ort::spec::{Overrides, Spec};
//!
//! let text = r#"
//! [model]
//! path = "models/shapes"
//!
//! [task.text-to-image]
//! prompt = "a red circle"
//! "#;
//! let spec = Spec::parse(text, None, &Overrides::default())?;
//! assert_eq!(spec.run.images, 1);
//! # Ok::<(), ldm_ort::Error>(())
//! ```
//!
//! A file is either right as a whole or answered with everything that is wrong with it: an unknown key or table, a
//! wrong type, a value out of range, a key that is missing, each with its line, its full key and what is valid there.
//! Checks that need the model directory are made by [`plan`](crate::plan).

mod cache;
mod control;
mod device;
mod lora;
mod model;
mod output;
mod overrides;
mod pipeline_file;
mod plain_options;
mod record;
mod record_paths;
mod renamed;
mod request;
mod run;
mod sample;
mod scheduler;
mod stage;
mod tables;
mod task;
mod textual_inversion;

use std::collections::BTreeMap;
use std::path::Path;

use crate::conditioner::ConditionSpec;
use crate::denoise::StepCache;
use crate::error::Result;
use crate::files;
pub use crate::keys::{OldNames, RecordNames};
use crate::task::Task;
pub use control::ControlSpec;
pub use device::{Batching, DenoisingLoop, DeviceSpec, Options, Precision};
pub use lora::LoraSpec;
pub use model::{ComponentSpec, DecoderChoice, ModelSpec};
pub use output::OutputSpec;
pub use overrides::Overrides;
pub use pipeline_file::MAX_BYTES;
pub use record::RecordedSpec;
pub use record_paths::RecordPaths;
pub(crate) use request::{is_task_field, node, put, sort_fields};
pub use run::{DecodeTile, Listed, RunSpec};
pub use sample::init_toml;
pub use scheduler::SchedulerSpec;
pub use textual_inversion::TextualInversionSpec;

/// A pipeline file. Its fields are the tables of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// `[model]`: the model directory.
    pub model: ModelSpec,
    /// `[task.NAME]`: the task.
    pub task: Box<dyn Task>,
    /// `[scheduler.NAME]`: the scheduler; absent, the model's own.
    pub scheduler: Option<SchedulerSpec>,
    /// `[cache.NAME]`: a caching method, by which the denoiser is evaluated at fewer steps; absent, at all of them.
    pub cache: Option<StepCache>,
    /// `[[condition]]`: conditions other than a prompt, any number.
    pub conditions: Vec<ConditionSpec>,
    /// `[[control]]`: control networks, any number.
    pub controls: Vec<ControlSpec>,
    /// `[[textual_inversion]]`: words with learned token embeddings.
    pub textual_inversions: Vec<TextualInversionSpec>,
    /// `[[lora]]`: low-rank changes of the model's weights, in the order in which they are added.
    pub loras: Vec<LoraSpec>,
    /// `[run]`: steps, seed, sizes.
    pub run: RunSpec,
    /// `[device]`: execution providers and threads.
    pub device: DeviceSpec,
    /// `[output]`: the folder for images.
    pub output: OutputSpec,
    /// `[[stage]]`: further models, each of which starts from the result of the one before. A stage has none itself.
    pub stages: Vec<StageSpec>,
    /// The old names of keys and values that the pipeline was read from.
    pub old_names: OldNames,
}

/// `[[stage]]`, any number: one more model, which starts from the result of the one before, image by image.
///
/// It has the tables of a pipeline, each within it: `[stage.model]` and `[stage.task.NAME]` are required,
/// `[stage.scheduler.NAME]`, `[stage.cache.NAME]`, `[stage.run]`, `[stage.device]`, `[stage.output]`, `[[stage.lora]]`,
/// `[[stage.textual_inversion]]`, `[[stage.condition]]` and `[[stage.control]]` are not. Its task has no `image`: that is the
/// result of the stage before.
///
/// Keys that it leaves out come from the file's own tables: `prompt`, `negative_prompt`, `prompt_weighting` and `long_prompts`
/// of the task, but not the texts of later text encoders (`prompt_2` and so on), since it may have none; `seed`, `noise`,
/// `noise_gpu` and `max_input_megapixels` of `[run]`; `[device]` as a whole; `dir` and `preview` of `[output]`. Width and height follow from
/// its input. Every stage draws its noise from a fresh generator for each image, seeded as the
/// file's own is, which is what diffusers' pipelines do when each is called with a new generator of the same seed.
/// A `[cache.NAME]` or a `guidance_interval` of the file's own tables is theirs alone, since both are chosen for a model and
/// its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct StageSpec {
    /// `input`: the form in which it takes the result of the stage before, `latents` or `image`. Absent: latents if its
    /// task can start from those, both models share a latent space and the size is the same; else the image.
    pub input: Option<StageInput>,
    /// Its tables. `[run]` has no `images`: it makes one image of each input.
    pub spec: Spec,
}

/// The form in which a stage takes the result of the stage before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageInput {
    /// `"latents"`: the latents, not decoded.
    Latents,
    /// `"image"`: the decoded 8-bit image, as it would be saved.
    Image,
}

impl StageInput {
    /// The name in pipeline.toml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latents => "latents",
            Self::Image => "image",
        }
    }
}

impl Spec {
    /// Makes the spec of a task on a model directory, with everything else at its default.
    pub fn new(model: impl AsRef<Path>, task: impl Into<Box<dyn Task>>) -> Self {
        Self {
            model: ModelSpec::at(model),
            task: task.into(),
            scheduler: None,
            cache: None,
            conditions: Vec::new(),
            controls: Vec::new(),
            textual_inversions: Vec::new(),
            loras: Vec::new(),
            run: RunSpec::default(),
            device: DeviceSpec::default(),
            output: OutputSpec::default(),
            stages: Vec::new(),
            old_names: OldNames::default(),
        }
    }

    /// True if one file has the noise or the latents of all images, so that the index of an image in the run matters.
    pub fn shares_a_file(&self) -> bool {
        self.run.latents.is_some()
            || self.task.shares_a_file()
            || self.stages.iter().any(|stage| stage.spec.shares_a_file())
    }

    /// True if the denoiser is evaluated less often than at every call with every branch of the guidance. Stages do not
    /// count.
    pub fn asks_for_fewer_evaluations(&self) -> bool {
        self.cache.is_some() || self.task.guidance_interval().is_some()
    }

    /// The same pipeline with every evaluation of the denoiser, and of those of its stages.
    pub fn with_all_evaluations(&self) -> Self {
        let stages = self.stages.iter();
        let stages =
            stages.map(|stage| StageSpec { input: stage.input, spec: stage.spec.with_all_evaluations() }).collect();
        let mut task = self.task.clone();
        task.set_guidance_interval(None);
        Self { cache: None, task, stages, ..self.clone() }
    }

    /// The files that the pipeline begins with, beside the model: key and path.
    pub fn inputs(&self) -> Vec<(String, &Path)> {
        let mut inputs = self.own_inputs();
        for (at, stage) in self.stages.iter().enumerate() {
            let own = stage.spec.inputs().into_iter();
            inputs.extend(own.map(|(key, path)| (format!("stage[{at}].{key}"), path)));
        }
        inputs
    }

    /// [`Spec::inputs`] without those of the stages.
    fn own_inputs(&self) -> Vec<(String, &Path)> {
        let mut inputs = Vec::new();
        inputs.extend(self.run.latents.iter().map(|path| ("run.latents".to_owned(), path.as_path())));
        let of_task = |(key, path)| (format!("task.{}.{key}", self.task.name()), path);
        inputs.extend(self.task.files().into_iter().map(of_task));
        for (at, condition) in self.conditions.iter().enumerate() {
            inputs.extend(condition.source.file().map(|(key, path)| (format!("condition[{at}].{key}"), path)));
        }
        for (at, control) in self.controls.iter().enumerate() {
            inputs.extend(control.image.file().map(|path| (format!("control[{at}].image"), path)));
        }
        inputs
    }

    /// sha256 of each of [`Spec::inputs`] by its key, in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) where one of them cannot be read.
    pub fn input_digests(&self) -> Result<BTreeMap<String, String>> {
        self.inputs().into_iter().map(|(key, path)| Ok((key, files::digest(path)?))).collect()
    }
}
