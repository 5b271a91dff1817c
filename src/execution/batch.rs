//! One model at work on one batch: latents, then images.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{ArrayD, Axis, Slice};

use super::parts::{Beginning, Decoding, Denoising, Opener, Parts};
use super::pool::Pool;
use super::previews::Watching;
use super::{ExecutionEvent, FinishedImage, Observer, Timings, stop_if};
use crate::denoise::{
    Batch, BatchNoise, CachedDenoiser, Control, Denoiser, Evaluations, GraphDenoiser, Shallow, denoise,
};
use crate::error::{Error, Result, StepPosition};
use crate::image;
use crate::plan::{ControlPart, ModelPlan, RunPlan, RunSettings};
use crate::session::{Cancel, Runtime};
use crate::task::{self, Paste, PreparedCondition, StageOutput, TaskContext};
use crate::text::PromptCache;

/// One model at work. Its open graphs return to the pool when it is dropped.
pub(super) struct ModelRun<'a> {
    plan: &'a ModelPlan,
    request: &'a RunPlan,
    runtime: &'a Runtime,
    pool: &'a mut Pool,
    parts: Parts,
    encodings: PromptCache,
    /// True if parts stay open once they have done their work.
    pub(super) stay: bool,
    cancel: &'a Cancel,
}

impl Drop for ModelRun<'_> {
    fn drop(&mut self) {
        self.parts.return_to(self.pool);
    }
}

/// A batch whose latents are done.
pub(super) struct DenoisedBatch {
    indices: Range<usize>,
    /// `[n, c, h/f, w/f]`.
    pub(super) latents: ArrayD<f32>,
    paste: Option<Paste>,
    pub(super) calls: usize,
    pub(super) evaluations: Evaluations,
    /// The request's settings as it was run.
    pub(super) settings: Arc<RunSettings>,
    /// Each image's share of the time that it took.
    pub(super) seconds: f64,
}

impl<'a> ModelRun<'a> {
    pub(super) fn new(
        (plan, request): (&'a ModelPlan, &'a RunPlan),
        runtime: &'a Runtime,
        pool: &'a mut Pool,
        stay: bool,
        cancel: &'a Cancel,
    ) -> Self {
        pool.close_damaged(plan.prepared.as_ref());
        let encodings = pool.encodings(plan);
        Self { plan, request, runtime, pool, parts: Parts::default(), encodings, stay, cancel }
    }

    /// Makes the latents of one batch. `handed` is what the stage before made for it, where there is one.
    pub(super) fn draw(
        &mut self,
        indices: Range<usize>,
        handed: Option<StageOutput<'_>>,
        observer: &mut dyn Observer,
        timings: &mut Timings,
    ) -> Result<DenoisedBatch> {
        let (plan, request, cancel) = (self.plan, self.request, self.cancel);
        let of = request.total_images();
        let (first, images) = (indices.start, indices.len());
        let started = Instant::now();
        stop_if(observer.notice(ExecutionEvent::Preparing { first, images, of }), None)?;
        let prompts: Vec<usize> = indices.clone().map(|i| i / request.images).collect();
        let seeds: Vec<u64> = indices.clone().map(|i| request.seed_of(i)).collect();
        let mut noise = BatchNoise::new(request.noise, &seeds);
        let mut scheduler = request.scheduler.build(&request.schedule(images))?;
        let span = request.scheduler.span(scheduler.as_ref(), request.denoising_start, request.denoising_end)?;
        let sample_shape = plan.sample_shape(request.width, request.height);
        let mut warnings = if first == 0 { plan.warnings() } else { Vec::new() };
        let timestep = &plan.model.denoiser.timestep;
        if first == 0
            && timestep.dtype.is_integer()
            && scheduler.timesteps()[span.clone()].iter().any(|t| t.fract() != 0.0)
        {
            warnings.push(format!(
                "the schedule steps between whole timesteps and the denoiser's input {} takes whole ones only, so they \
                 are rounded; export the model with a float timestep for the exact image",
                timestep.name
            ));
        }
        let opening = Instant::now();
        let mut opener = Opener::new(plan, self.runtime, self.pool, cancel, observer);
        let texts = |&prompt: &usize| task::texts(request.task.as_ref(), &plan.model, prompt);
        let encodings = self.encodings.clone();
        let (stay, encoded) = (self.stay, encodings.encoded_count());
        let encodes = stay || !prompts.iter().all(|prompt| encodings.contains(&texts(prompt)));
        let Beginning { text, class_embedder, conditioners, encoder, .. } =
            opener.beginning(&mut self.parts, encodes, &encodings)?;
        let mut opened = opening.elapsed();
        let mut start = request.task.start(&mut TaskContext {
            model: &plan.model,
            total_images: of,
            first,
            prompts: &prompts,
            sample_shape,
            size: (request.width, request.height),
            input_limit: request.input_limit,
            steps: request.steps,
            is_planned: request.planned_strength.is_some(),
            denoising_start: request.denoising_start.map(|_| span.start),
            scheduler: scheduler.as_ref(),
            noise: &mut noise,
            stage_output: handed,
            given: request.latents.as_ref().map(|given| task::rows(given, indices.clone())),
            text: text.as_mut(),
            class_embedder: class_embedder.as_mut().map(|(_, part)| part),
            encoder: encoder.as_mut().map(|(_, part)| part),
            cancel,
            warn: &mut |warning| warnings.push(warning),
        })?;
        let conditions = plan.conditions.iter().zip(conditioners);
        let conditions = conditions.map(|(part, graph)| PreparedCondition {
            condition: &part.condition,
            graph: graph.as_mut().map(|(_, part)| part),
            known: part.known,
            limit: request.input_limit,
        });
        start.tell(conditions.collect(), images, (request.width, request.height), cancel)?;
        // Text encoders that are not kept open need not be opened again for the batches after this one.
        if let Some(text) = text.as_mut().filter(|text| !stay && text.is_open()) {
            let mut later: Vec<usize> = (indices.end..request.indices()?.end).map(|i| i / request.images).collect();
            later.dedup();
            for prompt in later.iter().take_while(|_| !encodings.is_full()) {
                text.encode(&texts(prompt), cancel, &mut |warning| warnings.push(warning))?;
            }
        }
        timings.texts += encodings.encoded_count() - encoded;
        for warning in warnings {
            stop_if(observer.notice(ExecutionEvent::Warning(warning)), None)?;
        }
        let task::Start { mut sample, begin, condition, guidance, keep, paste } = start;
        let controlling = self.controlling_images()?;
        let opening = Instant::now();
        self.release(|parts| &mut parts.beginning);
        let mut opener = Opener::new(plan, self.runtime, self.pool, cancel, observer);
        let Denoising { denoiser: (_, denoiser), shallow, controls, preview, .. } =
            opener.denoising(&mut self.parts, stay)?;
        opened += opening.elapsed();
        let prepared = Instant::now();
        timings.open += opened.as_secs_f64();
        timings.prepare += (prepared - started - opened).as_secs_f64();

        let signature = &plan.model.denoiser;
        let batch = Batch { images, sample: sample_shape, tiles: request.tiles, by_row: plan.runs_by_row() };
        let model = GraphDenoiser::new(denoiser, signature, batch, condition, guidance, cancel)?;
        let controls = controls.iter_mut().zip(&plan.controls).zip(&controlling);
        let mut model = model.with_controls(
            controls
                .map(|(((_, session), part), image)| Control::new(session, &part.part.signature, image, part.weight))
                .collect(),
        );
        stop_if(observer.notice(ExecutionEvent::Denoising { first, of }), None)?;
        let [_, height, width] = sample_shape;
        let mut watch = Watching {
            observer,
            first,
            of,
            preview: preview.as_mut().zip(plan.preview.as_ref().map(|preview| preview.every)),
            tiles: plan.decoding_tiles(request.tiles).filter(|tiles| tiles.is_split(height, width)),
            cache: plan.prepared.as_ref(),
            cancel,
            calls: 0,
            took: Duration::ZERO,
        };
        let tensor = plan.shallow.as_ref().map(|shallow| shallow.tensor.as_str());
        let shallow =
            shallow.as_mut().zip(tensor).filter(|_| request.cache.as_ref().is_some_and(|c| c.branch().is_some()));
        model = model.with_outer(shallow.map(|((_, session), tensor)| Shallow::new(session, tensor)));
        let calls_made = begin..span.end;
        let full = calls_made.len() * guidance.branches().len();
        model = model.with_guidance_interval(request.guidance_interval);
        let mut cached = request.cache.as_ref().map(|cache| CachedDenoiser::new(&mut model, cache));
        let asked: &mut dyn Denoiser = match &mut cached {
            Some(cached) => cached,
            None => &mut model,
        };
        denoise(asked, scheduler.as_mut(), &mut sample, calls_made, keep.as_ref(), &mut noise, &mut watch)
            .map_err(|error| of_images(error, first, of))?;
        let evaluations = Evaluations { made: model.evaluations(), shallow: model.shallow_evaluations(), total: full };
        let Watching { calls, took: previewed, .. } = watch;
        let denoised = Instant::now();
        timings.preview += previewed.as_secs_f64();
        timings.calls += calls;
        timings.evaluations += evaluations;
        timings.denoise += (denoised - prepared - previewed).as_secs_f64();
        self.release(|parts| &mut parts.denoising);
        self.wait_checked()?;
        let seconds = (denoised - started).as_secs_f64() / images as f64;
        let settings = Arc::new(RunSettings::of(request, plan));
        Ok(DenoisedBatch { indices, latents: sample, paste, calls, evaluations, settings, seconds })
    }

    /// Makes the image of one row of a batch.
    pub(super) fn decode(
        &mut self,
        drawn: &DenoisedBatch,
        row: usize,
        observer: &mut dyn Observer,
        timings: &mut Timings,
    ) -> Result<FinishedImage> {
        let (plan, request, cancel) = (self.plan, self.request, self.cancel);
        let (index, of) = (drawn.indices.start + row, request.total_images());
        let opening = Instant::now();
        let mut opener = Opener::new(plan, self.runtime, self.pool, cancel, observer);
        let Decoding { decoder } = opener.decoding(&mut self.parts)?;
        timings.open += opening.elapsed().as_secs_f64();
        stop_if(observer.notice(ExecutionEvent::Decoding { index, of }), None)?;
        let decoding = Instant::now();
        let latents = drawn.latents.slice_axis(Axis(0), Slice::from(row..=row));
        let [_, height, width] = plan.sample_shape(request.width, request.height);
        let tiles = plan.decoding_tiles(request.tiles).filter(|tiles| tiles.is_split(height, width));
        let pixels = match (&mut *decoder, tiles) {
            (Some((_, decoder)), None) => decoder.decode(latents.view(), cancel)?,
            (Some((_, decoder)), Some(tiles)) => decoder.decode_tiled(latents.view(), tiles, cancel)?,
            (None, _) => latents.to_owned(),
        };
        let pixels = match &drawn.paste {
            Some(paste) => paste.into(&pixels)?,
            None => pixels,
        };
        let took = decoding.elapsed().as_secs_f64();
        timings.decode += took;
        if row + 1 == drawn.indices.len() {
            self.release(|parts| &mut parts.decoding);
        }
        self.wait_checked()?;
        let prompt = index / request.images;
        Ok(FinishedImage {
            index,
            prompt: request.task.labels().get(prompt).cloned().unwrap_or_default(),
            negative_prompt: request.negative_prompt(prompt).to_owned(),
            seed: request.seed_of(index),
            pixels: image::from_tensor(pixels.view())?,
            latents: latents.index_axis(Axis(0), 0).to_owned(),
            calls: drawn.calls,
            evaluations: vec![drawn.evaluations],
            settings: vec![Arc::clone(&drawn.settings)],
            seconds: drawn.seconds + took,
            stages: 0,
        })
    }

    /// Closes a part that has done its work, if parts are not kept open.
    fn release<T>(&mut self, part: impl FnOnce(&mut Parts) -> &mut Option<T>) {
        if !self.stay {
            *part(&mut self.parts) = None;
        }
    }

    /// Waits until the optimized graphs that were opened are checked, so that no image is handed out that a damaged one
    /// made.
    fn wait_checked(&self) -> Result<()> {
        self.plan.prepared.as_ref().map_or(Ok(()), |cache| cache.wait_checked(self.cancel))
    }

    /// The images that the control networks follow, `[1, 3, h, w]` in [0, 1].
    fn controlling_images(&self) -> Result<Vec<ArrayD<f32>>> {
        let request = self.request;
        let read = |control: &ControlPart| {
            let image =
                image::resize(&image::load(&control.image, request.input_limit)?, request.width, request.height)?;
            Ok(image::to_unit_tensor(&image).into_dyn())
        };
        self.plan.controls.iter().map(read).collect()
    }
}

/// Adds to an interrupted batch's error which images of the run it was making.
fn of_images(error: Error, first_image: usize, total_images: usize) -> Error {
    match error {
        Error::Interrupted { at_step: Some(at) } => {
            Error::Interrupted { at_step: Some(StepPosition { first_image, total_images, ..at }) }
        }
        error => error,
    }
}
