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
mod record;
mod renamed;
mod request;
mod run;
mod sample;
mod scheduler;
mod stage;
mod task;
mod textual_inversion;

use std::collections::BTreeMap;
use std::path::Path;

use crate::conditioner::ConditionSpec;
use crate::denoise::StepCache;
use crate::error::{Error, Problem, Result};
use crate::files;
use crate::keys::{Entries, Reading, SyntaxError, Table, Writer, parse_document};
pub use crate::keys::{OldNames, RecordNames};
use crate::task::Task;
pub use control::ControlSpec;
pub use device::{Batching, DeviceSpec};
pub use lora::LoraSpec;
pub use model::{ComponentSpec, DecoderChoice, ModelSpec};
pub use output::OutputSpec;
pub use overrides::Overrides;
pub use record::{RecordPaths, RecordedSpec};
pub(crate) use request::{is_task_field, node, put, sort_fields};
pub use run::{Listed, RunSpec};
pub use sample::init_toml;
pub use scheduler::SchedulerSpec;
pub use stage::{StageInput, StageSpec};
pub use textual_inversion::TextualInversionSpec;

/// The most bytes of a pipeline file's text.
pub const MAX_BYTES: usize = 1 << 20;

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

    /// Reads a pipeline file, with flags over it.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`], holding every problem of the file and of the flags, also where the file cannot be read.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self> {
        let file = files::open(path).map_err(|error| unreadable(path, &error))?;
        let text = files::read_at_most(file, MAX_BYTES as u64).map_err(|error| unreadable(path, &error))?;
        let text = text.ok_or_else(|| Error::Spec(vec![too_long(Some(path))]))?;
        let text = String::from_utf8(text).map_err(|error| not_text(path, error.as_bytes()))?;
        Self::parse(&text, Some(path), overrides)
    }

    /// Reads the text of a pipeline file, with flags over it.
    ///
    /// `file` is the file it came from: problems name it, and the paths in the text are relative to the folder it is
    /// in. Without one they are relative to the current directory.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`], holding every problem of the text and of the flags. Text that is longer than [`MAX_BYTES`] or is
    /// not TOML has only that problem, since its meaning would be a guess.
    pub fn parse(text: &str, file: Option<&Path>, overrides: &Overrides) -> Result<Self> {
        Self::parse_as(text, Reading::new(file), overrides, |_, _| {})
    }

    /// Reads a text whose entries `change` sees before the flags are put over them.
    fn parse_as(
        text: &str,
        reading: Reading<'_>,
        overrides: &Overrides,
        change: impl FnOnce(&mut Entries, &Reading<'_>),
    ) -> Result<Self> {
        if text.len() > MAX_BYTES {
            return Err(Error::Spec(vec![too_long(reading.file())]));
        }
        let mut entries = parse_document(text).map_err(|errors| {
            let problem = |error: SyntaxError| Problem {
                file: reading.file().map(Path::to_path_buf),
                line: Some(error.line),
                key: error.key,
                message: error.message,
            };
            Error::Spec(errors.into_iter().map(problem).collect())
        })?;
        renamed::rename(&mut entries, &reading);
        change(&mut entries, &reading);
        overrides.apply(&mut entries, &reading);
        stage::inherit(&mut entries, &reading);

        let mut root = Table::root(&reading, &entries);
        let mut spec = Self::read_tables(&mut root, &reading);
        let stages = root.tables("stage").into_iter();
        let stages = stages.filter_map(|table| StageSpec::read(table, &reading, spec.as_ref())).collect();
        root.finish();
        if let Some(spec) = &mut spec {
            spec.stages = stages;
            spec.old_names = reading.old_names();
        }
        match reading.finish(spec)? {
            Some(spec) => Ok(spec),
            // A task that could not be read has said why, so this is never seen.
            None => Err(Error::Spec(Vec::new())),
        }
    }

    /// Reads the tables that describe one model's run; `None` where it has no task.
    fn read_tables(within: &mut Table<'_>, reading: &Reading<'_>) -> Option<Self> {
        let model = ModelSpec::read(within.table("model"));
        let task = task::read(within.table("task"));
        let scheduler = SchedulerSpec::read(within.table("scheduler"));
        let cache = cache::read(within.table("cache"));
        let conditions = within.tables("condition").into_iter().filter_map(ConditionSpec::read).collect();
        let controls = within.tables("control").into_iter().map(ControlSpec::read).collect();
        let loras = within.tables("lora").into_iter().map(LoraSpec::read).collect();
        let textual_inversions = within.tables("textual_inversion");
        let textual_inversions = textual_inversions.into_iter().map(TextualInversionSpec::read).collect();
        let run = RunSpec::read(within.table("run"));
        let device = DeviceSpec::read(within.table("device"));
        let output = OutputSpec::read(within.table("output"), reading);
        let stages = Vec::new();
        let task = task?;
        Some(Self {
            model,
            task,
            scheduler,
            cache,
            conditions,
            controls,
            textual_inversions,
            loras,
            run,
            device,
            output,
            stages,
            old_names: OldNames::default(),
        })
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
    /// [`Error::Io`] where one of them cannot be read.
    pub fn input_digests(&self) -> Result<BTreeMap<String, String>> {
        self.inputs().into_iter().map(|(key, path)| Ok((key, files::digest(path)?))).collect()
    }

    /// Writes the whole spec as the text of a pipeline file, every default that stands by itself spelled out and every
    /// path absolute, so
    /// that [`Spec::parse`] of it gives this spec wherever it is read. A path that is not Unicode, which no TOML can
    /// hold, is written with replacement characters.
    pub fn to_toml(&self) -> String {
        self.write_to(Writer::default())
    }

    fn write_to(&self, mut writer: Writer) -> String {
        self.model.write(&mut writer);
        task::write(self.task.as_ref(), &mut writer);
        self.write_parts(&mut writer);
        self.run.write(&mut writer);
        self.device.write(&mut writer);
        self.output.write(&mut writer, Path::new(output::FOLDER));
        self.stages.iter().for_each(|stage| stage.write(&mut writer, self));
        writer.finish()
    }

    /// Writes the scheduler, the cache, and what there may be any number of.
    fn write_parts(&self, writer: &mut Writer) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.write(writer);
        }
        if let Some(cache) = &self.cache {
            cache::write(cache, writer);
        }
        self.conditions.iter().for_each(|condition| condition.write(writer));
        self.controls.iter().for_each(|control| control.write(writer));
        self.loras.iter().for_each(|lora| lora.write(writer));
        self.textual_inversions.iter().for_each(|inversion| inversion.write(writer));
    }
}

fn of_file(path: &Path, message: String) -> Error {
    Error::Spec(vec![Problem { file: Some(path.to_path_buf()), line: None, key: String::new(), message }])
}

fn too_long(file: Option<&Path>) -> Problem {
    let message = "is longer than 1 MiB; expected a pipeline file, with large inputs in files that it names";
    Problem { file: file.map(Path::to_path_buf), line: None, key: String::new(), message: message.into() }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    if path.is_dir() {
        return of_file(path, "is a directory; expected a pipeline file such as pipeline.toml".into());
    }
    of_file(path, format!("cannot be read: {error}"))
}

fn not_text(path: &Path, bytes: &[u8]) -> Error {
    let is_png = bytes.starts_with(b"\x89PNG\r\n\x1a\n");
    let help = if is_png { "; it is a PNG image, which is run again with --from" } else { "" };
    of_file(path, format!("is not UTF-8 text{help}"))
}
