//! The denoising loop, guidance, and the conditions of a denoiser.

mod batch_noise;
pub mod cache;
mod condition;
mod control;
mod device;
mod feed;
mod form;
mod graph;
mod guidance;
mod packing;
mod run_interval;
mod shallow;
#[cfg(test)]
mod tests;
mod unmasked_latents;

use std::ops::Range;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::error::{Error, Result, StepPosition};
use crate::scheduler::{Noise, Scheduler};
use crate::tensor::require_finite;

pub use batch_noise::BatchNoise;
pub use cache::{CachedDenoiser, StepCache};
pub use condition::Condition;
pub use control::{Control, ControlWeight};
pub use device::{DeviceCopies, DeviceLoop, DeviceObstacle, RunNoise, StepSession};
pub use graph::{Batch, GraphDenoiser};
pub use guidance::{Guidance, GuidanceBranch};
pub use run_interval::RunInterval;
pub use shallow::Shallow;
pub use unmasked_latents::UnmaskedLatents;

/// One evaluation of the model in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// Its index, counted from 0.
    pub index: usize,
    /// The evaluations of the run.
    pub total: usize,
    /// Evaluations per step of the scheduler.
    pub order: usize,
    /// The timestep.
    pub timestep: f64,
}

impl Call {
    /// True for the last evaluation of the run.
    pub fn is_last(self) -> bool {
        self.index + 1 == self.total
    }

    /// Returns the scheduler step of this evaluation, counted from 0.
    pub fn step(self) -> usize {
        self.index / self.order.max(1)
    }

    /// Returns the steps of the run.
    pub fn steps(self) -> usize {
        self.total.div_ceil(self.order.max(1))
    }

    fn position(self, images: usize) -> StepPosition {
        StepPosition { step: self.step() + 1, steps: self.steps(), first_image: 0, images, total_images: images }
    }
}

/// The number of function evaluations (NFE) of a run. Each branch of the guidance counts separately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Evaluations {
    /// Evaluations of the full model.
    pub made: usize,
    /// Evaluations of its shallow layers alone.
    pub shallow: usize,
    /// Evaluations of the same run without a guidance interval or caching.
    pub total: usize,
}

impl std::ops::AddAssign for Evaluations {
    fn add_assign(&mut self, other: Self) {
        self.made += other.made;
        self.shallow += other.shallow;
        self.total += other.total;
    }
}

/// A model that predicts noise, velocity, flow or the original sample from a noisy sample.
pub trait Denoiser {
    /// Writes the guided prediction for `sample` (flat `[n, c, h, w]`, already scaled for the model) to `prediction`,
    /// one part per image.
    ///
    /// # Errors
    /// The model's error, or [`Error::Interrupted`].
    fn predict(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<()>;

    /// Predicts like [`Denoiser::predict`], but evaluates only the shallow layers, on the latest output of the deep
    /// layers. Returns `false` and writes nothing if that is not possible.
    ///
    /// # Errors
    /// As [`Denoiser::predict`].
    fn predict_shallow(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<bool> {
        let _ = (sample, call, prediction);
        Ok(false)
    }

    /// Rejects NaN and infinity in a prediction. The error names the model.
    ///
    /// # Errors
    /// [`Error::NonFinite`].
    fn require_finite(&self, prediction: &[f32], call: Call) -> Result<()> {
        require_finite(prediction, "the denoiser's prediction", call.step() + 1, call.steps())
    }

    /// Returns the number of predicted values per value of the sample: 2 if the model predicts variances too.
    fn outputs_per_input(&self) -> usize {
        1
    }

    /// Returns the evaluations of the full model so far, each branch of the guidance counted separately.
    fn evaluations(&self) -> usize;

    /// Returns the evaluations of its shallow layers alone, counted in the same way.
    fn shallow_evaluations(&self) -> usize {
        0
    }

    /// Returns true if this evaluation is not comparable with the one before, because a branch of the guidance or a
    /// control network starts or ends between them.
    fn changes_at(&self, call: Call) -> bool {
        let _ = call;
        false
    }
}

/// The state of a run after an evaluation.
#[derive(Debug)]
pub struct Step<'a> {
    /// The evaluation just made, counted from 1.
    pub call: usize,
    /// Evaluations of this run.
    pub calls: usize,
    /// The timestep of this evaluation.
    pub timestep: f64,
    /// The images that are denoised at once.
    pub images: usize,
    /// The sample after the step, `[n, c, h/f, w/f]`, float32; `None` if it is on a device and not requested by
    /// [`StepWatcher::wants_sample`].
    pub sample: Option<ArrayViewD<'a, f32>>,
    /// The predicted original sample (x0) at this evaluation, of the same shape, if requested by
    /// [`StepWatcher::wants_x0`].
    pub x0: Option<ArrayViewD<'a, f32>>,
}

/// Observes the steps of a run. Implemented by every `FnMut(Step<'_>)`.
pub trait StepWatcher {
    /// Returns true to receive the predicted original sample of this evaluation, counted from 1. The run is the same
    /// either way.
    fn wants_x0(&mut self, call: usize, calls: usize, order: usize) -> bool {
        let _ = (call, calls, order);
        false
    }

    /// Returns true to receive the sample after every step. From a loop on a device that is a copy a step.
    fn wants_sample(&self) -> bool {
        true
    }

    /// Observes a step.
    ///
    /// # Errors
    /// The watcher's error, which ends the run; [`Error::Interrupted`] if the run is cancelled.
    fn observe(&mut self, step: Step<'_>) -> Result<()>;
}

impl<F: FnMut(Step<'_>)> StepWatcher for F {
    fn observe(&mut self, step: Step<'_>) -> Result<()> {
        self(step);
        Ok(())
    }
}

/// Denoises `sample` in place over the evaluations `span`, indices into the scheduler's timesteps.
///
/// The one loop of all tasks and families: scale, predict, step, and restore the unmasked latents. `watch` observes the
/// sample after each evaluation.
///
/// # Errors
/// [`Error::NonFinite`] naming the step as soon as a prediction holds NaN or infinity, [`Error::Interrupted`] naming
/// the step if the run is cancelled, and the denoiser's errors.
pub fn denoise(
    denoiser: &mut dyn Denoiser,
    scheduler: &mut dyn Scheduler,
    sample: &mut ArrayD<f32>,
    span: Range<usize>,
    unmasked: Option<&UnmaskedLatents>,
    noise: &mut dyn Noise,
    watch: &mut dyn StepWatcher,
) -> Result<()> {
    let shape = IxDyn(sample.shape());
    let images = sample.shape().first().copied().unwrap_or(1);
    let x = sample
        .as_slice_mut()
        .ok_or_else(|| Error::input("latents", "the sample is not laid out in row-major order", ""))?;
    let mut scaled = vec![0.0; x.len()];
    let mut prediction = vec![0.0; x.len() * denoiser.outputs_per_input()];
    let mut x0 = Vec::new();
    let (begin, calls, order) = (span.start, span.len(), scheduler.order());
    let end = span.end;
    for step in span {
        let call = Call { index: step - begin, total: calls, order, timestep: scheduler.timesteps()[step] };
        scheduler.scale_model_input(step, x, &mut scaled);
        let position = call.position(images);
        let at_step = |error: Error| at_step(error, position);
        denoiser.predict(&scaled, call, &mut prediction).map_err(at_step)?;
        denoiser.require_finite(&prediction, call)?;
        let wants_x0 = watch.wants_x0(call.index + 1, calls, order);
        if wants_x0 {
            x0.resize(x.len(), 0.0);
            predict_x0(scheduler, step, &prediction, x, images, &mut x0);
            unmasked.iter().for_each(|unmasked| unmasked.restore(scheduler, None, &mut x0, &mut scaled));
        }
        scheduler.step(step, &prediction, x, noise)?;
        if let Some(unmasked) = unmasked {
            let next = Some(step + 1).filter(|&next| next < end);
            unmasked.restore(scheduler, next, x, &mut scaled);
        }
        require_finite(x, "the latents", position.step, position.steps)?;
        let state = Step {
            call: call.index + 1,
            calls,
            timestep: call.timestep,
            images,
            sample: Some(view(&shape, x)?),
            x0: if wants_x0 { Some(view(&shape, &x0)?) } else { None },
        };
        watch.observe(state).map_err(at_step)?;
    }
    Ok(())
}

/// Adds the step at which a run was cancelled.
fn at_step(error: Error, position: StepPosition) -> Error {
    match error {
        Error::Interrupted { .. } => Error::Interrupted { at_step: Some(position) },
        error => error,
    }
}

fn view<'a>(shape: &IxDyn, values: &'a [f32]) -> Result<ArrayViewD<'a, f32>> {
    ndarray::ArrayView::from_shape(shape.clone(), values)
        .map_err(|e| Error::input("latents", format!("the sample does not have its own shape: {e}"), ""))
}

/// Writes the predicted original sample of each image of a batch to `out`. A prediction can hold variances after each
/// image's values.
fn predict_x0(scheduler: &dyn Scheduler, step: usize, prediction: &[f32], x: &[f32], images: usize, out: &mut [f32]) {
    let size = (x.len() / images.max(1)).max(1);
    let predictions = prediction.chunks((prediction.len() / images.max(1)).max(1));
    for ((x, out), prediction) in x.chunks(size).zip(out.chunks_mut(size)).zip(predictions) {
        scheduler.predict_x0(step, prediction.get(..x.len()).unwrap_or(prediction), x, out);
    }
}
