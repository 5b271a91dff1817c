//! One model at work on one batch: latents, then images.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use ndarray::ArrayD;

use super::denoising::{DenoisingLoop, LoopOutcome};
use super::event::{ExecutionEvent, Observer};
use super::finished_image::Timings;
use super::interrupt::report;
use super::parts::{Opener, Parts};
use super::pool::Pool;
use super::short_memory::unloaded;
use crate::denoise::{BatchNoise, DeviceCopies, Evaluations};
use crate::error::{Error, ErrorKind, Result};
use crate::image;
use crate::plan::{ControlPart, ExecutionPlan, RunPlan, RunSettings};
use crate::scheduler::Scheduler;
use crate::session::{Cancel, Runtime};
use crate::task::{Paste, StageOutput};
use crate::text::PromptCache;

/// One model at work. Its open graphs return to the pool when it is dropped.
pub(super) struct ModelRun<'a> {
    pub(super) plan: &'a ExecutionPlan,
    pub(super) request: &'a RunPlan,
    pub(super) runtime: &'a Runtime,
    pub(super) pool: &'a mut Pool,
    pub(super) parts: Parts,
    pub(super) encodings: PromptCache,
    /// True if parts stay open once they have done their work.
    pub(super) stay: bool,
    pub(super) cancel: &'a Cancel,
}

impl Drop for ModelRun<'_> {
    fn drop(&mut self) {
        self.parts.return_to(self.pool);
    }
}

/// The inputs of a batch.
pub(super) struct BatchInput<'a> {
    /// The indices of its images in the request.
    pub(super) indices: Range<usize>,
    pub(super) scheduler: &'a dyn Scheduler,
    /// The steps that are run.
    pub(super) span: Range<usize>,
    /// The results of the stage before this one, if there is one.
    pub(super) handed: Option<StageOutput<'a>>,
}

/// A batch whose latents are done.
pub(super) struct DenoisedBatch {
    pub(super) indices: Range<usize>,
    /// `[n, c, h/f, w/f]`.
    pub(super) latents: ArrayD<f32>,
    pub(super) paste: Option<Paste>,
    pub(super) calls: usize,
    pub(super) evaluations: Evaluations,
    /// The copies of a loop on the provider's device; `None` if it was the host's.
    pub(super) device_copies: Option<DeviceCopies>,
    /// The request's settings as it was run.
    pub(super) settings: Arc<RunSettings>,
    /// The precision of the denoiser ([`ExecutionPlan::precision`]).
    pub(super) precision: String,
    /// Each image's share of the time that it took.
    pub(super) seconds: f64,
}

impl<'a> ModelRun<'a> {
    pub(super) fn new(
        (plan, request): (&'a ExecutionPlan, &'a RunPlan),
        runtime: &'a Runtime,
        pool: &'a mut Pool,
        stay: bool,
        cancel: &'a Cancel,
    ) -> Self {
        pool.close_damaged(plan.graph_cache.as_ref());
        let encodings = pool.encodings(plan);
        let stay = stay && !pool.is_short_of_memory();
        Self { plan, request, runtime, pool, parts: Parts::default(), encodings, stay, cancel }
    }

    /// Makes the latents of one batch. `handed` is the result of the stage before it, if there is one.
    pub(super) fn denoise(
        &mut self,
        indices: Range<usize>,
        handed: Option<StageOutput<'_>>,
        observer: &mut Observer<'_>,
        timings: &mut Timings,
    ) -> Result<DenoisedBatch> {
        let request = self.request;
        let of = request.total_images();
        let (first, images) = (indices.start, indices.len());
        let started = Instant::now();
        report(observer, self.cancel, ExecutionEvent::Preparing { first, images, of })?;
        let seeds: Vec<u64> = indices.clone().map(|i| request.seed_of(i)).collect();
        let mut noise = BatchNoise::new(request.noise, &seeds);
        let mut scheduler = request.scheduler.build(&request.schedule(images))?;
        let span = request.scheduler.span(scheduler.as_ref(), request.denoising_start, request.denoising_end)?;
        let input = BatchInput { indices: indices.clone(), scheduler: scheduler.as_ref(), span: span.clone(), handed };
        let (start, mut opened) = self.start(input, &mut noise, observer, timings)?;
        let control_images = self.control_images()?;
        self.release(|parts| &mut parts.beginning);
        let opening = Instant::now();
        self.open_denoising(observer)?;
        let parts =
            self.parts.denoising.as_mut().ok_or_else(|| Error::internal("pipeline", "the denoiser is closed"))?;
        opened += opening.elapsed();
        let prepared = Instant::now();
        let denoising = DenoisingLoop {
            plan: self.plan,
            request,
            cancel: self.cancel,
            images: indices.clone(),
            control_images: &control_images,
            end: span.end,
        };
        let outcome = denoising.run(parts, start, scheduler.as_mut(), &mut noise, observer)?;
        let LoopOutcome { latents, paste, calls, evaluations, device_copies, previews } = outcome;
        let denoised = Instant::now();
        timings.open += opened.as_secs_f64();
        timings.prepare += (prepared - started - opened).as_secs_f64();
        timings.preview += previews.as_secs_f64();
        timings.calls += calls;
        timings.evaluations += evaluations;
        timings.denoise += (denoised - prepared - previews).as_secs_f64();
        self.release(|parts| &mut parts.denoising);
        self.wait_checked()?;
        let seconds = (denoised - started).as_secs_f64() / images as f64;
        let settings = Arc::new(RunSettings::of(request, &self.plan.model));
        let precision = self.plan.precision();
        Ok(DenoisedBatch { indices, latents, paste, calls, evaluations, device_copies, settings, precision, seconds })
    }

    /// Opens the graphs that the denoising loop runs, if no memory is left once more after the others are unloaded.
    fn open_denoising(&mut self, observer: &mut Observer<'_>) -> Result<()> {
        let mut opener = Opener::new(self.plan, self.runtime, self.pool, self.cancel, observer);
        let opened = opener.denoising(&mut self.parts, self.stay).map(drop);
        match opened {
            Err(error) if error.kind() == ErrorKind::Memory && self.unload_others() => {
                let warning = unloaded(&error, "the denoiser is opened again");
                report(observer, self.cancel, ExecutionEvent::Warning(warning))?;
                let mut opener = Opener::new(self.plan, self.runtime, self.pool, self.cancel, observer);
                opener.denoising(&mut self.parts, false).map(drop)
            }
            opened => opened,
        }
    }

    /// Closes a part that has done its work, if parts are not kept open.
    pub(super) fn release<T>(&mut self, part: impl FnOnce(&mut Parts) -> &mut Option<T>) {
        if !self.stay {
            *part(&mut self.parts) = None;
        }
    }

    /// Waits until the optimized graphs that were opened are checked, so that no image is handed out that a damaged one
    /// made.
    pub(super) fn wait_checked(&self) -> Result<()> {
        self.plan.graph_cache.as_ref().map_or(Ok(()), |cache| cache.wait_checked(self.cancel))
    }

    /// The images that the control networks follow, `[1, 3, h, w]` in [0, 1].
    fn control_images(&self) -> Result<Vec<ArrayD<f32>>> {
        let request = self.request;
        let read = |control: &ControlPart| {
            let image = control.image.load(request.input_limit)?;
            let image = image::resize(image.as_ref(), request.width, request.height)?;
            Ok(image::to_unit_tensor(&image).into_dyn())
        };
        self.plan.model.controls.iter().map(read).collect()
    }
}
