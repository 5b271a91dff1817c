//! Tasks: what each needs from a model directory, how it starts and what it tells the denoiser.

mod image_to_image;
mod prompt;
mod text_to_image;
mod unconditional;

use ndarray::{ArrayD, Axis, IxDyn, Slice};

use crate::denoise::{BatchNoise, Condition, Guidance};
use crate::error::{Error, Result};
use crate::latent::Encoder;
use crate::scheduler::{Noise, Scheduler};
use crate::session::Cancel;
use crate::spec;
use crate::text::TextEncoder;

pub use unconditional::Unconditional;

/// What a run of the denoiser starts from.
#[derive(Debug)]
pub struct Start {
    /// The first sample, `[n, c, h/f, w/f]`.
    pub sample: ArrayD<f32>,
    /// The scheduler step it stands at.
    pub begin: usize,
    /// What the denoiser is told, with `2n` rows where `guidance` is on.
    pub condition: Condition,
    /// How the two halves are joined.
    pub guidance: Guidance,
}

/// What a task prepares its start with: the loaded parts of the pipeline and one batch of pictures.
pub struct Stage<'a> {
    /// Pictures of the whole request.
    pub pictures: usize,
    /// The index of this batch's first picture among them.
    pub first: usize,
    /// For each picture of the batch, the index of its prompt.
    pub prompts: &'a [usize],
    /// `[c, h/f, w/f]` of one sample.
    pub sample_shape: [usize; 3],
    /// Width and height of the pictures in pixels.
    pub size: (usize, usize),
    /// The user's number of steps.
    pub steps: usize,
    /// The call of the model at which the run takes up what another has done, where it does.
    pub denoising_start: Option<usize>,
    /// The schedule of this run.
    pub scheduler: &'a dyn Scheduler,
    /// One generator a picture.
    pub noise: &'a mut BatchNoise,
    /// Unit normal noise given by the user for this batch, `[n, c, h/f, w/f]`.
    pub given: Option<ArrayD<f32>>,
    /// The text encoder, where the model has one.
    pub text: Option<&'a mut TextEncoder>,
    /// The first stage's encoder, where the task asked for it.
    pub encoder: Option<&'a mut Encoder>,
    /// Stops the run.
    pub cancel: &'a Cancel,
    /// Takes what the user should know although the run goes on.
    pub warn: &'a mut dyn FnMut(String),
}

impl Stage<'_> {
    /// Pictures in this batch.
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
        let sigma = self.scheduler.initial_noise_sigma() as f32;
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

/// A way of making pictures with a model.
pub trait Task: std::fmt::Debug + Send + Sync {
    /// The name of its table in pipeline.toml.
    fn name(&self) -> &'static str;

    /// The prompts, one group of pictures each; one empty prompt where the task takes none.
    fn prompts(&self) -> &[String];

    /// The prompts the pictures are steered away from: one for all, or one a prompt.
    fn negative_prompts(&self) -> &[String] {
        &[]
    }

    /// The guidance asked for.
    fn guidance(&self) -> Guidance {
        Guidance::OFF
    }

    /// Whether the first stage's encoder is needed.
    fn needs_encoder(&self) -> bool {
        false
    }

    /// Whether a text encoder is needed.
    fn needs_text(&self) -> bool {
        true
    }

    /// The width and height that the task's own input suggests, in pixels.
    ///
    /// # Errors
    /// [`Error::Input`] where that input cannot be read.
    fn natural_size(&self) -> Result<Option<(usize, usize)>> {
        Ok(None)
    }

    /// Requires that the task can be done in so many steps of the user's, and that it can begin at a share of the
    /// schedule where one is asked for.
    ///
    /// # Errors
    /// [`Error::Input`] naming the key that does not go with the number of steps, or with this task.
    fn check(&self, _steps: usize, denoising_start: Option<f64>) -> Result<()> {
        match denoising_start {
            None => Ok(()),
            Some(_) => Err(Error::input(
                "run.denoising_start",
                format!("{} begins with pure noise", self.name()),
                "hand over to [task.image-to-image], whose latents are those that the first run saved (--save-latents)",
            )),
        }
    }

    /// The share of the schedule that is run, in (0, 1], where the task starts from a picture.
    fn strength(&self) -> Option<f64> {
        None
    }

    /// Prepares one batch.
    ///
    /// # Errors
    /// Whatever the text encoder and the first stage fail with, and [`Error::Input`] where an input does not fit.
    fn start(&self, stage: &mut Stage<'_>) -> Result<Start>;
}

/// The task that a pipeline file asks for.
pub fn of(spec: &spec::Task) -> Box<dyn Task> {
    match spec {
        spec::Task::TextToImage(task) => Box::new(task.clone()),
        spec::Task::ImageToImage(task) => Box::new(task.clone()),
        spec::Task::Unconditional => Box::new(Unconditional::default()),
    }
}

/// Takes rows `range` of a tensor's first axis.
pub(crate) fn rows(tensor: &ArrayD<f32>, range: std::ops::Range<usize>) -> ArrayD<f32> {
    tensor.slice_axis(Axis(0), Slice::from(range)).as_standard_layout().into_owned()
}
