//! Load a pipeline once, run any number of requests, watch every step.

mod observe;
mod save;
mod stages;

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use ndarray::{ArrayD, Axis, Slice};

use crate::bundle::{ComponentKind, GraphFile};
use crate::conditioner::Conditioner;
use crate::denoise::{Batch, BatchNoise, Control, GraphDenoiser, Step, denoise};
use crate::error::{Error, Result};
use crate::image::{self, Rgb8};
use crate::latent::{Decoder, Encoder};
use crate::lora;
use crate::plan::{ControlPart, ModelPlan, Request};
use crate::session::{Cancel, Runtime, Session, SessionOptions};
use crate::task::{self, Given, Handed, Paste, Stage};
use crate::tensor::ByteEdit;
use crate::text::{TextEncoder, TextEncoders};

pub use observe::{Event, Observer, Unwatched};
pub use save::{Recorder, Saver, model_digest};
pub use stages::Stages;

/// A model, opened and ready.
pub struct Pipeline {
    plan: ModelPlan,
    denoiser: Session,
    text: Option<TextEncoders>,
    class_embedder: Option<Conditioner>,
    conditioners: Vec<Option<Conditioner>>,
    controls: Vec<Session>,
    encoder: Option<Encoder>,
    decoder: Option<Decoder>,
}

/// A finished picture.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its index in the request, prompts outermost.
    pub index: usize,
    /// Its prompt.
    pub prompt: String,
    /// What it was steered away from.
    pub negative_prompt: String,
    /// Its own seed.
    pub seed: u64,
    /// Its pixels.
    pub pixels: Rgb8,
    /// Its final latents `[c, h/f, w/f]`, before the division by the scaling factor.
    pub latents: ArrayD<f32>,
    /// Calls of the denoiser, of all stages so far.
    pub calls: usize,
    /// Seconds from the start of its batch to its pixels, its share of the batch's denoising, of all stages so far.
    pub seconds: f64,
    /// How many `[[stage]]` tables it went through.
    pub stages: usize,
}

/// A batch whose latents are done.
struct Drawn {
    indices: Range<usize>,
    /// `[n, c, h/f, w/f]`.
    latents: ArrayD<f32>,
    paste: Option<Paste>,
    calls: usize,
    /// Each picture's share of the time that it took.
    seconds: f64,
}

/// How long the parts of a request took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Timings {
    /// Prompts, noise and starting pictures.
    pub prepare: f64,
    /// The denoising loop.
    pub denoise: f64,
    /// Latents to pixels.
    pub decode: f64,
    /// Calls of the denoiser, each for a whole batch.
    pub calls: usize,
}

impl Pipeline {
    /// Opens every graph that the plan needs.
    ///
    /// # Errors
    /// [`Error::Graph`] where the runtime refuses a graph, [`Error::Provider`] where a provider cannot be used,
    /// [`Error::Model`] where graph and tokenizer do not fit, [`Error::Interrupted`] when the observer breaks.
    pub fn load(plan: ModelPlan, runtime: &Runtime, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Self> {
        let of_bytes = plan.graphs().iter().map(|(_, graph)| graph.weight_bytes).sum();
        let mut opened_bytes = 0;
        let mut open = |graph: &GraphFile, kind: ComponentKind, edits: &[ByteEdit]| -> Result<Session> {
            let weight_bytes = graph.weight_bytes;
            let opening = Event::Opening { component: kind, weight_bytes, opened_bytes, of_bytes };
            stop_if(observer.notice(opening), None)?;
            let start = Instant::now();
            let edits = edits.to_vec();
            let options = SessionOptions { cancel: cancel.clone(), edits, ..plan.session_options(kind) };
            let mut weights = lora::merge(&plan.loras, kind, graph)?;
            weights.extend(plan.learnt(kind, graph)?);
            let session = Session::open_with(runtime, &graph.path, &options, weights)?;
            opened_bytes += weight_bytes;
            let opened = Event::Opened { component: kind, seconds: start.elapsed().as_secs_f64() };
            stop_if(observer.notice(opened), None)?;
            Ok(session)
        };
        let mut encoders = Vec::new();
        for text in plan.text.iter().flat_map(|text| &text.encoders) {
            let session = open(&text.part.graph, text.part.kind, &[])?;
            let contract = text.part.contract.clone();
            let (taken, negative) = (text.taken.clone(), text.negative.clone());
            let encoder = TextEncoder::new(text.tokenizer.clone(), session, contract, taken, negative, text.style)?;
            encoders.push((text.group, encoder));
        }
        let text = plan.text.is_some().then(|| TextEncoders::new(encoders));
        let class_embedder = match &plan.class_embedder {
            Some(part) => Some(Conditioner::new(open(&part.graph, part.kind, &part.edits)?, part.contract.clone())),
            None => None,
        };
        let conditioners = plan.conditions.iter().map(|condition| match &condition.part {
            Some(part) => Ok(Some(Conditioner::new(open(&part.graph, part.kind, &part.edits)?, part.contract.clone()))),
            None => Ok(None),
        });
        let conditioners = conditioners.collect::<Result<Vec<_>>>()?;
        let encoder = match &plan.encoder {
            Some(part) => Some(Encoder::new(open(&part.graph, part.kind, &part.edits)?, part.contract.clone())),
            None => None,
        };
        let controls = plan.controls.iter().map(|control| &control.part);
        let controls = controls.map(|part| open(&part.graph, part.kind, &part.edits));
        let controls = controls.collect::<Result<Vec<_>>>()?;
        let denoiser = open(&plan.denoiser.graph, plan.denoiser.kind, &plan.denoiser.edits)?;
        let decoder = match &plan.decoder {
            Some(part) => Some(Decoder::new(
                open(&part.graph, part.kind, &part.edits)?,
                part.contract.clone(),
                plan.model.scaling,
            )),
            None => None,
        };
        Ok(Self { plan, denoiser, text, class_embedder, conditioners, controls, encoder, decoder })
    }

    /// What was opened.
    pub fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// Makes the pictures of a request, handing each to the observer as soon as it is finished. `cancel` stops the
    /// run from another thread, down to the length of one operator.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step, [`Error::Interrupted`], [`Error::Input`] where an input does not fit, and
    /// whatever the graphs fail with.
    pub fn run(&mut self, request: &Request, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        let mut timings = Timings::default();
        for indices in batches(request.indices()?, request.batch) {
            let drawn = self.draw(request, indices.clone(), None, cancel, observer, &mut timings)?;
            for row in 0..indices.len() {
                let picture = self.decode(request, &drawn, row, cancel, observer, &mut timings)?;
                stop_if(observer.notice(Event::Picture(&picture)), None)?;
            }
        }
        Ok(timings)
    }

    /// Makes the latents of one batch. `handed` is what the stage before made for it, where there is one.
    fn draw(
        &mut self,
        request: &Request,
        indices: Range<usize>,
        handed: Option<Handed<'_>>,
        cancel: &Cancel,
        observer: &mut dyn Observer,
        timings: &mut Timings,
    ) -> Result<Drawn> {
        let of = request.pictures();
        let (first, images) = (indices.start, indices.len());
        let started = Instant::now();
        stop_if(observer.notice(Event::Preparing { first, images, of }), None)?;
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
                 are rounded; export the model with a float timestep for the exact picture",
                timestep.name
            ));
        }
        let mut start = request.task.start(&mut Stage {
            model: &self.plan.model,
            pictures: of,
            first,
            prompts: &prompts,
            sample_shape,
            size: (request.width, request.height),
            steps: request.steps,
            is_planned: request.planned_strength.is_some(),
            denoising_start: request.denoising_start.map(|_| span.start),
            scheduler: scheduler.as_ref(),
            noise: &mut noise,
            handed,
            given: request.latents.as_ref().map(|given| task::rows(given, indices.clone())),
            text: self.text.as_mut(),
            class_embedder: self.class_embedder.as_mut(),
            encoder: self.encoder.as_mut(),
            cancel,
            warn: &mut |warning| warnings.push(warning),
        })?;
        let conditions = self.plan.conditions.iter().zip(&mut self.conditioners);
        let conditions = conditions.map(|(part, graph)| Given {
            condition: &part.condition,
            graph: graph.as_mut(),
            known: part.known,
        });
        start.tell(conditions.collect(), images, (request.width, request.height), cancel)?;
        for warning in warnings {
            stop_if(observer.notice(Event::Warning(warning)), None)?;
        }
        let task::Start { mut sample, begin, condition, guidance, keep, paste } = start;
        let controlling = self.controlling_pictures(request)?;
        let prepared = Instant::now();
        timings.prepare += (prepared - started).as_secs_f64();

        let contract = &self.plan.model.denoiser;
        let batch = Batch { images, sample: sample_shape, tiles: request.tiles };
        let model = GraphDenoiser::new(&mut self.denoiser, contract, batch, condition, guidance, cancel)?;
        let controls = self.controls.iter_mut().zip(&self.plan.controls).zip(&controlling);
        let mut model = model.with_controls(
            controls
                .map(|((session, part), picture)| Control::new(session, &part.part.contract, picture, part.weight))
                .collect(),
        );
        let mut calls = 0;
        let mut watch = |step: Step<'_>| {
            calls = step.call;
            observer.notice(Event::Step { first, of, step })
        };
        let calls_made = begin..span.end;
        denoise(&mut model, scheduler.as_mut(), &mut sample, calls_made, keep.as_ref(), &mut noise, &mut watch)?;
        let denoised = Instant::now();
        timings.calls += calls;
        timings.denoise += (denoised - prepared).as_secs_f64();
        let seconds = (denoised - started).as_secs_f64() / images as f64;
        Ok(Drawn { indices, latents: sample, paste, calls, seconds })
    }

    /// Makes the picture of one row of a batch.
    fn decode(
        &mut self,
        request: &Request,
        drawn: &Drawn,
        row: usize,
        cancel: &Cancel,
        observer: &mut dyn Observer,
        timings: &mut Timings,
    ) -> Result<Picture> {
        let (index, of) = (drawn.indices.start + row, request.pictures());
        stop_if(observer.notice(Event::Decoding { index, of }), None)?;
        let decoding = Instant::now();
        let latents = drawn.latents.slice_axis(Axis(0), Slice::from(row..=row));
        let [_, height, width] = self.plan.sample_shape(request.width, request.height);
        let tiles = request.tiles.filter(|tiles| tiles.split(height, width));
        let pixels = match (&mut self.decoder, tiles) {
            (Some(decoder), None) => decoder.decode(latents.view(), cancel)?,
            (Some(decoder), Some(tiles)) => {
                decoder.decode_tiled(latents.view(), tiles, self.plan.spatial_factor, cancel)?
            }
            (None, _) => latents.to_owned(),
        };
        let pixels = match &drawn.paste {
            Some(paste) => paste.into(&pixels)?,
            None => pixels,
        };
        let took = decoding.elapsed().as_secs_f64();
        timings.decode += took;
        let prompt = index / request.images;
        Ok(Picture {
            index,
            prompt: request.task.labels().get(prompt).cloned().unwrap_or_default(),
            negative_prompt: request.negative_prompt(prompt).to_owned(),
            seed: request.seed_of(index),
            pixels: image::from_tensor(pixels.view())?,
            latents: latents.index_axis(Axis(0), 0).to_owned(),
            calls: drawn.calls,
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

impl Pipeline {
    /// The pictures that the control networks follow, `[1, 3, h, w]` in [0, 1].
    fn controlling_pictures(&self, request: &Request) -> Result<Vec<ArrayD<f32>>> {
        let read = |control: &ControlPart| {
            let picture = image::resize(&image::load(&control.image)?, request.width, request.height)?;
            Ok(image::to_unit_tensor(&picture).into_dyn())
        };
        self.plan.controls.iter().map(read).collect()
    }
}

fn stop_if(flow: ControlFlow<()>, at_step: Option<usize>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted { at_step }),
    }
}
