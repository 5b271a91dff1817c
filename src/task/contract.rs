//! A task: its value, its row in the table, and everything that the rest of the program asks of it.

use std::any::Any;
use std::fmt::Debug;
use std::path::Path;

use super::classes::ClassRequest;
use super::context::{InputRequirements, Start, TaskContext, TaskModel};
use super::evidence::ModelEvidence;
use super::input_image::InputImage;
use super::prompting::Prompting;
use super::sample_keys::SampleKeys;
use super::strength::Rounding;
use crate::bundle::{Autoencoder, TaskCall};
use crate::denoise::Guidance;
use crate::error::{Error, Result};
use crate::family::Defaults;
use crate::image::InputLimit;
use crate::keys::{Entries, Reading, Table, Writer};

/// One row of the table of tasks.
pub struct TaskEntry {
    /// The name in pipeline.toml, such as `text-to-image`.
    pub name: &'static str,
    /// One sentence for `ldm-ort list tasks`.
    pub about: &'static str,
    /// Reads the keys of the task's table.
    pub(crate) read: fn(&mut Table<'_>) -> Box<dyn Task>,
    /// Checks a model directory for what the task needs. The error says what it lacks.
    pub(crate) fit: fn(&ModelEvidence) -> Result<(), String>,
    /// Makes the keys of the task's table for a pipeline file to start from.
    pub(crate) sample: fn(&SampleKeys<'_>) -> Vec<String>,
    /// The models made for this task, if those made for text-to-image are others.
    pub(crate) own_models: Option<OwnModels>,
    /// The defaults on models that no pipeline class of diffusers runs.
    pub(crate) defaults: Defaults,
}

/// The models that are made for one task.
pub(crate) struct OwnModels {
    /// A sentence about them that begins with `such a model`.
    pub(crate) about: &'static str,
    /// The number of channels that they take besides the latents, from the number of the latents' channels.
    pub(crate) channels: fn(usize) -> usize,
    /// True for a model of another kind that is made for the task first of all.
    pub(crate) is_made_for: fn(&ModelEvidence) -> bool,
}

impl TaskEntry {
    /// The keys of the task's table, required ones first.
    pub fn keys(&self) -> Vec<String> {
        // The keys that reading asks an empty table for are those that the table takes.
        let nothing = Entries::new();
        let reading = Reading::new(None);
        let mut table = Table::root(&reading, &nothing);
        (self.read)(&mut table);
        table.asked().to_vec()
    }

    /// The task as pipeline classes see it.
    pub fn call(&self) -> TaskCall {
        TaskCall { task: self.name, own: self.defaults }
    }
}

/// The operations on a task as a value, which every task that is [`Clone`] and [`PartialEq`] has.
pub trait TaskValue: Any + Debug + Send + Sync {
    /// A copy.
    fn boxed(&self) -> Box<dyn Task>;

    /// True if `other` is of the same type and equal.
    fn is_equal(&self, other: &dyn Task) -> bool;
}

impl<T: Task + Clone + PartialEq> TaskValue for T {
    fn boxed(&self) -> Box<dyn Task> {
        Box::new(self.clone())
    }

    fn is_equal(&self, other: &dyn Task) -> bool {
        other.downcast_ref::<T>().is_some_and(|other| self == other)
    }
}

impl Clone for Box<dyn Task> {
    fn clone(&self) -> Self {
        self.as_ref().boxed()
    }
}

impl PartialEq for dyn Task {
    fn eq(&self, other: &Self) -> bool {
        self.is_equal(other)
    }
}

// Lets `PartialEq` be derived for a struct with such a field (rust-lang/rust#31740).
impl PartialEq<&Self> for Box<dyn Task> {
    fn eq(&self, other: &&Self) -> bool {
        self.is_equal(other.as_ref())
    }
}

impl<T: Task> From<T> for Box<dyn Task> {
    fn from(task: T) -> Self {
        Box::new(task)
    }
}

impl dyn Task {
    /// The task, if it is of this type.
    pub fn downcast_ref<T: Task>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }

    /// The task, if it is of this type, to be changed.
    pub fn downcast_mut<T: Task>(&mut self) -> Option<&mut T> {
        let any: &mut dyn Any = self;
        any.downcast_mut()
    }
}

/// A way of making images with a model.
///
/// A task of a program's own is a type that implements [`Task::name`] and [`Task::start`]; a pipeline file has no table
/// for it, and the records of its images say that they cannot be made again.
pub trait Task: TaskValue {
    /// The row of the table of tasks; `None` for a task that pipeline files do not have.
    fn entry(&self) -> Option<&'static TaskEntry> {
        None
    }

    /// The name of the task's table in pipeline.toml.
    fn name(&self) -> &'static str {
        self.entry().map_or("custom", |entry| entry.name)
    }

    /// Writes the keys of the task's table.
    #[doc(hidden)]
    fn write(&self, _writer: &mut Writer) {}

    /// The prompts and their guidance, for a task with prompts; one group of images for each of them.
    fn prompting(&self) -> Option<&Prompting> {
        self.optional_prompting().and_then(Option::as_ref)
    }

    /// As [`Task::prompting`], to change them.
    fn prompting_mut(&mut self) -> Option<&mut Prompting> {
        self.optional_prompting_mut().and_then(Option::as_mut)
    }

    /// The prompts, if any, of a task that also runs without them, on models that read none.
    fn optional_prompting(&self) -> Option<&Option<Prompting>> {
        None
    }

    /// As [`Task::optional_prompting`], to change them.
    fn optional_prompting_mut(&mut self) -> Option<&mut Option<Prompting>> {
        None
    }

    /// True if the task also runs without a prompt, on models that read none.
    fn has_optional_prompt(&self) -> bool {
        self.optional_prompting().is_some()
    }

    /// Removes the prompts, if the task runs without. Returns true if it does.
    fn remove_prompt(&mut self) -> bool {
        self.optional_prompting_mut().map(|prompting| *prompting = None).is_some()
    }

    /// The requested classes, for a task with classes; one group of images for each of them.
    fn classes(&self) -> Option<ClassRequest<'_>> {
        None
    }

    /// The number of groups of images: one for each prompt or class.
    fn groups(&self) -> usize {
        self.prompting().map_or(1, |prompting| prompting.prompts.len())
    }

    /// Keeps one prompt or class of several.
    fn keep_only(&mut self, index: usize) {
        if let Some(prompting) = self.prompting_mut() {
            prompting.keep_only(index);
        }
    }

    /// The name of each group of images: its prompt, its class, or nothing.
    fn labels(&self) -> Vec<String> {
        self.prompting().map_or_else(|| vec![String::new()], |prompting| prompting.prompts.clone())
    }

    /// The guidance scale; 1 is none.
    fn guidance_scale(&self, model: &TaskModel) -> f64 {
        self.prompting().map_or(1.0, |prompting| model.guidance_scale(prompting))
    }

    /// The shares of the run between which guidance is applied, if they are given.
    fn guidance_interval(&self) -> Option<[f64; 2]> {
        self.prompting().and_then(|prompting| prompting.guidance_interval)
    }

    /// Applies guidance between these shares of the run only, or in all of it.
    fn set_guidance_interval(&mut self, interval: Option<[f64; 2]>) {
        if let Some(prompting) = self.prompting_mut() {
            prompting.guidance_interval = interval;
        }
    }

    /// The number of branches of this model's guidance.
    fn branches(&self, model: &TaskModel) -> usize {
        let scale = match self.prompting().filter(|_| model.denoiser.is_guidance_distilled()) {
            Some(prompting) => prompting.true_cfg_scale,
            None => self.guidance_scale(model),
        };
        Guidance::classifier_free(scale, 0.0).branches().len()
    }

    /// The guidance scale of the followed image, if it is given.
    fn image_guidance_scale(&self) -> Option<f64> {
        None
    }

    /// True if the model follows an image: as concatenated channels, or as tokens for models with packed samples.
    fn follows_image(&self) -> bool {
        false
    }

    /// True if the VAE encoder is needed.
    fn needs_encoder(&self) -> bool {
        false
    }

    /// True if the run is meaningless without a `[[condition]]` table.
    fn needs_conditions(&self) -> bool {
        false
    }

    /// The number of channels that the task concatenates to the latents on a model that takes `in_channels` in all.
    fn concatenated(&self, _latent_channels: usize, _in_channels: usize) -> usize {
        0
    }

    /// True if the task fills an input for classes, be it with classes or with the noise level.
    fn tells_class(&self) -> bool {
        false
    }

    /// True if the task adds noise to its image on models that take a noise level.
    fn noises_image(&self) -> bool {
        false
    }

    /// The noise level, if it is given.
    fn noise_level(&self) -> Option<usize> {
        None
    }

    /// True if models with this autoencoder do the task on latents that are not scaled.
    fn has_unscaled_latents(&self, _autoencoder: Autoencoder) -> bool {
        false
    }

    /// The images that the task starts from, its mask included, by their keys.
    fn images(&self) -> Vec<(&'static str, &InputImage)> {
        Vec::new()
    }

    /// As [`Task::images`], to change them.
    fn images_mut(&mut self) -> Vec<(&'static str, &mut InputImage)> {
        Vec::new()
    }

    /// The files that the task starts from: key and path.
    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.images().into_iter().filter_map(|(key, image)| Some((key, image.file()?))).collect()
    }

    /// True if one file holds latents for all images of the run, so that the index of an image matters.
    fn shares_a_file(&self) -> bool {
        false
    }

    /// True if the task starts from the output of the stage before.
    fn starts_from_stage(&self) -> bool {
        self.images().iter().any(|(_, image)| **image == InputImage::StageOutput)
    }

    /// True if the task can start from latents of the stage before.
    fn accepts_latents(&self) -> bool {
        false
    }

    /// Makes the task start from the latents of the stage before, or from its image, if it accepts both.
    fn start_from_stage(&mut self, _as_latents: bool) {}

    /// The default width and height in pixels that follow from the task's own input, on a model of `factor` pixels a
    /// latent. `stage_output` is the size of the image of the stage before. An image of more pixels than `limit` is
    /// refused.
    ///
    /// # Errors
    /// [`Error::Input`] if that input cannot be read.
    fn natural_size(
        &self,
        _factor: usize,
        _stage_output: Option<(usize, usize)>,
        _limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        Ok(None)
    }

    /// Requires that the task can be done in this number of the user's steps, with the model's rounding of a strength, and
    /// that it can start at a share of the schedule if one is given.
    ///
    /// # Errors
    /// [`Error::Input`] naming the key that contradicts the number of steps or the task.
    fn check(&self, _steps: usize, denoising_start: Option<f64>, _rounding: Rounding) -> Result<()> {
        require_no_denoising_start(self.name(), denoising_start)
    }

    /// Reads the task's input files to their end, and requires that they fit the run.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file.
    fn check_inputs(&self, _run: &InputRequirements) -> Result<()> {
        Ok(())
    }

    /// The share of the schedule that is run, in (0, 1], if the task starts from an image.
    fn strength(&self) -> Option<f64> {
        None
    }

    /// The key `strength`, to be filled in.
    fn strength_mut(&mut self) -> Option<&mut Option<f64>> {
        None
    }

    /// True if a schedule may be planned for the strength, in steps of the model's training.
    fn plans_strength(&self) -> bool {
        false
    }

    /// The model's defaults that stand in for absent keys of the task's own: keys and values, as TOML.
    fn used_defaults(&self, _model: &TaskModel) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The task as pipeline classes see it.
    fn call(&self) -> TaskCall {
        let own = self.entry().map_or(Defaults::PLAIN, |entry| entry.defaults);
        TaskCall { task: self.name(), own }
    }

    /// Prepares one batch.
    ///
    /// # Errors
    /// Errors of the text encoder and the VAE, and [`Error::Input`] if an input does not fit.
    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start>;
}

/// Refuses to continue another run in a task that starts from noise.
pub(super) fn require_no_denoising_start(task: &str, denoising_start: Option<f64>) -> Result<()> {
    match denoising_start {
        None => Ok(()),
        Some(_) => Err(Error::input(
            "run.denoising_start",
            format!("{task} begins with pure noise"),
            "hand over to [task.image-to-image], whose latents are those that the first run saved (--save-latents)",
        )),
    }
}
