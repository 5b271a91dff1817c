//! The denoising loop of one batch, on open graphs.

use std::ops::Range;
use std::time::Duration;

use ndarray::ArrayD;

use super::event::{ExecutionEvent, Observer};
use super::interrupt::{of_images, report};
use super::parts::Denoising;
use super::previews::Watching;
use crate::denoise::{
    Batch, BatchNoise, CachedDenoiser, Control, Denoiser, DeviceCopies, DeviceLoop, DeviceObstacle, Evaluations,
    GraphDenoiser, RunNoise, Shallow, StepWatcher, UnmaskedLatents, denoise,
};
use crate::error::{Error, Result};
use crate::plan::{ExecutionPlan, RunPlan};
use crate::scheduler::{LinearSteps, Scheduler};
use crate::session::Cancel;
use crate::spec::DenoisingLoop as LoopPlace;
use crate::task::{Paste, Start};

/// The denoising loop of one batch.
pub(super) struct DenoisingLoop<'a> {
    pub(super) plan: &'a ExecutionPlan,
    pub(super) request: &'a RunPlan,
    pub(super) cancel: &'a Cancel,
    /// The indices of the batch's images in the request.
    pub(super) images: Range<usize>,
    /// The images that the control networks follow.
    pub(super) control_images: &'a [ArrayD<f32>],
    /// The step before which the loop ends.
    pub(super) end: usize,
}

/// The result of a denoising loop.
pub(super) struct LoopOutcome {
    /// `[n, c, h/f, w/f]`.
    pub(super) latents: ArrayD<f32>,
    pub(super) paste: Option<Paste>,
    pub(super) calls: usize,
    pub(super) evaluations: Evaluations,
    /// The copies of a loop on the provider's device; `None` if it was the host's.
    pub(super) device_copies: Option<DeviceCopies>,
    /// The time that previews took.
    pub(super) previews: Duration,
}

impl DenoisingLoop<'_> {
    /// Runs the steps of a batch from its start.
    pub(super) fn run(
        &self,
        parts: &mut Denoising,
        start: Start,
        scheduler: &mut dyn Scheduler,
        noise: &mut BatchNoise,
        observer: &mut Observer<'_>,
    ) -> Result<LoopOutcome> {
        let (plan, request, cancel) = (self.plan, self.request, self.cancel);
        let (first, of) = (self.images.start, request.total_images());
        let Start { mut sample, begin, condition, guidance, keep, paste } = start;
        let Denoising { denoiser: (_, denoiser), shallow, controls, preview, .. } = parts;
        let signature = &plan.model.model.denoiser;
        let sample_shape = plan.model.sample_shape(request.width, request.height);
        let by_row = plan.runs_by_row();
        let batch = Batch { images: self.images.len(), sample: sample_shape, tiles: request.tiles, by_row };
        let controls = controls.iter_mut().zip(&plan.model.controls).zip(self.control_images);
        let controls = controls
            .map(|(((_, session), part), image)| Control::new(session, &part.part.signature, image, part.weight));
        let cuts = request.cache.as_ref().is_some_and(|cache| cache.branch().is_some());
        let tensor = plan.model.shallow.as_ref().map(|shallow| shallow.tensor.as_str());
        let shallow = shallow.as_mut().zip(tensor).filter(|_| cuts);
        let mut model = GraphDenoiser::new(denoiser, signature, batch, condition, guidance, cancel)?
            .with_controls(controls.collect())
            .with_outer(shallow.map(|((_, session), tensor)| Shallow::new(session, tensor)))
            .with_guidance_interval(request.guidance_interval);
        report(observer, cancel, ExecutionEvent::Denoising { first, of })?;
        let [_, height, width] = sample_shape;
        let mut watch = Watching {
            observer,
            first,
            of,
            preview: preview.as_mut().zip(plan.model.preview.as_ref().map(|preview| preview.every)),
            tiles: plan.decoding_tiles().filter(|tiles| tiles.is_split(height, width)),
            cache: plan.graph_cache.as_ref(),
            cancel,
            calls: 0,
            took: Duration::ZERO,
        };
        let steps = begin..self.end;
        let full = steps.len() * guidance.branches().len();
        let unmasked = keep.as_ref();
        let of_run = |error| of_images(error, first, of);
        let on_device =
            self.denoise_on_device(&mut model, scheduler, &mut sample, (steps.clone(), unmasked), noise, &mut watch);
        let device_copies = on_device.map_err(of_run)?;
        if device_copies.is_none() {
            let mut cached = request.cache.as_ref().map(|cache| CachedDenoiser::new(&mut model, cache));
            let asked: &mut dyn Denoiser = match &mut cached {
                Some(cached) => cached,
                None => &mut model,
            };
            denoise(asked, scheduler, &mut sample, steps, unmasked, noise, &mut watch).map_err(of_run)?;
        }
        let evaluations = Evaluations { made: model.evaluations(), shallow: model.shallow_evaluations(), total: full };
        let Watching { calls, took: previews, .. } = watch;
        Ok(LoopOutcome { latents: sample, paste, calls, evaluations, device_copies, previews })
    }

    /// Denoises on the provider's device, and returns the number of copies; `None`, with nothing done, for the loop on the
    /// host.
    fn denoise_on_device(
        &self,
        model: &mut GraphDenoiser<'_>,
        scheduler: &dyn Scheduler,
        sample: &mut ArrayD<f32>,
        (span, unmasked): (Range<usize>, Option<&UnmaskedLatents>),
        noise: &mut BatchNoise,
        watch: &mut dyn StepWatcher,
    ) -> Result<Option<DeviceCopies>> {
        let chosen = self.plan.device.denoising_loop;
        let is_wanted = match chosen {
            LoopPlace::Host => false,
            LoopPlace::Device => true,
            LoopPlace::Auto => model.has_device_memory(),
        };
        if !is_wanted {
            return Ok(None);
        }
        let steps = match self.linear_steps(model, span.clone(), sample.len(), unmasked.is_some())? {
            Ok(steps) => steps,
            Err(obstacle) if chosen == LoopPlace::Device => {
                let help = "leave denoising_loop out, and samples are in the host's memory between two steps";
                return Err(Error::input("device.denoising_loop", format!("\"device\": {obstacle}"), help));
            }
            Err(obstacle) => {
                tracing::info!("samples are in the host's memory between two steps: {obstacle}");
                return Ok(None);
            }
        };
        let run = DeviceLoop { scheduler, steps: &steps, span, unmasked };
        let opened = match run.open(model, sample) {
            Ok(opened) => opened,
            Err(error) if chosen == LoopPlace::Device || self.cancel.is_cancelled() => return Err(error),
            Err(error) => {
                tracing::info!("samples are in the host's memory between two steps: {error}");
                return Ok(None);
            }
        };
        let mut stepped = self.request.scheduler.build(&self.request.schedule(self.images.len()))?;
        let noise = RunNoise { scheduler: stepped.as_mut(), noise };
        run.run(model, opened, sample, noise, watch).map(Some)
    }

    /// Returns the run's steps as linear combinations, or the reason why the loop has to be on the host.
    fn linear_steps(
        &self,
        model: &GraphDenoiser<'_>,
        span: Range<usize>,
        sample_len: usize,
        is_masked: bool,
    ) -> Result<Result<LinearSteps, DeviceObstacle>> {
        /// The most bytes of noise and of preserved latents.
        const MOST: usize = 1 << 30;
        let cache = self.request.cache.as_ref().map(|_| DeviceObstacle::Cache);
        if let Some(obstacle) = cache.or_else(|| model.obstacle()) {
            return Ok(Err(obstacle));
        }
        let bytes = span.len() * sample_len * size_of::<f32>();
        let build = || self.request.scheduler.build(&self.request.schedule(1));
        Ok(match LinearSteps::find(build, span, model.outputs_per_input())? {
            None => Err(DeviceObstacle::Scheduler),
            Some(steps) if bytes * (usize::from(steps.draws_noise) + usize::from(is_masked)) > MOST => {
                Err(DeviceObstacle::Size)
            }
            Some(steps) => Ok(steps),
        })
    }
}
