//! The inputs of a task as it starts, and the start it prepares.

use ndarray::{ArrayD, Axis, Dimension, IxDyn, Slice};

use super::classes::Classes;
use super::prompting::Prompting;
use super::strength::Rounding;
use crate::bundle::DenoiserSignature;
use crate::conditioner::Conditioner;
use crate::denoise::{BatchNoise, Condition, Guidance, UnmaskedLatents};
use crate::error::{Error, Result};
use crate::family::Defaults;
use crate::image::{InputLimit, Rgb8};
use crate::scheduler::{ForwardProcess, Noise, Scheduler};
use crate::session::Cancel;
use crate::text::TextEncoders;
use crate::vae::{Scaling, VaeEncoder};

/// The start of a run of the denoiser.
#[derive(Debug)]
pub struct Start {
    /// The first sample, `[n, c, h/f, w/f]`.
    pub sample: ArrayD<f32>,
    /// The scheduler step it stands at.
    pub begin: usize,
    /// The denoiser's conditioning, with `n` rows for each branch of `guidance`.
    pub condition: Condition,
    /// The guidance that joins the branches.
    pub guidance: Guidance,
    /// The known latents that are put back after every step.
    pub keep: Option<UnmaskedLatents>,
    /// The image that the finished one is pasted into.
    pub paste: Option<Paste>,
}

impl Start {
    /// A run from the first step on, with nothing kept and nothing pasted.
    pub(super) fn from_noise(sample: ArrayD<f32>, condition: Condition, guidance: Guidance) -> Self {
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
            return Err(Error::input("image", problem, "the VAE's configuration is of another model"));
        }
        Ok(drawn.mapv(|v| v.clamp(-1.0, 1.0)) * &self.mask + &self.pixels * &self.mask.mapv(|m| 1.0 - m))
    }
}

/// The properties of a model that tasks depend on.
#[derive(Debug, Clone)]
pub struct TaskModel {
    /// The roles of the denoiser's inputs.
    pub denoiser: DenoiserSignature,
    /// The scaling of the latents.
    pub scaling: Scaling,
    /// The number of channels that the task concatenates to the latents.
    pub concatenated: usize,
    /// True if an image that is followed is scaled as the latents are.
    pub scales_followed_image: bool,
    /// The number of images whose tokens a packed sample holds, the generated one included.
    pub packed_images: usize,
    /// True if an absent negative prompt is zeros rather than the encoded empty text: diffusers'
    /// `force_zeros_for_empty_prompt`.
    pub zeros_for_no_prompt: bool,
    /// The requested classes, for a task with classes.
    pub classes: Option<Classes>,
    /// The process that adds noise to the small image, for an upscaler that takes a noise level.
    pub low_res: Option<ForwardProcess>,
    /// The rounding of a strength to whole steps.
    pub rounding: Rounding,
    /// The defaults of keys that the task leaves open.
    pub defaults: Defaults,
}

impl TaskModel {
    /// The guidance scale of a prompt on this model.
    pub(super) fn guidance_scale(&self, prompting: &Prompting) -> f64 {
        prompting.guidance_scale.unwrap_or(self.defaults.guidance_scale())
    }
}

/// The output of the stage before for one batch.
#[derive(Debug)]
pub enum StageOutput<'a> {
    /// The image, for a batch of one.
    Image(&'a Rgb8),
    /// The final latents of that stage's denoiser, `[n, c, h/f, w/f]`.
    Latents(ArrayD<f32>),
}

/// The loaded parts of a pipeline and one batch of images, from which a task prepares its start.
pub struct TaskContext<'a> {
    /// The properties of the model.
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
    /// True if the schedule was planned for the strength, so that the run has all of it.
    pub is_planned: bool,
    /// The evaluation at which the run continues another one's, if it does.
    pub denoising_start: Option<usize>,
    /// The schedule of this run.
    pub scheduler: &'a dyn Scheduler,
    /// One generator an image.
    pub noise: &'a mut BatchNoise,
    /// The output of the stage before for this batch, if there is one.
    pub stage_output: Option<StageOutput<'a>>,
    /// The user's unit normal noise for this batch, if any, `[n, c, h/f, w/f]`.
    pub given: Option<ArrayD<f32>>,
    /// The text encoders, where the task has prompts.
    pub text: Option<&'a mut TextEncoders>,
    /// The graph that turns classes into tokens, where the model has one and the task has classes.
    pub class_embedder: Option<&'a mut Conditioner>,
    /// The VAE's encoder, where the task asked for it.
    pub encoder: Option<&'a mut VaeEncoder>,
    /// Stops the run.
    pub cancel: &'a Cancel,
    /// Receives warnings.
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
        let mut noise = vec![0.0; self.batch_shape().size()];
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

/// Takes rows `range` of a tensor's first axis.
pub(crate) fn rows(tensor: &ArrayD<f32>, range: std::ops::Range<usize>) -> ArrayD<f32> {
    tensor.slice_axis(Axis(0), Slice::from(range)).as_standard_layout().into_owned()
}
