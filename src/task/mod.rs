//! Tasks: what each needs from a model directory, how it starts and what it tells the denoiser.

mod class_conditional;
mod conditions;
mod from_noise;
mod image_to_image;
mod inpaint;
mod input_image;
mod instruct;
mod prompt;
mod strength;
mod super_resolution;
mod text_to_image;

use ndarray::{ArrayD, Axis, IxDyn, Slice};

use crate::bundle::DenoiserContract;
use crate::conditioner::Conditioner;
use crate::denoise::{BatchNoise, Condition, Guidance, UnmaskedLatents};
use crate::error::{Error, Result};
use crate::family::Defaults;
use crate::image::{InputLimit, Rgb8};
use crate::latent::{Encoder, Scaling};
use crate::scheduler::{ForwardProcess, Noise, Scheduler};
use crate::session::Cancel;
use crate::spec::{self, ClassConditional, Prompting};
use crate::text::TextEncoders;

pub use conditions::{Given, check_condition, check_labels, things};
pub use from_noise::Unconditional;
pub use prompt::{texts, unused_negative_prompt};
pub use strength::Rounding;
use strength::steps_run;

/// What a run of the denoiser starts from.
#[derive(Debug)]
pub struct Start {
    /// The first sample, `[n, c, h/f, w/f]`.
    pub sample: ArrayD<f32>,
    /// The scheduler step it stands at.
    pub begin: usize,
    /// What the denoiser is told, with `n` rows for each branch of `guidance`.
    pub condition: Condition,
    /// How the branches are joined.
    pub guidance: Guidance,
    /// What is put back after every step.
    pub keep: Option<UnmaskedLatents>,
    /// What the finished image is pasted into.
    pub paste: Option<Paste>,
}

impl Start {
    /// A run from the first step on, with nothing kept and nothing pasted.
    fn from_noise(sample: ArrayD<f32>, condition: Condition, guidance: Guidance) -> Self {
        Self { sample, begin: 0, condition, guidance, keep: None, paste: None }
    }
}

/// The properties of a run that its input files have to fit.
#[derive(Debug, Clone, Copy)]
pub struct InputRequirements {
    /// Images of the whole request.
    pub images: usize,
    /// The shape of a sample, `[c, h/f, w/f]`.
    pub sample: [usize; 3],
    /// Width and height of the images in pixels.
    pub size: (usize, usize),
    /// The most pixels that an input image may have.
    pub limit: InputLimit,
}

/// An image into which the finished one is pasted.
#[derive(Debug, Clone)]
pub struct Paste {
    /// `[1, 3, h, w]` in [-1, 1].
    pub pixels: ArrayD<f32>,
    /// 1 where the finished image is seen and 0 where this one is, `[1, 1, h, w]`.
    pub mask: ArrayD<f32>,
}

impl Paste {
    /// Pastes `[1, 3, h, w]` pixels.
    ///
    /// # Errors
    /// [`Error::Input`] where the decoder drew another size than the image has.
    pub fn into(&self, drawn: &ArrayD<f32>) -> Result<ArrayD<f32>> {
        if drawn.shape() != self.pixels.shape() {
            let problem = format!("the decoder drew {:?}, and the image is {:?}", drawn.shape(), self.pixels.shape());
            return Err(Error::input("task.inpaint.image", problem, "the VAE's configuration is of another model"));
        }
        Ok(drawn.mapv(|v| v.clamp(-1.0, 1.0)) * &self.mask + &self.pixels * &self.mask.mapv(|m| 1.0 - m))
    }
}

/// What tasks have to know of a model.
#[derive(Debug, Clone)]
pub struct TaskModel {
    /// The roles of the denoiser's inputs.
    pub denoiser: DenoiserContract,
    /// The scaling of the latents.
    pub scaling: Scaling,
    /// How many channels the task puts behind the latents.
    pub concatenated: usize,
    /// True if an image that is followed is scaled as the latents are.
    pub scales_followed_image: bool,
    /// How many images a packed sample is tokens of, the one that is drawn among them.
    pub packed_images: usize,
    /// Whether a negative prompt that nobody gave is zeros rather than the encoded empty text: diffusers'
    /// `force_zeros_for_empty_prompt`.
    pub zeros_for_no_prompt: bool,
    /// The classes asked for, where the task has some.
    pub classes: Option<Classes>,
    /// How noise is laid over the small image, for an upscaler that is told how much.
    pub low_res: Option<ForwardProcess>,
    /// How a strength is turned into steps.
    pub rounding: Rounding,
    /// The values of keys that a task leaves open.
    pub defaults: Defaults,
}

impl TaskModel {
    /// The guidance scale of a prompt on this model.
    fn guidance_scale(&self, prompting: &Prompting) -> f64 {
        prompting.guidance_scale.unwrap_or(self.defaults.guidance_scale())
    }
}

/// Classes as the model numbers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The id of each group of images.
    pub ids: Vec<i64>,
    /// The class that stands for none, where guidance needs it.
    pub null: i64,
}

/// What the stage before made for one batch.
#[derive(Debug)]
pub enum Handed<'a> {
    /// The image, for a batch of one.
    Image(&'a Rgb8),
    /// Latents as that stage's denoiser left them, `[n, c, h/f, w/f]`.
    Latents(ArrayD<f32>),
}

/// What a task prepares its start with: the loaded parts of the pipeline and one batch of images.
pub struct TaskContext<'a> {
    /// What was opened.
    pub model: &'a TaskModel,
    /// Images of the whole request.
    pub total_images: usize,
    /// The index of this batch's first image among them.
    pub first: usize,
    /// For each image of the batch, the index of its prompt.
    pub prompts: &'a [usize],
    /// `[c, h/f, w/f]` of one sample.
    pub sample_shape: [usize; 3],
    /// Width and height of the images in pixels.
    pub size: (usize, usize),
    /// The largest image that is read as an input.
    pub input_limit: InputLimit,
    /// The user's number of steps.
    pub steps: usize,
    /// Whether the schedule was planned for the strength, so that the run has all of it.
    pub is_planned: bool,
    /// The call of the model at which the run takes up what another has done, where it does.
    pub denoising_start: Option<usize>,
    /// The schedule of this run.
    pub scheduler: &'a dyn Scheduler,
    /// One generator an image.
    pub noise: &'a mut BatchNoise,
    /// What the stage before this one made for this batch, where there is one.
    pub handed: Option<Handed<'a>>,
    /// Unit normal noise given by the user for this batch, `[n, c, h/f, w/f]`.
    pub given: Option<ArrayD<f32>>,
    /// The text encoders, where the task has prompts.
    pub text: Option<&'a mut TextEncoders>,
    /// The graph that turns classes into tokens, where the model has one and the task has classes.
    pub class_embedder: Option<&'a mut Conditioner>,
    /// The VAE's encoder, where the task asked for it.
    pub encoder: Option<&'a mut Encoder>,
    /// Stops the run.
    pub cancel: &'a Cancel,
    /// Takes what the user should know although the run goes on.
    pub warn: &'a mut dyn FnMut(String),
}

impl TaskContext<'_> {
    /// Images in this batch.
    pub fn images(&self) -> usize {
        self.prompts.len()
    }

    /// `[n, c, h/f, w/f]` of the batch.
    pub fn batch_shape(&self) -> IxDyn {
        let [c, h, w] = self.sample_shape;
        IxDyn(&[self.images(), c, h, w])
    }

    /// Unit normal noise for the batch: the user's where it was given, else drawn.
    pub fn unit_noise(&mut self) -> Result<ArrayD<f32>> {
        if let Some(given) = self.given.take() {
            return Ok(given);
        }
        let mut noise = vec![0.0; self.batch_shape().slice_len()];
        self.noise.fill(&mut noise);
        ArrayD::from_shape_vec(self.batch_shape(), noise).map_err(|e| Error::input("latents", e.to_string(), ""))
    }

    /// The first sample of a run from pure noise.
    pub fn noise_start(&mut self) -> Result<ArrayD<f32>> {
        let sigma = self.scheduler.init_noise_sigma() as f32;
        let mut sample = self.unit_noise()?;
        sample.mapv_inplace(|v| v * sigma);
        Ok(sample)
    }
}

/// Sizes that have a batch's worth of elements.
trait SliceLen {
    fn slice_len(&self) -> usize;
}

impl SliceLen for IxDyn {
    fn slice_len(&self) -> usize {
        use ndarray::Dimension;
        self.size()
    }
}

/// A way of making images with a model.
pub trait Task: std::fmt::Debug + Send + Sync {
    /// The name of its table in pipeline.toml.
    fn name(&self) -> &'static str;

    /// The task as a pipeline file has it, for the record of its images. `None` for a task that no pipeline file has: its
    /// images cannot be made again from their records, which say so.
    fn to_spec(&self) -> Option<spec::TaskSpec> {
        None
    }

    /// What is to be seen, where the task has prompts; one group of images for each of them.
    fn prompting(&self) -> Option<&Prompting> {
        None
    }

    /// The classes to be seen, where the task has some; one group of images for each of them.
    fn classes(&self) -> Option<&ClassConditional> {
        None
    }

    /// What each group of images is called: its prompt, its class, or nothing.
    fn labels(&self) -> Vec<String> {
        self.prompting().map_or_else(|| vec![String::new()], |prompting| prompting.prompts.clone())
    }

    /// The guidance scale; 1 is none.
    fn guidance_scale(&self, model: &TaskModel) -> f64 {
        self.prompting().map_or(1.0, |prompting| model.guidance_scale(prompting))
    }

    /// The number of branches of this model's guidance.
    fn branches(&self, model: &TaskModel) -> usize {
        let scale = match self.prompting().filter(|_| model.denoiser.is_guidance_distilled()) {
            Some(prompting) => prompting.true_cfg_scale,
            None => self.guidance_scale(model),
        };
        Guidance::classifier_free(scale, 0.0).branches().len()
    }

    /// The weight of the image that is followed, where one is asked for.
    fn image_guidance_scale(&self) -> Option<f64> {
        None
    }

    /// Whether the model is given an image to follow, which stands behind the sample: as channels of its own, or as tokens
    /// of its own for models whose samples are packed.
    fn follows_image(&self) -> bool {
        false
    }

    /// Whether the VAE's encoder is needed.
    fn needs_encoder(&self) -> bool {
        false
    }

    /// How many channels the task puts behind the latents of a model that takes `in_channels` in all.
    fn concatenated(&self, _latent_channels: usize, _in_channels: usize) -> usize {
        0
    }

    /// Whether the task fills an input for classes, be they classes or the noise level.
    fn tells_class(&self) -> bool {
        false
    }

    /// The noise level asked for.
    fn noise_level(&self) -> Option<usize> {
        None
    }

    /// The width and height that the task's own input suggests, in pixels, on a model of `factor` pixels a
    /// latent. `handed` is the size of the image that a stage before it made. An image of more pixels than `limit`
    /// is refused.
    ///
    /// # Errors
    /// [`Error::Input`] where that input cannot be read.
    fn natural_size(
        &self,
        _factor: usize,
        _handed: Option<(usize, usize)>,
        _limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        Ok(None)
    }

    /// Requires that the task can be done in so many steps of the user's, a strength being read as the model has it, and
    /// that it can begin at a share of the schedule where one is asked for.
    ///
    /// # Errors
    /// [`Error::Input`] naming the key that does not go with the number of steps, or with this task.
    fn check(&self, _steps: usize, denoising_start: Option<f64>, _rounding: Rounding) -> Result<()> {
        begins_by_itself(self.name(), denoising_start)
    }

    /// Reads the files that the task begins with, whole, and requires that they fit the run.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file.
    fn check_inputs(&self, _run: &InputRequirements) -> Result<()> {
        Ok(())
    }

    /// The share of the schedule that is run, in (0, 1], where the task starts from an image.
    fn strength(&self) -> Option<f64> {
        None
    }

    /// Prepares one batch.
    ///
    /// # Errors
    /// Whatever the text encoder and the VAE fail with, and [`Error::Input`] where an input does not fit.
    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start>;
}

/// Refuses to take up another run's latents in a task that begins with noise of its own.
fn begins_by_itself(task: &str, denoising_start: Option<f64>) -> Result<()> {
    match denoising_start {
        None => Ok(()),
        Some(_) => Err(Error::input(
            "run.denoising_start",
            format!("{task} begins with pure noise"),
            "hand over to [task.image-to-image], whose latents are those that the first run saved (--save-latents)",
        )),
    }
}

/// The task that a pipeline file asks for.
pub fn of(spec: &spec::TaskSpec) -> Box<dyn Task> {
    match spec {
        spec::TaskSpec::TextToImage(task) => Box::new(task.clone()),
        spec::TaskSpec::ImageToImage(task) => Box::new(task.clone()),
        spec::TaskSpec::Inpaint(task) => Box::new(task.clone()),
        spec::TaskSpec::Instruct(task) => Box::new(task.clone()),
        spec::TaskSpec::SuperResolution(task) => Box::new(task.clone()),
        spec::TaskSpec::ClassConditional(task) => Box::new(task.clone()),
        spec::TaskSpec::Conditional(task) => Box::new(task.clone()),
        spec::TaskSpec::Unconditional => Box::new(Unconditional),
    }
}

/// Takes rows `range` of a tensor's first axis.
pub(crate) fn rows(tensor: &ArrayD<f32>, range: std::ops::Range<usize>) -> ArrayD<f32> {
    tensor.slice_axis(Axis(0), Slice::from(range)).as_standard_layout().into_owned()
}
