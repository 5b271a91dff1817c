//! The open graphs of a model at work, in the order in which an image needs them.

use std::time::Instant;

use super::event::{ExecutionEvent, Observer};
use super::interrupt::report;
use super::pool::{Pool, SessionKey, openings, session_options};
use crate::bundle::{ConditionerSignature, VaeDecoderSignature};
use crate::conditioner::Conditioner;
use crate::error::{Error, Result};
use crate::graph_cache::{self, CachedGraph};
use crate::lora;
use crate::plan::{ExecutionPlan, Opening, Part, PreviewSource};
use crate::session::{Cancel, Runtime, Session};
use crate::text::{PromptCache, TextEncoder, TextEncoders};
use crate::vae::{LinearColors, Preview, VaeDecoder, VaeEncoder};

/// A component at work, and the key of its graph.
pub(super) type Keyed<T> = (SessionKey, T);

/// The open graphs of a model at work.
#[derive(Default)]
pub(super) struct Parts {
    pub beginning: Option<Beginning>,
    pub denoising: Option<Denoising>,
    pub decoding: Option<Decoding>,
}

/// The graphs that make the denoiser's conditions.
pub(super) struct Beginning {
    pub text: Option<TextEncoders>,
    text_keys: Vec<SessionKey>,
    pub class_embedder: Option<Keyed<Conditioner>>,
    pub conditioners: Vec<Option<Keyed<Conditioner>>>,
    pub encoder: Option<Keyed<VaeEncoder>>,
}

/// The graphs that the denoising loop runs.
pub(super) struct Denoising {
    pub denoiser: Keyed<Session>,
    /// The denoiser's shallow layers, where a cache runs them alone.
    pub shallow: Option<Keyed<Session>>,
    pub controls: Vec<Keyed<Session>>,
    pub preview: Option<Preview>,
    /// The key of the previews' own decoder.
    preview_key: Option<SessionKey>,
}

/// The graph that makes pixels of latents; none in a model that works on pixels.
pub(super) struct Decoding {
    pub decoder: Option<Keyed<VaeDecoder>>,
}

impl Parts {
    /// Puts all graphs into the pool.
    pub(super) fn return_to(&mut self, pool: &mut Pool) {
        self.beginning.take().into_iter().for_each(|part| part.return_to(pool));
        self.denoising.take().into_iter().for_each(|part| part.return_to(pool));
        self.decoding.take().into_iter().for_each(|part| part.return_to(pool));
    }
}

impl Beginning {
    fn return_to(self, pool: &mut Pool) {
        let sessions = self.text.map(TextEncoders::into_sessions).unwrap_or_default();
        self.text_keys.into_iter().zip(sessions).for_each(|(key, session)| pool.put(key, session));
        let conditioners = self.conditioners.into_iter().chain([self.class_embedder]).flatten();
        conditioners.for_each(|(key, conditioner)| pool.put(key, conditioner.into_session()));
        if let Some((key, encoder)) = self.encoder {
            let (session, last) = encoder.into_session();
            last.into_iter().for_each(|image| pool.set_encoded(key.clone(), image));
            pool.put(key, session);
        }
    }
}

impl Denoising {
    fn return_to(self, pool: &mut Pool) {
        let sessions = self.controls.into_iter().chain(self.shallow).chain([self.denoiser]);
        sessions.for_each(|(key, session)| pool.put(key, session));
        if let (Some(key), Some(Preview::Decoder(decoder))) = (self.preview_key, self.preview) {
            pool.put(key, decoder.into_session());
        }
    }
}

impl Decoding {
    fn return_to(self, pool: &mut Pool) {
        self.decoder.into_iter().for_each(|(key, decoder)| pool.put(key, decoder.into_session()));
    }
}

/// Opens the graphs of a plan that the pool does not have.
pub(super) struct Opener<'a> {
    plan: &'a ExecutionPlan,
    runtime: &'a Runtime,
    pool: &'a mut Pool,
    cancel: &'a Cancel,
    observer: &'a mut Observer<'a>,
    opened_bytes: u64,
}

impl<'a> Opener<'a> {
    pub(super) fn new(
        plan: &'a ExecutionPlan,
        runtime: &'a Runtime,
        pool: &'a mut Pool,
        cancel: &'a Cancel,
        observer: &'a mut Observer<'a>,
    ) -> Self {
        Self { plan, runtime, pool, cancel, observer, opened_bytes: 0 }
    }

    /// Does now what takes its time: optimizes graphs that are to be kept so, and opens all of them if some are not, and
    /// graphs stay open.
    pub(super) fn load(&mut self, stay: bool) -> Result<()> {
        self.plan.require_cache()?;
        self.plan.create_provider_folders();
        let made = self.prepare();
        let mut is_instant = made.len() == openings(self.plan).len();
        for (opening, made) in made {
            let problem = match made {
                Ok(Some(_)) => continue,
                Ok(None) => None,
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => Some(error),
            };
            self.leave_uncached(&opening, problem)?;
            is_instant = false;
        }
        if is_instant || !stay { Ok(()) } else { self.open_all() }
    }

    /// Has a graph opened as exported whose optimized form is not in the cache, for this reason if it was not told before.
    fn leave_uncached(&mut self, opening: &Opening<'_>, problem: Option<Error>) -> Result<()> {
        // Records name the denoiser's precision.
        if opening.kind == self.plan.model.denoiser.kind {
            match &problem {
                Some(error) if graph_cache::is_of_precision(error) => return problem.map_or(Ok(()), Err),
                Some(error) => graph_cache::require_own_precision(&opening.passes, &error.to_string())?,
                None => graph_cache::require_own_precision(&opening.passes, "the graph cache cannot be written")?,
            }
        }
        if let Some(error) = problem {
            let warning = format!("{} is opened as exported, not from the graph cache: {error}", opening.name());
            report(self.observer, self.cancel, ExecutionEvent::Warning(warning))?;
        }
        self.pool.set_uncached(SessionKey::new(self.plan, opening));
        Ok(())
    }

    /// Opens every graph, and leaves it in the pool.
    pub(super) fn open_all(&mut self) -> Result<()> {
        let mut parts = Parts::default();
        let encodings = self.pool.encodings(self.plan);
        let opened = self.beginning(&mut parts, true, &encodings).map(drop);
        let opened = opened.and_then(|()| self.denoising(&mut parts, true).map(drop));
        let opened = opened.and_then(|()| self.decoding(&mut parts).map(drop));
        parts.return_to(self.pool);
        opened
    }

    /// Optimizes the graphs that are to be kept so, up to the first that is interrupted.
    pub(super) fn prepare(&mut self) -> Vec<(Opening<'a>, Result<Option<CachedGraph>>)> {
        let mut made = Vec::new();
        for opening in openings(self.plan) {
            let Some(cache) = self.plan.cache_for(opening.kind) else { continue };
            let options = session_options(self.plan, &opening, self.cancel);
            let observer = &mut *self.observer;
            let entry = cache.optimize(self.runtime, opening.graph, &opening.passes, &options, &mut |event| {
                forward(&opening, event, observer)
            });
            let is_interrupted = matches!(entry, Err(Error::Interrupted { .. }));
            made.push((opening, entry));
            if is_interrupted {
                break;
            }
        }
        made
    }

    /// Opens the graphs that make the denoiser's conditions. Text encoders are left closed unless it `encodes` a text
    /// that is not known.
    pub(super) fn beginning<'p>(
        &mut self,
        parts: &'p mut Parts,
        encodes: bool,
        encodings: &PromptCache,
    ) -> Result<&'p mut Beginning> {
        let beginning = &mut parts.beginning;
        let is_closed = |open: &mut Beginning| open.text.as_ref().is_some_and(|text| !text.is_open());
        let closed_text = beginning.take_if(|open| encodes && is_closed(open));
        closed_text.into_iter().for_each(|open| open.return_to(self.pool));
        if beginning.is_none() {
            let plan = self.plan;
            let (mut encoders, mut text_keys) = (Vec::new(), Vec::new());
            for text in plan.model.text.iter().filter(|_| encodes).flat_map(|text| &text.encoders) {
                let (key, session) = self.session(&plan.opening(&text.part))?;
                let signature = text.part.signature.clone();
                let (taken, negative) = (text.taken.clone(), text.negative.clone());
                let encoder =
                    TextEncoder::new(text.tokenizer.clone(), session, signature, taken, negative, text.style)?;
                let encoder = encoder.with_instruction(text.instruction.clone());
                encoders.push((text.group, encoder));
                text_keys.push(key);
            }
            let mut conditioner = |part: &Part<ConditionerSignature>| {
                let (key, session) = self.session(&plan.opening(part))?;
                Ok((key, Conditioner::new(session, part.signature.clone())))
            };
            let class_embedder = plan.model.class_embedder.as_ref().map(&mut conditioner).transpose()?;
            let conditions = plan.model.conditions.iter().map(|condition| condition.part.as_ref());
            let conditioners = conditions.map(|part| part.map(&mut conditioner).transpose());
            let conditioners = conditioners.collect::<Result<Vec<_>>>()?;
            let encoder = match &plan.model.encoder {
                Some(part) => {
                    let (key, session) = self.session(&plan.opening(part))?;
                    let last = self.pool.encoded(&key);
                    Some((key, VaeEncoder::new(session, part.signature.clone()).with_last(last)))
                }
                None => None,
            };
            let text = plan.model.text.as_ref().map(|text| TextEncoders::new(encoders, text.blank, encodings.clone()));
            *beginning = Some(Beginning { text, text_keys, class_embedder, conditioners, encoder });
        }
        beginning.as_mut().ok_or_else(closed)
    }

    /// Opens the graphs that the denoising loop runs.
    pub(super) fn denoising<'p>(&mut self, parts: &'p mut Parts, stay: bool) -> Result<&'p mut Denoising> {
        let preview = if parts.denoising.is_none() { self.preview(parts, stay)? } else { None };
        let denoising = &mut parts.denoising;
        if denoising.is_none() {
            let plan = self.plan;
            let controls = plan.model.controls.iter().map(|control| self.session(&plan.opening(&control.part)));
            let controls = controls.collect::<Result<Vec<_>>>()?;
            let denoiser = self.session(&plan.opening(&plan.model.denoiser))?;
            let shallow = plan.shallow_opening().map(|opening| self.session(&opening)).transpose()?;
            let (preview_key, preview) = preview.unzip();
            *denoising = Some(Denoising { denoiser, shallow, controls, preview, preview_key: preview_key.flatten() });
        }
        denoising.as_mut().ok_or_else(closed)
    }

    /// Opens what makes previews, if they are asked for. The key is that of a decoder of their own.
    fn preview(&mut self, parts: &mut Parts, stay: bool) -> Result<Option<(Option<SessionKey>, Preview)>> {
        let plan = self.plan;
        let Some(preview) = &plan.model.preview else { return Ok(None) };
        let preview = match &preview.source {
            PreviewSource::Small(part, scaling) => {
                let (key, session) = self.session(&plan.opening(part))?;
                let decoder = VaeDecoder::new(session, part.signature.clone(), *scaling, plan.model.spatial_factor);
                return Ok(Some((Some(key), Preview::Decoder(Box::new(decoder)))));
            }
            PreviewSource::Published(map) => Preview::Linear(map.clone()),
            PreviewSource::Fitted(part) => match self.fitted(part, parts, stay) {
                Ok(map) => Preview::Linear(map),
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => {
                    // The images do not hang on it.
                    let warning = format!("there are no previews, since no map could be fitted: {error}");
                    report(self.observer, self.cancel, ExecutionEvent::Warning(warning))?;
                    return Ok(None);
                }
            },
            PreviewSource::Pixels => Preview::Pixels,
        };
        Ok(Some((None, preview)))
    }

    /// A linear map fitted to the decoder: the one that makes the images, where it does.
    fn fitted(&mut self, part: &Part<VaeDecoderSignature>, parts: &mut Parts, stay: bool) -> Result<LinearColors> {
        let (plan, cancel) = (self.plan, self.cancel);
        let (sizes, tiles) = (plan.sizes, plan.decoding_tiles());
        let [channels, height, width] = plan.model.sample_shape(sizes.width, sizes.height);
        let (height, width) = tiles.map_or((height, width), |tiles| tiles.tile_size(height, width));
        let key = (SessionKey::new(plan, &plan.opening(part)), [height, width]);
        if let Some(map) = self.pool.map(&key) {
            return Ok(map);
        }
        let fit = |decoder: &mut VaeDecoder| {
            LinearColors::fit(decoder, channels, [height, width], plan.model.spatial_factor, cancel)
        };
        let map = if plan.model.decoder.is_none() {
            let (own, session) = self.session(&plan.opening(part))?;
            let mut decoder =
                VaeDecoder::new(session, part.signature.clone(), plan.model.model.scaling, plan.model.spatial_factor);
            let map = fit(&mut decoder);
            if stay {
                self.pool.put(own, decoder.into_session());
            }
            map
        } else {
            let (_, decoder) = self.decoding(parts)?.decoder.as_mut().ok_or_else(closed)?;
            let map = fit(decoder);
            if !stay {
                parts.decoding = None;
            }
            map
        };
        map.inspect(|map| self.pool.set_map(key, map.clone()))
    }

    /// Opens the graph that makes pixels of latents.
    pub(super) fn decoding<'p>(&mut self, parts: &'p mut Parts) -> Result<&'p mut Decoding> {
        let decoding = &mut parts.decoding;
        if decoding.is_none() {
            let plan = self.plan;
            let decoder = match &plan.model.decoder {
                Some(part) => {
                    let (key, session) = self.session(&plan.opening(part))?;
                    let (scaling, factor) = (plan.model.decoder_scaling, plan.model.spatial_factor);
                    Some((key, VaeDecoder::new(session, part.signature.clone(), scaling, factor)))
                }
                None => None,
            };
            *decoding = Some(Decoding { decoder });
        }
        decoding.as_mut().ok_or_else(closed)
    }

    /// Takes a graph from the pool, or opens it.
    pub(super) fn session(&mut self, opening: &Opening<'_>) -> Result<Keyed<Session>> {
        let Opening { kind, graph, weight_bytes, .. } = *opening;
        let key = SessionKey::new(self.plan, opening);
        if let Some(session) = self.pool.take(&key) {
            self.opened_bytes += weight_bytes;
            return Ok((key, session));
        }
        let of_bytes = openings(self.plan).iter().map(|opening| opening.weight_bytes).sum();
        let (component, is_shallow, opened_bytes) = (kind, opening.is_shallow, self.opened_bytes);
        let event = ExecutionEvent::Opening { component, is_shallow, weight_bytes, opened_bytes, of_bytes };
        report(self.observer, self.cancel, event)?;
        let start = Instant::now();
        let options = session_options(self.plan, opening, self.cancel);
        let session = match self.plan.cache_for(kind).filter(|_| !self.pool.is_uncached(&key)) {
            Some(cache) => {
                let observer = &mut *self.observer;
                cache.open(self.runtime, graph, &opening.passes, &options, &mut |event| {
                    forward(opening, event, observer)
                })?
            }
            None => {
                let mut weights = lora::merge(&self.plan.model.loras, kind, graph)?;
                weights.extend(self.plan.model.added_weight(kind, graph)?);
                graph_cache::open_uncached(self.runtime, graph, &opening.passes, &options, weights)?
            }
        };
        self.opened_bytes += weight_bytes;
        let (seconds, nodes) = (start.elapsed().as_secs_f64(), session.placement().by_provider());
        let opened = ExecutionEvent::Opened { component, is_shallow, seconds, nodes };
        report(self.observer, self.cancel, opened)?;
        Ok((key, session))
    }
}

fn closed() -> Error {
    Error::internal("pipeline", "a part that was opened is not open")
}

/// Reports an event of the graph cache about a graph.
pub(super) fn forward(opening: &Opening<'_>, event: graph_cache::GraphCacheEvent<'_>, observer: &mut Observer<'_>) {
    let (component, is_shallow) = (opening.kind, opening.is_shallow);
    let event = match event {
        graph_cache::GraphCacheEvent::Optimizing { bytes, folder } => {
            ExecutionEvent::Optimizing { component, is_shallow, bytes, folder }
        }
        graph_cache::GraphCacheEvent::Waiting { .. } => ExecutionEvent::WaitingForOptimized { component },
        graph_cache::GraphCacheEvent::Uncached { problem } => ExecutionEvent::Warning(format!(
            "{} is opened as exported, not from the graph cache: {problem}",
            opening.name()
        )),
    };
    observer(event);
}
