//! The denoising loop of one batch, on open graphs.

use std::ops::Range;
use std::time::Duration;

use ndarray::ArrayD;

use super::event::{ExecutionEvent, Observer};
use super::interrupt::{of_images, report};
use super::parts::Denoising;
use super::previews::Watching;
use crate::denoise::{
    Batch, BatchNoise, CachedDenoiser, Control, Denoiser, DeviceCopies, DeviceLoop, DeviceObstacle, DrawnNoise,
    Evaluations, GraphDenoiser, Shallow, denoise,
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
            tiles: plan.decoding_tiles(request.tiles).filter(|tiles| tiles.is_split(height, width)),
            cache: plan.graph_cache.as_ref(),
            cancel,
            calls: 0,
            took: Duration::ZERO,
        };
        let steps = begin..self.end;
        let full = steps.len() * guidance.branches().len();
        let linear = self.linear_steps(&model, steps.clone())?;
        let mut device_copies = None;
        let denoised = match linear {
            Some(linear) => {
                let run = DeviceLoop { scheduler, steps: &linear, span: steps, unmasked: keep.as_ref() };
                let mut stepped = request.scheduler.build(&request.schedule(self.images.len()))?;
                let drawn = DrawnNoise { scheduler: stepped.as_mut(), noise };
                run.run(&mut model, &mut sample, drawn, &mut watch).map(|copies| device_copies = Some(copies))
            }
            None => {
                let mut cached = request.cache.as_ref().map(|cache| CachedDenoiser::new(&mut model, cache));
                let asked: &mut dyn Denoiser = match &mut cached {
                    Some(cached) => cached,
                    None => &mut model,
                };
                denoise(asked, scheduler, &mut sample, steps, keep.as_ref(), noise, &mut watch)
            }
        };
        denoised.map_err(|error| of_images(error, first, of))?;
        let evaluations = Evaluations { made: model.evaluations(), shallow: model.shallow_evaluations(), total: full };
        let Watching { calls, took: previews, .. } = watch;
        Ok(LoopOutcome { latents: sample, paste, calls, evaluations, device_copies, previews })
    }

    /// Returns the run's steps for a loop on the device; `None` for the loop on the host.
    fn linear_steps(&self, model: &GraphDenoiser<'_>, span: Range<usize>) -> Result<Option<LinearSteps>> {
        let chosen = self.plan.device.denoising_loop;
        let wants_device = match chosen {
            LoopPlace::Host => false,
            LoopPlace::Device => true,
            LoopPlace::Auto => model.has_device_memory(),
        };
        if !wants_device {
            return Ok(None);
        }
        let cache = self.request.cache.as_ref().map(|_| DeviceObstacle::Cache);
        let obstacle = match cache.or_else(|| model.obstacle()) {
            Some(obstacle) => obstacle,
            None => {
                let build = || self.request.scheduler.build(&self.request.schedule(1));
                match LinearSteps::find(build, span, model.outputs_per_input())? {
                    Some(steps) => return Ok(Some(steps)),
                    None => DeviceObstacle::Scheduler,
                }
            }
        };
        if chosen == LoopPlace::Device {
            let help = "leave denoising_loop out, and samples are in the host's memory between two steps";
            return Err(Error::input("device.denoising_loop", format!("\"device\": {obstacle}"), help));
        }
        tracing::info!("samples are in the host's memory between two steps: {obstacle}");
        Ok(None)
    }
}
