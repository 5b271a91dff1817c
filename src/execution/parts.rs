//! The open graphs of a pipeline, in the order in which an image needs them.

use std::time::Instant;

use super::event::{ExecutionEvent, Observer};
use super::stop_if;
use crate::bundle::{ComponentKind, ConditionerContract, VaeDecoderContract};
use crate::conditioner::Conditioner;
use crate::error::{Error, Result};
use crate::graph_cache::{self, CachedGraph};
use crate::latent::{Decoder, Encoder, LinearColors, Preview};
use crate::lora;
use crate::plan::{ModelPlan, Opening, Part, PreviewSource};
use crate::session::{Cancel, Runtime, Session, SessionOptions};
use crate::text::{Encodings, TextEncoder, TextEncoders};

/// What is open.
#[derive(Default)]
pub(super) struct Parts {
    pub beginning: Option<Beginning>,
    pub denoising: Option<Denoising>,
    pub decoding: Option<Decoding>,
    /// Whether parts stay open once they have done their work.
    pub stay: bool,
    /// What prompts became, also once the text encoders are closed.
    pub encodings: Encodings,
    /// What could not be kept optimized, and is opened as it lies.
    pub uncached: Vec<ComponentKind>,
}

/// What turns a request into what the denoiser is told.
pub(super) struct Beginning {
    pub text: Option<TextEncoders>,
    pub class_embedder: Option<Conditioner>,
    pub conditioners: Vec<Option<Conditioner>>,
    pub encoder: Option<Encoder>,
}

/// What the loop runs.
pub(super) struct Denoising {
    pub denoiser: Session,
    /// The denoiser's shallow layers, where a cache runs them alone.
    pub shallow: Option<Session>,
    pub controls: Vec<Session>,
    pub preview: Option<Preview>,
}

/// What turns latents into pixels.
pub(super) struct Decoding {
    pub decoder: Option<Decoder>,
}

/// Opens the graphs of a plan.
pub(super) struct Opener<'a> {
    plan: &'a ModelPlan,
    runtime: &'a Runtime,
    cancel: &'a Cancel,
    observer: &'a mut dyn Observer,
    opened_bytes: u64,
}

impl<'a> Opener<'a> {
    pub(super) fn new(
        plan: &'a ModelPlan,
        runtime: &'a Runtime,
        cancel: &'a Cancel,
        observer: &'a mut dyn Observer,
    ) -> Self {
        Self { plan, runtime, cancel, observer, opened_bytes: 0 }
    }

    /// The graphs that are opened, that of the previews among them.
    fn openings(&self) -> Vec<Opening<'a>> {
        let plan = self.plan;
        let preview = plan.preview_decoder().map(|part| plan.opening(part));
        plan.openings().into_iter().chain(preview).collect()
    }

    /// Does now what takes its time: optimizes graphs that are to be kept so, and opens all of them where some are not,
    /// and graphs stay open.
    pub(super) fn load(&mut self, parts: &mut Parts) -> Result<()> {
        self.plan.require_cache()?;
        let made = self.prepare();
        let mut is_instant = made.len() == self.openings().len();
        for (kind, made) in made {
            match made {
                Ok(_) => {}
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => {
                    let warning = format!("{kind} is not kept optimized, and opened as it lies: {error}");
                    stop_if(self.observer.notice(ExecutionEvent::Warning(warning)), None)?;
                    parts.uncached.push(kind);
                    is_instant = false;
                }
            }
        }
        parts.stay = self.plan.keeps_open();
        if !is_instant && parts.stay {
            self.beginning(parts, true)?;
            self.denoising(parts)?;
            self.decoding(parts)?;
        }
        Ok(())
    }

    /// Optimizes the graphs that are to be kept so, up to the first that is interrupted.
    pub(super) fn prepare(&mut self) -> Vec<(ComponentKind, Result<CachedGraph>)> {
        let mut made = Vec::new();
        for opening in self.openings() {
            let kind = opening.kind;
            let Some(cache) = self.plan.prepared(kind) else { continue };
            let options = self.options(&opening);
            let (observer, cancel) = (&mut *self.observer, self.cancel);
            let entry = cache.prepare(self.runtime, opening.graph, &opening.passes, &options, &mut |event| {
                forward(&opening, event, observer, cancel)
            });
            let is_interrupted = matches!(entry, Err(Error::Interrupted { .. }));
            made.push((kind, entry));
            if is_interrupted {
                break;
            }
        }
        made
    }

    /// What turns a request into what the denoiser is told. Text encoders are left closed where no text is to be encoded
    /// that is not known.
    pub(super) fn beginning<'p>(&mut self, parts: &'p mut Parts, encodes: bool) -> Result<&'p mut Beginning> {
        let Parts { beginning, uncached, encodings, .. } = parts;
        let is_closed = |open: &Beginning| open.text.as_ref().is_some_and(|text| !text.is_open());
        beginning.take_if(|open| encodes && is_closed(open));
        if beginning.is_none() {
            let plan = self.plan;
            let mut encoders = Vec::new();
            for text in plan.text.iter().filter(|_| encodes).flat_map(|text| &text.encoders) {
                let session = self.session(&plan.opening(&text.part), uncached)?;
                let contract = text.part.contract.clone();
                let (taken, negative) = (text.taken.clone(), text.negative.clone());
                let encoder = TextEncoder::new(text.tokenizer.clone(), session, contract, taken, negative, text.style)?;
                encoders.push((text.group, encoder));
            }
            let mut conditioner = |part: &Part<ConditionerContract>| {
                let session = self.session(&plan.opening(part), uncached)?;
                Ok(Conditioner::new(session, part.contract.clone()))
            };
            let class_embedder = plan.class_embedder.as_ref().map(&mut conditioner).transpose()?;
            let conditions = plan.conditions.iter().map(|condition| condition.part.as_ref());
            let conditioners = conditions.map(|part| part.map(&mut conditioner).transpose());
            let conditioners = conditioners.collect::<Result<Vec<_>>>()?;
            let encoder = match &plan.encoder {
                Some(part) => {
                    let session = self.session(&plan.opening(part), uncached)?;
                    Some(Encoder::new(session, part.contract.clone()))
                }
                None => None,
            };
            let text = plan.text.as_ref().map(|text| TextEncoders::new(encoders, text.blank, encodings.clone()));
            *beginning = Some(Beginning { text, class_embedder, conditioners, encoder });
        }
        beginning.as_mut().ok_or_else(closed)
    }

    /// What the loop runs.
    pub(super) fn denoising<'p>(&mut self, parts: &'p mut Parts) -> Result<&'p mut Denoising> {
        let preview = if parts.denoising.is_none() { self.preview(parts)? } else { None };
        let Parts { denoising, uncached, .. } = parts;
        if denoising.is_none() {
            let plan = self.plan;
            let controls = plan.controls.iter().map(|control| &control.part);
            let controls = controls.map(|part| self.session(&plan.opening(part), uncached));
            let controls = controls.collect::<Result<Vec<_>>>()?;
            let denoiser = self.session(&plan.opening(&plan.denoiser), uncached)?;
            let shallow = plan.shallow_opening().map(|opening| self.session(&opening, uncached)).transpose()?;
            *denoising = Some(Denoising { denoiser, shallow, controls, preview });
        }
        denoising.as_mut().ok_or_else(closed)
    }

    /// What makes previews, where they are asked for.
    fn preview(&mut self, parts: &mut Parts) -> Result<Option<Preview>> {
        let plan = self.plan;
        let Some(preview) = &plan.preview else { return Ok(None) };
        Ok(Some(match &preview.source {
            PreviewSource::Small(part, scaling) => {
                let session = self.session(&plan.opening(part), &parts.uncached)?;
                Preview::Decoder(Box::new(Decoder::new(session, part.contract.clone(), *scaling, plan.spatial_factor)))
            }
            PreviewSource::Published(map) => Preview::Linear(map.clone()),
            PreviewSource::Fitted(part) => match self.fitted(part, parts) {
                Ok(map) => Preview::Linear(map),
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => {
                    // The images do not hang on it.
                    let warning = format!("there are no previews, since no map could be fitted: {error}");
                    stop_if(self.observer.notice(ExecutionEvent::Warning(warning)), None)?;
                    return Ok(None);
                }
            },
            PreviewSource::Pixels => Preview::Pixels,
        }))
    }

    /// A linear map fitted to the decoder: the one that makes the images, where it does.
    fn fitted(&mut self, part: &Part<VaeDecoderContract>, parts: &mut Parts) -> Result<LinearColors> {
        let (plan, cancel) = (self.plan, self.cancel);
        let sizes = plan.sizes.map(|sizes| (sizes.width, sizes.height, plan.decoding_tiles(sizes.tiles)));
        let (width, height, tiles) = sizes.unwrap_or((8 * plan.spatial_factor, 8 * plan.spatial_factor, None));
        let [channels, height, width] = plan.sample_shape(width, height);
        let (height, width) = tiles.map_or((height, width), |tiles| tiles.of(height, width));
        let fit =
            |decoder: &mut Decoder| LinearColors::fit(decoder, channels, [height, width], plan.spatial_factor, cancel);
        if plan.decoder.is_none() {
            let session = self.session(&plan.opening(part), &parts.uncached)?;
            return fit(&mut Decoder::new(session, part.contract.clone(), plan.model.scaling, plan.spatial_factor));
        }
        let map = fit(self.decoding(parts)?.decoder.as_mut().ok_or_else(closed)?);
        if !parts.stay {
            parts.decoding = None;
        }
        map
    }

    /// What turns latents into pixels.
    pub(super) fn decoding<'p>(&mut self, parts: &'p mut Parts) -> Result<&'p mut Decoding> {
        let Parts { decoding, uncached, .. } = parts;
        if decoding.is_none() {
            let plan = self.plan;
            let decoder = match &plan.decoder {
                Some(part) => {
                    let session = self.session(&plan.opening(part), uncached)?;
                    let (scaling, factor) = (plan.decoder_scaling, plan.spatial_factor);
                    Some(Decoder::new(session, part.contract.clone(), scaling, factor))
                }
                None => None,
            };
            *decoding = Some(Decoding { decoder });
        }
        decoding.as_mut().ok_or_else(closed)
    }

    fn session(&mut self, opening: &Opening<'_>, uncached: &[ComponentKind]) -> Result<Session> {
        let Opening { kind, graph, weight_bytes, .. } = *opening;
        let of_bytes = self.openings().iter().map(|opening| opening.weight_bytes).sum();
        let (component, is_shallow, opened_bytes) = (kind, opening.is_shallow, self.opened_bytes);
        let event = ExecutionEvent::Opening { component, is_shallow, weight_bytes, opened_bytes, of_bytes };
        stop_if(self.observer.notice(event), None)?;
        let start = Instant::now();
        let options = self.options(opening);
        let session = match self.plan.prepared(kind).filter(|_| !uncached.contains(&kind)) {
            Some(cache) => {
                let (observer, cancel) = (&mut *self.observer, self.cancel);
                cache.open(self.runtime, graph, &opening.passes, &options, &mut |event| {
                    forward(opening, event, observer, cancel)
                })?
            }
            None => {
                let mut weights = lora::merge(&self.plan.loras, kind, graph)?;
                weights.extend(self.plan.learnt(kind, graph)?);
                graph_cache::open_uncached(self.runtime, graph, &opening.passes, &options, weights)?
            }
        };
        self.opened_bytes += weight_bytes;
        let opened = ExecutionEvent::Opened { component, is_shallow, seconds: start.elapsed().as_secs_f64() };
        stop_if(self.observer.notice(opened), None)?;
        Ok(session)
    }

    pub(super) fn options(&self, opening: &Opening<'_>) -> SessionOptions {
        let mut options = SessionOptions {
            component: opening.name(),
            cancel: self.cancel.clone(),
            edits: opening.edits.to_vec(),
            weight_files: opening.weight_files(),
            ..self.plan.session_options(opening.kind)
        };
        if self.plan.preview_decoder().is_some_and(|part| part.kind == opening.kind) {
            // Threads that wait for work after a preview would take the CPU from the step that follows.
            options.config.push(("session.intra_op.allow_spinning".to_owned(), "0".to_owned()));
        }
        options
    }
}

fn closed() -> Error {
    Error::internal("pipeline", "a part that was opened is not open")
}

/// Tells the observer what is told of a graph being optimized; an observer that breaks cancels that.
pub(super) fn forward(
    opening: &Opening<'_>,
    event: graph_cache::GraphCacheEvent<'_>,
    observer: &mut dyn Observer,
    cancel: &Cancel,
) {
    let (component, is_shallow) = (opening.kind, opening.is_shallow);
    let event = match event {
        graph_cache::GraphCacheEvent::Optimizing { bytes, folder } => {
            ExecutionEvent::Optimizing { component, is_shallow, bytes, folder }
        }
        graph_cache::GraphCacheEvent::Waiting { .. } => ExecutionEvent::WaitingForOptimized { component },
        graph_cache::GraphCacheEvent::NotKept { problem } => {
            ExecutionEvent::Warning(format!("{} is opened as it lies, not optimized ahead: {problem}", opening.name()))
        }
    };
    if observer.notice(event).is_break() {
        cancel.cancel();
    }
}
