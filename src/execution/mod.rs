//! Load a pipeline once, run any number of requests, watch every step.

mod batching;
mod damage;
mod event;
mod finished_image;
mod parts;
mod previews;
mod stages;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{ArrayD, Axis, Slice};

use crate::denoise::{Batch, BatchNoise, Cached, Control, Denoiser, Evaluations, GraphDenoiser, Shallow, denoise};
use crate::error::{Error, Result, StepPosition};
use crate::graph_cache::CachedGraph;
use crate::image;
use crate::memory;
use crate::plan::{ControlPart, ModelPlan, RunPlan, RunSettings, ShallowPlan, Sizes};
use crate::session::{Cancel, Runtime};
use crate::task::{self, Given, Handed, Paste, TaskContext};

use damage::damages;
use parts::{Beginning, Decoding, Denoising, Opener, Parts};
use previews::Watching;

pub use event::{ExecutionEvent, Observer, Unwatched};
pub use finished_image::{FinishedImage, Timings};
pub use stages::Execution;

/// A model, opened and ready.
pub struct ModelExecution {
    plan: ModelPlan,
    runtime: Runtime,
    parts: Parts,
    /// The damaged files that the cache had found before the parts were opened.
    damages: usize,
}

/// A batch whose latents are done.
struct Drawn {
    indices: Range<usize>,
    /// `[n, c, h/f, w/f]`.
    latents: ArrayD<f32>,
    paste: Option<Paste>,
    calls: usize,
    evaluations: Evaluations,
    /// The request's settings as it was run.
    settings: Arc<RunSettings>,
    /// Each image's share of the time that it took.
    seconds: f64,
}

impl ModelExecution {
    /// Opens the graphs that the plan needs, or sees to it that they can be opened in an instant
    /// ([`ModelPlan::prepared`]); those are opened when it is their turn.
    ///
    /// # Errors
    /// [`Error::Graph`] where the runtime refuses a graph, [`Error::Provider`] where no provider of a list can be used,
    /// [`Error::Model`] where graph and tokenizer do not fit, [`Error::Memory`] if the machine has less memory free than a
    /// run takes, [`Error::Interrupted`] when the observer breaks.
    pub fn load(mut plan: ModelPlan, runtime: &Runtime, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Self> {
        let mut parts = Parts::default();
        let damages = damages(&plan);
        for note in plan.choose_providers(runtime)? {
            stop_if(observer.notice(ExecutionEvent::Warning(note)), None)?;
        }
        plan.measured = batching::known(&plan, runtime)?;
        if let Some(free) = memory::available()
            && let Some(warning) = plan.check_free_memory(free)?
        {
            stop_if(observer.notice(ExecutionEvent::Warning(warning)), None)?;
        }
        Opener::new(&plan, runtime, cancel, observer).load(&mut parts)?;
        if batching::is_due(&plan) {
            // It was opened for a way that may be another, and makes room.
            parts.denoising = None;
            plan.measured = batching::rows(&plan, runtime, cancel, observer)?;
        }
        Ok(Self { plan, runtime: runtime.clone(), parts, damages })
    }

    /// Optimizes ahead what can be ([`ModelPlan::prepared`]), and returns what is kept of each graph.
    ///
    /// # Errors
    /// As [`ModelExecution::load`]; [`Error::Io`] besides where something cannot be kept.
    pub fn prepare(
        plan: &ModelPlan,
        runtime: &Runtime,
        cancel: &Cancel,
        observer: &mut dyn Observer,
    ) -> Result<Vec<CachedGraph>> {
        let mut plan = plan.clone();
        for note in plan.choose_providers(runtime)? {
            stop_if(observer.notice(ExecutionEvent::Warning(note)), None)?;
        }
        plan.measured = batching::known(&plan, runtime)?;
        let entries = |plan: &ModelPlan, observer: &mut dyn Observer| -> Result<Vec<CachedGraph>> {
            let made = Opener::new(plan, runtime, cancel, observer).prepare();
            made.into_iter().map(|(_, entry)| entry).collect()
        };
        let made = entries(&plan, observer)?;
        if !batching::is_due(&plan) {
            return Ok(made);
        }
        plan.measured = batching::rows(&plan, runtime, cancel, observer)?;
        if plan.runs_by_row() { Ok(made) } else { entries(&plan, observer) }
    }

    /// Opens every graph that is not open yet.
    ///
    /// # Errors
    /// As [`ModelExecution::load`].
    pub fn open_all(&mut self, cancel: &Cancel, observer: &mut dyn Observer) -> Result<()> {
        let mut opener = Opener::new(&self.plan, &self.runtime, cancel, observer);
        opener.beginning(&mut self.parts, true)?;
        opener.denoising(&mut self.parts)?;
        opener.decoding(&mut self.parts)?;
        Ok(())
    }

    /// What was opened.
    pub fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// Makes the images of a request, handing each to the observer as soon as it is finished. `cancel` stops the
    /// run from another thread, down to the length of one operator.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step, [`Error::Interrupted`], [`Error::Input`] where an input does not fit, and
    /// whatever the graphs fail with.
    pub fn run(&mut self, request: &RunPlan, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        self.make(request, false, cancel, observer)
    }

    /// As [`ModelExecution::run`], for the last request: each graph is closed as soon as no image needs it any more, so that
    /// what it held of the memory is free for those that come after it.
    ///
    /// # Errors
    /// As [`ModelExecution::run`].
    pub fn finish(mut self, request: &RunPlan, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        self.make(request, true, cancel, observer)
    }

    fn make(
        &mut self,
        request: &RunPlan,
        is_last: bool,
        cancel: &Cancel,
        observer: &mut dyn Observer,
    ) -> Result<Timings> {
        let mut timings = Timings::default();
        let indices = request.indices()?;
        let end = indices.end;
        for indices in batches(indices, request.batch) {
            if is_last && indices.end == end {
                self.parts.stay = false;
            }
            let drawn = self.draw(request, indices.clone(), None, cancel, observer, &mut timings)?;
            for row in 0..indices.len() {
                let image = self.decode(request, &drawn, row, cancel, observer, &mut timings)?;
                stop_if(observer.notice(ExecutionEvent::Image(&image)), None)?;
            }
        }
        Ok(timings)
    }

    /// Makes the latents of one batch. `handed` is what the stage before made for it, where there is one.
    fn draw(
        &mut self,
        request: &RunPlan,
        indices: Range<usize>,
        handed: Option<Handed<'_>>,
        cancel: &Cancel,
        observer: &mut dyn Observer,
        timings: &mut Timings,
    ) -> Result<Drawn> {
        self.plan.check_request(request)?;
        ShallowPlan::fits(self.plan.shallow.as_ref(), request.cache.as_ref())?;
        self.close_damaged();
        let sizes = Sizes::of(request, &self.plan.model);
        if self.plan.sizes.is_some_and(|opened| opened != sizes) {
            self.plan.sizes = Some(sizes);
            let encodings = self.parts.encodings.clone();
            self.parts = Parts { stay: self.parts.stay, encodings, ..Parts::default() };
        }
        let of = request.total_images();
        let (first, images) = (indices.start, indices.len());
        let started = Instant::now();
        stop_if(observer.notice(ExecutionEvent::Preparing { first, images, of }), None)?;
        let prompts: Vec<usize> = indices.clone().map(|i| i / request.images).collect();
        let seeds: Vec<u64> = indices.clone().map(|i| request.seed_of(i)).collect();
        let mut noise = BatchNoise::new(request.noise, &seeds);
        let mut scheduler = request.scheduler.build(&request.schedule(images))?;
        let span = request.scheduler.span(scheduler.as_ref(), request.denoising_start, request.denoising_end)?;
        let sample_shape = self.plan.sample_shape(request.width, request.height);
        let mut warnings = if first == 0 { self.plan.warnings() } else { Vec::new() };
        let timestep = &self.plan.model.denoiser.timestep;
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
        let mut opener = Opener::new(&self.plan, &self.runtime, cancel, observer);
        let texts = |&prompt: &usize| task::texts(request.task.as_ref(), &self.plan.model, prompt);
        let encodings = self.parts.encodings.clone();
        let (stay, encoded) = (self.parts.stay, encodings.made());
        let encodes = stay || !prompts.iter().all(|prompt| encodings.hold(&texts(prompt)));
        let Beginning { text, class_embedder, conditioners, encoder } = opener.beginning(&mut self.parts, encodes)?;
        let mut opened = opening.elapsed();
        let mut start = request.task.start(&mut TaskContext {
            model: &self.plan.model,
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
            handed,
            given: request.latents.as_ref().map(|given| task::rows(given, indices.clone())),
            text: text.as_mut(),
            class_embedder: class_embedder.as_mut(),
            encoder: encoder.as_mut(),
            cancel,
            warn: &mut |warning| warnings.push(warning),
        })?;
        let conditions = self.plan.conditions.iter().zip(conditioners);
        let conditions = conditions.map(|(part, graph)| Given {
            condition: &part.condition,
            graph: graph.as_mut(),
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
        timings.texts += encodings.made() - encoded;
        for warning in warnings {
            stop_if(observer.notice(ExecutionEvent::Warning(warning)), None)?;
        }
        let task::Start { mut sample, begin, condition, guidance, keep, paste } = start;
        let controlling = self.controlling_images(request)?;
        let opening = Instant::now();
        self.release(|parts| &mut parts.beginning);
        let mut opener = Opener::new(&self.plan, &self.runtime, cancel, observer);
        let Denoising { denoiser, shallow, controls, preview } = opener.denoising(&mut self.parts)?;
        opened += opening.elapsed();
        let prepared = Instant::now();
        timings.open += opened.as_secs_f64();
        timings.prepare += (prepared - started - opened).as_secs_f64();

        let contract = &self.plan.model.denoiser;
        let batch = Batch { images, sample: sample_shape, tiles: request.tiles, by_row: self.plan.runs_by_row() };
        let model = GraphDenoiser::new(denoiser, contract, batch, condition, guidance, cancel)?;
        let controls = controls.iter_mut().zip(&self.plan.controls).zip(&controlling);
        let mut model = model.with_controls(
            controls
                .map(|((session, part), image)| Control::new(session, &part.part.contract, image, part.weight))
                .collect(),
        );
        stop_if(observer.notice(ExecutionEvent::Denoising { first, of }), None)?;
        let [_, height, width] = sample_shape;
        let mut watch = Watching {
            observer,
            first,
            of,
            preview: preview.as_mut().zip(self.plan.preview.as_ref().map(|preview| preview.every)),
            tiles: self.plan.decoding_tiles(request.tiles).filter(|tiles| tiles.split(height, width)),
            cache: self.plan.prepared.as_ref(),
            cancel,
            calls: 0,
            took: Duration::ZERO,
        };
        let tensor = self.plan.shallow.as_ref().map(|shallow| shallow.tensor.as_str());
        let shallow =
            shallow.as_mut().zip(tensor).filter(|_| request.cache.as_ref().is_some_and(|c| c.branch().is_some()));
        model = model.with_outer(shallow.map(|(session, tensor)| Shallow::new(session, tensor)));
        let calls_made = begin..span.end;
        let full = calls_made.len() * guidance.branches().len();
        model = model.with_guidance_interval(request.guidance_interval);
        let mut cached = request.cache.as_ref().map(|cache| Cached::new(&mut model, cache));
        let asked: &mut dyn Denoiser = match &mut cached {
            Some(cached) => cached,
            None => &mut model,
        };
        denoise(asked, scheduler.as_mut(), &mut sample, calls_made, keep.as_ref(), &mut noise, &mut watch)
            .map_err(|error| of_images(error, first, of))?;
        let evaluations = Evaluations { made: model.evaluations(), shallow: model.shallow_evaluations(), of: full };
        let Watching { calls, took: previewed, .. } = watch;
        let denoised = Instant::now();
        timings.preview += previewed.as_secs_f64();
        timings.calls += calls;
        timings.evaluations += evaluations;
        timings.denoise += (denoised - prepared - previewed).as_secs_f64();
        self.release(|parts| &mut parts.denoising);
        self.wait_checked(cancel)?;
        let seconds = (denoised - started).as_secs_f64() / images as f64;
        let settings = Arc::new(RunSettings::of(request, &self.plan));
        Ok(Drawn { indices, latents: sample, paste, calls, evaluations, settings, seconds })
    }

    /// Makes the image of one row of a batch.
    fn decode(
        &mut self,
        request: &RunPlan,
        drawn: &Drawn,
        row: usize,
        cancel: &Cancel,
        observer: &mut dyn Observer,
        timings: &mut Timings,
    ) -> Result<FinishedImage> {
        let (index, of) = (drawn.indices.start + row, request.total_images());
        let opening = Instant::now();
        let mut opener = Opener::new(&self.plan, &self.runtime, cancel, observer);
        let Decoding { decoder } = opener.decoding(&mut self.parts)?;
        timings.open += opening.elapsed().as_secs_f64();
        stop_if(observer.notice(ExecutionEvent::Decoding { index, of }), None)?;
        let decoding = Instant::now();
        let latents = drawn.latents.slice_axis(Axis(0), Slice::from(row..=row));
        let [_, height, width] = self.plan.sample_shape(request.width, request.height);
        let tiles = self.plan.decoding_tiles(request.tiles).filter(|tiles| tiles.split(height, width));
        let pixels = match (&mut *decoder, tiles) {
            (Some(decoder), None) => decoder.decode(latents.view(), cancel)?,
            (Some(decoder), Some(tiles)) => decoder.decode_tiled(latents.view(), tiles, cancel)?,
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
        self.wait_checked(cancel)?;
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
}

/// A range in parts of at most `size`.
fn batches(all: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.step_by(size.max(1)).map(move |first| first..(first + size.max(1)).min(end))
}

impl ModelExecution {
    /// Closes a part that has done its work, where parts are not kept open.
    fn release<T>(&mut self, part: impl FnOnce(&mut Parts) -> &mut Option<T>) {
        if !self.parts.stay {
            *part(&mut self.parts) = None;
        }
    }

    /// The images that the control networks follow, `[1, 3, h, w]` in [0, 1].
    fn controlling_images(&self, request: &RunPlan) -> Result<Vec<ArrayD<f32>>> {
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

fn stop_if(flow: ControlFlow<()>, at_step: Option<StepPosition>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted { at_step }),
    }
}
