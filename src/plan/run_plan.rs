//! The run of a request.

use std::ops::Range;

use ndarray::ArrayD;

use super::scheduler::{self, SchedulerChoice};
use crate::denoise::{RunInterval, StepCache};
use crate::error::{Error, Result, count_of};
use crate::image::InputLimit;
use crate::rng::Stream;
use crate::scheduler::CustomSchedule;
use crate::spec::{DecodeTile, Spec};
use crate::task::Task;
use crate::tiles::Tiles;

/// The run of a request: everything that differs from one request on an open pipeline to the next.
#[derive(Debug)]
pub struct RunPlan {
    /// The task.
    pub task: Box<dyn Task>,
    /// The scheduler.
    pub scheduler: SchedulerChoice,
    /// The number of steps.
    pub steps: usize,
    /// The part of the run in which guidance is at work, where it is not all of it.
    pub guidance_interval: Option<RunInterval>,
    /// The cache that reduces evaluations of the denoiser, if any.
    pub cache: Option<StepCache>,
    /// The schedule itself, where it is given outright.
    pub custom: Option<CustomSchedule>,
    /// The strength, where the schedule is planned for it and run from its first step on.
    pub planned_strength: Option<f64>,
    /// The shift of the schedule that goes with the image's size, where the scheduler asks for one.
    pub mu: Option<f64>,
    /// The share of the schedule that another run has done already.
    pub denoising_start: Option<f64>,
    /// The share of the schedule after which the run stops.
    pub denoising_end: Option<f64>,
    /// The seed of the first image; image i has `seed + i`.
    pub seed: u64,
    /// The stream that each image draws its noise from.
    pub noise: Stream,
    /// Images a prompt.
    pub images: usize,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Unit normal noise to start from, `[n, c, h/f, w/f]`.
    pub latents: Option<ArrayD<f32>>,
    /// The largest image that is read as an input.
    pub input_limit: InputLimit,
    /// The tiles in which denoiser and decoder work, where they do.
    pub tiles: Option<Tiles>,
    /// The tiles in which the VAE decodes.
    pub decode_tile: DecodeTile,
    /// Images denoised at once.
    pub batch: usize,
    /// The index of the only image to make, if it is not all of them.
    pub only: Option<usize>,
}

impl RunPlan {
    /// The images that are made, by their indices: all of them, or the one that is asked for.
    ///
    /// # Errors
    /// [`Error::Input`] where that one is not there.
    pub fn indices(&self) -> Result<Range<usize>> {
        let total = self.total_images();
        match self.only {
            None => Ok(0..total),
            Some(index) if index < total => Ok(index..index + 1),
            Some(index) => Err(Error::input(
                "index",
                format!("{index} is asked for, and the run makes {}", count_of(total, "image")),
                "the record that names it does not fit this pipeline",
            )),
        }
    }

    /// The schedule request of a batch of `images` images.
    pub fn schedule(&self, images: usize) -> crate::scheduler::ScheduleRequest {
        scheduler::request(self.steps, self.custom.clone(), self.planned_strength, self.mu, images)
    }

    /// Images in all.
    pub fn total_images(&self) -> usize {
        self.task.labels().len() * self.images
    }

    /// The seed of image `index`.
    pub fn seed_of(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }

    /// The negative prompt of prompt number `prompt`.
    pub fn negative_prompt(&self, prompt: usize) -> &str {
        self.task.prompting().and_then(|p| p.negative_prompts.get(prompt)).map_or("", String::as_str)
    }
}

/// The seed of the first image: the user's, or one nobody chose.
pub(super) fn seed(spec: &Spec, total_images: usize) -> Result<u64> {
    let seed = spec.run.seed.unwrap_or_else(random_seed);
    let largest = spec.run.noise.last_seed().min(i64::MAX as u64);
    match seed.checked_add(total_images.saturating_sub(1) as u64) {
        Some(last) if last <= largest => Ok(seed),
        _ => Err(Error::input(
            "run.seed",
            format!(
                "the last of {total_images} images from seed {seed} on goes beyond {largest}, the largest of {} noise",
                spec.run.noise.name()
            ),
            "choose a smaller seed",
        )),
    }
}

/// A seed nobody chose: 31 bits from the hasher that the standard library seeds at random, so that a seed that every
/// stream takes comes after it for each of its images.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() & 0x7fff_ffff
}
