//! The open graphs of a pipeline, in the order in which a picture needs them.

use std::time::Instant;

use super::observe::{Event, Observer};
use super::stop_if;
use crate::bundle::{ComponentKind, ConditionerContract, GraphFile, VaeDecoderContract};
use crate::conditioner::Conditioner;
use crate::error::{Error, Result};
use crate::latent::{Decoder, Encoder, LinearColours, Preview};
use crate::lora;
use crate::plan::{ModelPlan, Part, PreviewSource};
use crate::prepared::{self, Entry};
use crate::session::{Cancel, Runtime, Session, SessionOptions};
use crate::tensor::ByteEdit;
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
    /// What could not be kept optimised, and is opened as it lies.
    pub unkept: Vec<ComponentKind>,
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
    fn openings(&self) -> Vec<(ComponentKind, &'a GraphFile, &'a [ByteEdit])> {
        let plan = self.plan;
        let preview = plan.preview_decoder().map(|part| (part.kind, &part.graph, part.edits.as_slice()));
        plan.openings().into_iter().chain(preview).collect()
    }

    /// Does now what takes its time: optimises graphs that are to be kept so, and opens all of them where some are not,
    /// and graphs stay open.
    pub(super) fn load(&mut self, parts: &mut Parts) -> Result<()> {
        if self.plan.thrift.is_some() && self.plan.prepared.is_none() {
            return Err(Error::input(
                "device.memory",
                "is kept to by graphs that are optimised ahead, and there is no cache to keep them in",
                "leave the key out, or unset LDM_ORT_PREPARE (in a program, give the plan a cache)",
            ));
        }
        let made = self.prepare();
        let mut is_instant = made.len() == self.openings().len();
        for (kind, made) in made {
            match made {
                Ok(_) => {}
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => {
                    let warning = format!("{kind} is not kept optimised, and opened as it lies: {error}");
                    stop_if(self.observer.notice(Event::Warning(warning)), None)?;
                    parts.unkept.push(kind);
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

    /// Optimises the graphs that are to be kept so, up to the first that is interrupted.
    pub(super) fn prepare(&mut self) -> Vec<(ComponentKind, Result<Entry>)> {
        let mut made = Vec::new();
        for (kind, graph, edits) in self.openings() {
            let Some(cache) = self.plan.prepared(kind) else { continue };
            let options = self.options(kind, edits);
            let (observer, cancel) = (&mut *self.observer, self.cancel);
            let entry = cache.prepare(self.runtime, graph, self.plan.passes(kind), &options, &mut |event| {
                forward(kind, event, observer, cancel)
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
        let Parts { beginning, unkept, encodings, .. } = parts;
        let is_closed = |open: &Beginning| open.text.as_ref().is_some_and(|text| !text.is_open());
        beginning.take_if(|open| encodes && is_closed(open));
        if beginning.is_none() {
            let plan = self.plan;
            let mut encoders = Vec::new();
            for text in plan.text.iter().filter(|_| encodes).flat_map(|text| &text.encoders) {
                let session = self.session(text.part.kind, &text.part.graph, &text.part.edits, unkept)?;
                let contract = text.part.contract.clone();
                let (taken, negative) = (text.taken.clone(), text.negative.clone());
                let encoder = TextEncoder::new(text.tokenizer.clone(), session, contract, taken, negative, text.style)?;
                encoders.push((text.group, encoder));
            }
            let mut conditioner = |part: &Part<ConditionerContract>| {
                let session = self.session(part.kind, &part.graph, &part.edits, unkept)?;
                Ok(Conditioner::new(session, part.contract.clone()))
            };
            let class_embedder = plan.class_embedder.as_ref().map(&mut conditioner).transpose()?;
            let conditions = plan.conditions.iter().map(|condition| condition.part.as_ref());
            let conditioners = conditions.map(|part| part.map(&mut conditioner).transpose());
            let conditioners = conditioners.collect::<Result<Vec<_>>>()?;
            let encoder = match &plan.encoder {
                Some(part) => {
                    let session = self.session(part.kind, &part.graph, &part.edits, unkept)?;
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
        let Parts { denoising, unkept, .. } = parts;
        if denoising.is_none() {
            let controls = self.plan.controls.iter().map(|control| &control.part);
            let controls = controls.map(|part| self.session(part.kind, &part.graph, &part.edits, unkept));
            let controls = controls.collect::<Result<Vec<_>>>()?;
            let part = &self.plan.denoiser;
            let denoiser = self.session(part.kind, &part.graph, &part.edits, unkept)?;
            *denoising = Some(Denoising { denoiser, controls, preview });
        }
        denoising.as_mut().ok_or_else(closed)
    }

    /// What makes previews, where they are asked for.
    fn preview(&mut self, parts: &mut Parts) -> Result<Option<Preview>> {
        let plan = self.plan;
        let Some(preview) = &plan.preview else { return Ok(None) };
        Ok(Some(match &preview.source {
            PreviewSource::Small(part, scaling) => {
                let session = self.session(part.kind, &part.graph, &part.edits, &parts.unkept)?;
                let decoder = Decoder::new(session, part.contract.clone(), *scaling);
                Preview::Decoder(Box::new(decoder.of_factor(plan.spatial_factor)))
            }
            PreviewSource::Published(map) => Preview::Linear(map.clone()),
            PreviewSource::Fitted(part) => match self.fitted(part, parts) {
                Ok(map) => Preview::Linear(map),
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => {
                    // The pictures do not hang on it.
                    let warning = format!("there are no previews, since no map could be fitted: {error}");
                    stop_if(self.observer.notice(Event::Warning(warning)), None)?;
                    return Ok(None);
                }
            },
            PreviewSource::Pixels => Preview::Pixels,
        }))
    }

    /// A linear map fitted to the decoder: the one that makes the pictures, where it does.
    fn fitted(&mut self, part: &Part<VaeDecoderContract>, parts: &mut Parts) -> Result<LinearColours> {
        let (plan, cancel) = (self.plan, self.cancel);
        let sizes = plan.sizes.map(|sizes| (sizes.width, sizes.height, sizes.tiles));
        let (width, height, tiles) = sizes.unwrap_or((8 * plan.spatial_factor, 8 * plan.spatial_factor, None));
        let [channels, height, width] = plan.sample_shape(width, height);
        let (height, width) = tiles.map_or((height, width), |tiles| tiles.of(height, width));
        let fit =
            |decoder: &mut Decoder| LinearColours::fit(decoder, channels, [height, width], plan.spatial_factor, cancel);
        if plan.decoder.is_none() {
            let session = self.session(part.kind, &part.graph, &part.edits, &parts.unkept)?;
            return fit(&mut Decoder::new(session, part.contract.clone(), plan.model.scaling));
        }
        let map = fit(self.decoding(parts)?.decoder.as_mut().ok_or_else(closed)?);
        if !parts.stay {
            parts.decoding = None;
        }
        map
    }

    /// What turns latents into pixels.
    pub(super) fn decoding<'p>(&mut self, parts: &'p mut Parts) -> Result<&'p mut Decoding> {
        let Parts { decoding, unkept, .. } = parts;
        if decoding.is_none() {
            let decoder = match &self.plan.decoder {
                Some(part) => {
                    let session = self.session(part.kind, &part.graph, &part.edits, unkept)?;
                    let decoder = Decoder::new(session, part.contract.clone(), self.plan.decoder_scaling);
                    let is_small = self.plan.decodes_small();
                    Some(if is_small { decoder.of_factor(self.plan.spatial_factor) } else { decoder })
                }
                None => None,
            };
            *decoding = Some(Decoding { decoder });
        }
        decoding.as_mut().ok_or_else(closed)
    }

    fn session(
        &mut self,
        kind: ComponentKind,
        graph: &GraphFile,
        edits: &[ByteEdit],
        unkept: &[ComponentKind],
    ) -> Result<Session> {
        let of_bytes = self.openings().iter().map(|(_, graph, _)| graph.weight_bytes).sum();
        let (weight_bytes, opened_bytes) = (graph.weight_bytes, self.opened_bytes);
        let opening = Event::Opening { component: kind, weight_bytes, opened_bytes, of_bytes };
        stop_if(self.observer.notice(opening), None)?;
        let start = Instant::now();
        let options = self.options(kind, edits);
        let session = match self.plan.prepared(kind).filter(|_| !unkept.contains(&kind)) {
            Some(cache) => {
                let (observer, cancel) = (&mut *self.observer, self.cancel);
                cache.open(self.runtime, graph, self.plan.passes(kind), &options, &mut |event| {
                    forward(kind, event, observer, cancel)
                })?
            }
            None => {
                let mut weights = lora::merge(&self.plan.loras, kind, graph)?;
                weights.extend(self.plan.learnt(kind, graph)?);
                Session::open_with(self.runtime, &graph.path, &options, weights)?
            }
        };
        self.opened_bytes += weight_bytes;
        let opened = Event::Opened { component: kind, seconds: start.elapsed().as_secs_f64() };
        stop_if(self.observer.notice(opened), None)?;
        Ok(session)
    }

    fn options(&self, kind: ComponentKind, edits: &[ByteEdit]) -> SessionOptions {
        let mut options =
            SessionOptions { cancel: self.cancel.clone(), edits: edits.to_vec(), ..self.plan.session_options(kind) };
        if self.plan.preview_decoder().is_some_and(|part| part.kind == kind) {
            // Threads that wait for work after a preview would take the processor from the step that follows.
            options.config.push(("session.intra_op.allow_spinning".to_owned(), "0".to_owned()));
        }
        options
    }
}

fn closed() -> Error {
    Error::input("pipeline", "a part that was opened is not open", "report this")
}

/// Tells the observer what is told of a graph being optimised; an observer that breaks cancels that.
fn forward(kind: ComponentKind, event: prepared::Event<'_>, observer: &mut dyn Observer, cancel: &Cancel) {
    let event = match event {
        prepared::Event::Optimizing { bytes, folder } => Event::Optimizing { component: kind, bytes, folder },
        prepared::Event::Waiting { .. } => Event::WaitingForOptimized { component: kind },
        prepared::Event::NotKept { problem } => {
            Event::Warning(format!("{kind} is opened as it lies, not optimised ahead: {problem}"))
        }
    };
    if observer.notice(event).is_break() {
        cancel.cancel();
    }
}
