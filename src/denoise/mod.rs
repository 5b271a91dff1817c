//! The denoising loop, guidance, and the conditions a model takes.

pub mod cache;
mod control;
mod feed;
mod form;
mod graph;
mod guidance;
mod keep;
mod noise;
mod packing;
mod run_interval;
mod shallow;
#[cfg(test)]
mod tests;

use std::ops::{ControlFlow, Range};

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::error::{Error, Result, StepPosition};
use crate::scheduler::{Noise, Scheduler};
use crate::tensor::require_finite;

pub use cache::{Cached, StepCache};
pub use control::{Control, ControlWeight};
pub use graph::{Batch, GraphDenoiser};
pub use guidance::{Branch, Guidance};
pub use keep::Keep;
pub use noise::BatchNoise;
pub use run_interval::RunInterval;
pub use shallow::Shallow;

/// What a denoiser is told about the image beside the noisy sample and the time.
///
/// The latent diffusion paper (arXiv 2112.10752, section 3.3) knows two ways, channels to concatenate and tokens to
/// attend to; later families add vectors and classes. Every tensor has `n` rows, one an image, for each branch of the
/// guidance (see [`Guidance::branches`]), one branch after the other.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Tokens to attend to, `[rows, tokens, width]`.
    pub context: Option<ArrayD<f32>>,
    /// Channels to concatenate behind the sample's own, `[rows, c, h, w]`, never scaled by the scheduler.
    pub channels: Option<ArrayD<f32>>,
    /// 1 for each token to attend to and 0 for each that is padding, `[rows, tokens]`.
    pub context_mask: Option<ArrayD<f32>>,
    /// The text as one vector, `[rows, width]`.
    pub text_embeds: Option<ArrayD<f32>>,
    /// Sizes and crop, `[rows, 6]`, or with an aesthetic score `[rows, 5]`.
    pub time_ids: Option<ArrayD<f32>>,
    /// Height and width of the image in pixels, `[rows, 2]`.
    pub resolution: Option<ArrayD<f32>>,
    /// The image's height by its width, `[rows, 1]`.
    pub aspect_ratio: Option<ArrayD<f32>>,
    /// The guidance scale as one vector, `[rows, width]`.
    pub timestep_cond: Option<ArrayD<f32>>,
    /// The guidance scale as a number, `[rows]`.
    pub guidance: Option<ArrayD<f32>>,
    /// A class or a noise level, `[rows]`, whole numbers.
    pub class_labels: Option<ArrayD<f32>>,
}

/// One call of the model among those of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// Its index, counted from 0.
    pub index: usize,
    /// The calls of the run.
    pub of: usize,
    /// The calls that a step of the scheduler's takes.
    pub order: usize,
    /// The model's time.
    pub timestep: f64,
}

impl Call {
    /// The step of the scheduler this call belongs to, counted from 0.
    pub fn step(self) -> usize {
        self.index / self.order.max(1)
    }

    /// The steps of the run.
    pub fn steps(self) -> usize {
        self.of.div_ceil(self.order.max(1))
    }
}

/// How often a model was evaluated in a run: each branch of the guidance counts by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Evaluations {
    /// Those made of the whole model.
    pub made: usize,
    /// Those made beside them of its shallow layers alone.
    pub shallow: usize,
    /// Those of the same run with every branch at every call.
    pub of: usize,
}

impl std::ops::AddAssign for Evaluations {
    fn add_assign(&mut self, other: Self) {
        self.made += other.made;
        self.shallow += other.shallow;
        self.of += other.of;
    }
}

/// What predicts noise (or velocity, or the clean sample) from a noisy sample.
pub trait Denoiser {
    /// Writes the guided prediction for `sample` (flat `[n, c, h, w]`, already scaled for the model) at one call to
    /// `prediction`, one part an image.
    ///
    /// # Errors
    /// Whatever the model fails with, and [`Error::Interrupted`].
    fn predict(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<()>;

    /// As [`Denoiser::predict`], by the shallow layers of the model alone, on what the deep ones gave when all were last run;
    /// `false` where that cannot be done, and nothing was written.
    ///
    /// # Errors
    /// As [`Denoiser::predict`].
    fn predict_shallow(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<bool> {
        let _ = (sample, call, prediction);
        Ok(false)
    }

    /// How many values a prediction has for each value of the sample: 2 where the model predicts a variance too.
    fn outputs_per_input(&self) -> usize {
        1
    }

    /// How often the whole model was evaluated so far, each branch of the guidance counted by itself.
    fn evaluations(&self) -> usize;

    /// How often its shallow layers were evaluated alone, counted so too.
    fn shallow_evaluations(&self) -> usize {
        0
    }

    /// Whether what is run at this call is of another kind than at the call before, since a branch of the guidance or a
    /// control network begins or ends between them.
    fn changes_at(&self, call: Call) -> bool {
        let _ = call;
        false
    }
}

/// What an observer is shown after each step.
#[derive(Debug)]
pub struct Step<'a> {
    /// The model call just made, counted from 1.
    pub call: usize,
    /// Model calls of this run.
    pub calls: usize,
    /// The model's time of this call.
    pub timestep: f64,
    /// The sample after the step, `[n, c, h/f, w/f]`, float32.
    pub sample: ArrayViewD<'a, f32>,
    /// The image that the model sees in the sample at this call, of the same shape, where [`Watch::wants_estimate`]
    /// said so.
    pub estimate: Option<ArrayViewD<'a, f32>>,
}

/// Sees the steps of a run, and may stop it. Every `FnMut(Step<'_>) -> ControlFlow<()>` does.
pub trait Watch {
    /// Whether the step of this call, counted from 1, is to come with an estimate of the image. The run is the same
    /// either way.
    fn wants_estimate(&mut self, call: usize, calls: usize, order: usize) -> bool {
        let _ = (call, calls, order);
        false
    }

    /// Called after each step.
    ///
    /// # Errors
    /// Whatever the watcher fails with, which ends the run.
    fn see(&mut self, step: Step<'_>) -> Result<ControlFlow<()>>;
}

impl<F: FnMut(Step<'_>) -> ControlFlow<()>> Watch for F {
    fn see(&mut self, step: Step<'_>) -> Result<ControlFlow<()>> {
        Ok(self(step))
    }
}

/// Moves `sample` through the calls of the model that `span` names, from the first's place in the schedule to where
/// the last leads.
///
/// The one loop of every task and family: scale, predict, step, and put back what is given. `watch` sees the sample
/// after each call and may stop the run.
///
/// # Errors
/// [`Error::NonFinite`] naming the step as soon as a prediction holds NaN or infinity, [`Error::Interrupted`] naming the
/// step when `watch` breaks or the denoiser is cancelled, and whatever the denoiser fails with.
pub fn denoise(
    denoiser: &mut dyn Denoiser,
    scheduler: &mut dyn Scheduler,
    sample: &mut ArrayD<f32>,
    span: Range<usize>,
    keep: Option<&Keep>,
    noise: &mut dyn Noise,
    watch: &mut dyn Watch,
) -> Result<()> {
    let shape = IxDyn(sample.shape());
    let images = sample.shape().first().copied().unwrap_or(1);
    let x = sample
        .as_slice_mut()
        .ok_or_else(|| Error::input("latents", "the sample is not laid out in row-major order", ""))?;
    let mut scaled = vec![0.0; x.len()];
    let mut prediction = vec![0.0; x.len() * denoiser.outputs_per_input()];
    let mut estimate = Vec::new();
    let (begin, calls, order) = (span.start, span.len(), scheduler.order());
    let end = span.end;
    for step in span {
        let call = Call { index: step - begin, of: calls, order, timestep: scheduler.timesteps()[step] };
        scheduler.scale_input(step, x, &mut scaled);
        let position =
            StepPosition { step: call.step() + 1, steps: call.steps(), first_image: 0, images, total_images: images };
        let interrupted = || Error::Interrupted { at_step: Some(position) };
        denoiser.predict(&scaled, call, &mut prediction).map_err(|error| match error {
            Error::Interrupted { .. } => interrupted(),
            error => error,
        })?;
        require_finite(&prediction, "the denoiser's prediction", position.step, position.steps)?;
        let estimates = watch.wants_estimate(call.index + 1, calls, order);
        if estimates {
            estimate.resize(x.len(), 0.0);
            estimate_images(scheduler, step, &prediction, x, images, &mut estimate);
            keep.iter().for_each(|keep| keep.restore(scheduler, None, &mut estimate, &mut scaled));
        }
        scheduler.step(step, &prediction, x, noise)?;
        if let Some(keep) = keep {
            let next = Some(step + 1).filter(|&next| next < end);
            keep.restore(scheduler, next, x, &mut scaled);
        }
        require_finite(x, "the latents", position.step, position.steps)?;
        let seen = Step {
            call: call.index + 1,
            calls,
            timestep: call.timestep,
            sample: view(&shape, x)?,
            estimate: if estimates { Some(view(&shape, &estimate)?) } else { None },
        };
        if watch.see(seen)?.is_break() {
            return Err(interrupted());
        }
    }
    Ok(())
}

fn view<'a>(shape: &IxDyn, values: &'a [f32]) -> Result<ArrayViewD<'a, f32>> {
    ndarray::ArrayView::from_shape(shape.clone(), values)
        .map_err(|e| Error::input("latents", format!("the sample does not have its own shape: {e}"), ""))
}

/// Writes the image that the model sees in each sample of a batch to `out`. A prediction may hold a variance behind
/// each image's own values.
fn estimate_images(
    scheduler: &dyn Scheduler,
    step: usize,
    prediction: &[f32],
    x: &[f32],
    images: usize,
    out: &mut [f32],
) {
    let size = (x.len() / images.max(1)).max(1);
    let predictions = prediction.chunks((prediction.len() / images.max(1)).max(1));
    for ((x, out), prediction) in x.chunks(size).zip(out.chunks_mut(size)).zip(predictions) {
        scheduler.estimate(step, prediction.get(..x.len()).unwrap_or(prediction), x, out);
    }
}
