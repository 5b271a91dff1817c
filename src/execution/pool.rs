//! Open graphs, and what was made with them, from one request to the next.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bundle::ComponentKind;
use crate::graph_cache::{GraphCache, Rows};
use crate::plan::{ExecutionPlan, ModelPlan, Opening, Sizes, TextPart};
use crate::rewrite::Pass;
use crate::session::{Cancel, Session, SessionOptions};
use crate::spec::DeviceSpec;
use crate::text::tokenizer::Tokenizer;
use crate::text::{EncoderOutputs, PromptCache, PromptStyle};
use crate::vae::{EncodedImage, LinearColors};

/// A model whose graphs are open or can be opened in an instant.
pub(super) struct ReadyModel {
    pub(super) plan: ExecutionPlan,
    /// True if its graphs stay open once they have done their work.
    pub(super) stay: bool,
}

/// Everything that decides how a graph is opened: sessions of one key are interchangeable.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SessionKey {
    graph: PathBuf,
    is_shallow: bool,
    /// Those that the graph is rewritten with as it is opened.
    pub(super) passes: Vec<Pass>,
    /// The folder of the graph cache that it is opened from.
    cache: Option<PathBuf>,
    options: SessionOptions,
    /// The LoRAs that are merged into its weights, with their scales.
    loras: Vec<(PathBuf, f64)>,
    /// The textual inversions that its token embedding has: their tokens, and the digests of their files.
    words: Vec<(String, String)>,
}

impl SessionKey {
    /// The key of a graph that `plan` opens.
    pub(super) fn new(plan: &ExecutionPlan, opening: &Opening<'_>) -> Self {
        let kind = opening.kind;
        let cache = plan.cache_for(kind).map(|cache| cache.folder().to_path_buf());
        let is_text = kind.text_encoder_number().is_some();
        let scale = |lora: &crate::lora::Lora| if is_text { lora.text_encoder_scale } else { lora.denoiser_scale };
        let loras = plan.model.loras.iter().filter(|_| is_text || kind == plan.model.denoiser.kind);
        let loras = loras.map(|lora| (lora.path.clone(), scale(lora))).filter(|(_, scale)| *scale != 0.0);
        let text = plan.model.text.iter().filter(|text| {
            text.encoders.iter().any(|encoder| encoder.part.kind == kind && encoder.added_tokens.is_some())
        });
        let words = text.flat_map(|text| &text.inversions);
        Self {
            graph: opening.graph.path.clone(),
            is_shallow: opening.is_shallow,
            passes: opening.passes.iter().filter(|pass| cache.is_some() || pass.is_required()).copied().collect(),
            cache,
            options: session_options(plan, opening, &Cancel::new()),
            loras: loras.collect(),
            words: words.map(|own| (own.token.clone(), own.digest().to_owned())).collect(),
        }
    }

    /// True if both are of one graph, however it is opened.
    fn shares_graph(&self, other: &Self) -> bool {
        self.graph == other.graph && self.is_shallow == other.is_shallow
    }
}

/// The options with which a graph of `plan` is opened.
pub(super) fn session_options(plan: &ExecutionPlan, opening: &Opening<'_>, cancel: &Cancel) -> SessionOptions {
    let mut options = SessionOptions {
        component: opening.name(),
        cancel: cancel.clone(),
        edits: opening.edits.to_vec(),
        weight_files: opening.weight_files(),
        ..plan.session_options(opening)
    };
    if plan.model.preview_decoder().is_some_and(|part| part.kind == opening.kind) {
        // Threads that wait for work after a preview would take the CPU from the step that follows.
        options.config.push(("session.intra_op.allow_spinning".to_owned(), "0".to_owned()));
    }
    options
}

/// The graphs that a plan opens, that of the previews among them.
pub(super) fn openings(plan: &ExecutionPlan) -> Vec<Opening<'_>> {
    let preview = plan.model.preview_decoder().map(|part| plan.opening(part));
    plan.openings().into_iter().chain(preview).collect()
}

/// Everything of a text encoder that decides the embeddings of a prompt.
#[derive(Debug, Clone)]
struct TextEncoderKey {
    graph: SessionKey,
    tokenizer: Arc<Tokenizer>,
    taken: [Option<EncoderOutputs>; 2],
    style: PromptStyle,
    instruction: Option<String>,
    group: usize,
}

impl PartialEq for TextEncoderKey {
    /// Tokenizers are equal if they are one: those of one [`ModelSources`](crate::plan::ModelSources) are shared.
    fn eq(&self, other: &Self) -> bool {
        let values = |key: &Self| (key.style, key.group);
        Arc::ptr_eq(&self.tokenizer, &other.tokenizer)
            && values(self) == values(other)
            && self.instruction == other.instruction
            && self.graph == other.graph
            && self.taken == other.taken
    }
}

/// Everything that decides the embeddings of a prompt.
#[derive(Debug, Clone, PartialEq)]
struct TextKey {
    encoders: Vec<TextEncoderKey>,
    blank: Option<[usize; 2]>,
}

impl TextKey {
    fn new(plan: &ExecutionPlan) -> Option<Self> {
        let text = plan.model.text.as_ref()?;
        let encoder = |own: &TextPart| TextEncoderKey {
            graph: SessionKey::new(plan, &plan.opening(&own.part)),
            tokenizer: Arc::clone(&own.tokenizer),
            taken: [Some(own.taken.clone()), own.negative.clone()],
            style: own.style,
            instruction: own.instruction.as_ref().map(|instruction| instruction.text().to_owned()),
            group: own.group,
        };
        Some(Self { encoders: text.encoders.iter().map(encoder).collect(), blank: text.blank })
    }
}

/// A linear map of previews by the decoder that it was fitted to, and the size at which it was.
type FittedMap = ((SessionKey, [usize; 2]), LinearColors);

/// Open graphs that are not at work, and what was made with them.
#[derive(Default)]
pub(super) struct Pool {
    idle: Vec<(SessionKey, Session)>,
    /// The graphs that can be opened in an instant, or were open already.
    ready: Vec<SessionKey>,
    /// The sizes whose memory was compared with the free memory.
    sizes: Vec<Sizes>,
    /// Graphs that could not be kept optimized, and are opened as they are.
    uncached: Vec<SessionKey>,
    /// Graphs that `precision = "auto"` leaves in float32, as they would be opened in bf16.
    float32: Vec<SessionKey>,
    /// The latest last.
    encodings: Vec<(TextKey, PromptCache)>,
    /// The image that a VAE encoder encoded last.
    encoded: Option<(SessionKey, EncodedImage)>,
    maps: Vec<FittedMap>,
    /// The measurements of a denoiser's rows, by its graph and its threads; `None` if nothing could be measured.
    measured: Vec<((PathBuf, usize), Option<Rows>)>,
    /// The providers that can be used here of those that were asked for.
    devices: Vec<((DeviceSpec, Vec<ComponentKind>), DeviceSpec)>,
    /// The damaged files of a cache when its graphs were opened.
    damages: Vec<(PathBuf, usize)>,
    told: BTreeSet<String>,
    short: ShortMemory,
}

/// The fallbacks of a run for which no memory was left.
#[derive(Default)]
struct ShortMemory {
    /// True if no image may be decoded in tiles that its request does not have.
    forbids_tiles: bool,
    /// True if graphs are unloaded as soon as they have done their work.
    unloads: bool,
    /// The sides in latents of the tiles in which models decode, by the graphs of their decoders.
    decode_tiles: Vec<(PathBuf, usize)>,
}

impl Pool {
    /// Takes an open graph out.
    pub(super) fn take(&mut self, key: &SessionKey) -> Option<Session> {
        let at = self.idle.iter().position(|(own, _)| own == key)?;
        Some(self.idle.swap_remove(at).1)
    }

    /// Puts an open graph in.
    pub(super) fn put(&mut self, key: SessionKey, session: Session) {
        self.idle.push((key, session));
    }

    /// Begins a run, which has all the memory that there is now.
    pub(super) fn begin_run(&mut self) {
        self.short = ShortMemory { forbids_tiles: self.short.forbids_tiles, ..ShortMemory::default() };
    }

    pub(super) fn has_open(&self) -> bool {
        !self.idle.is_empty()
    }

    pub(super) fn may_tile(&self) -> bool {
        !self.short.forbids_tiles
    }

    pub(super) fn forbid_tiles(&mut self) {
        self.short.forbids_tiles = true;
    }

    pub(super) fn is_short_of_memory(&self) -> bool {
        self.short.unloads
    }

    pub(super) fn set_short_of_memory(&mut self) {
        self.short.unloads = true;
    }

    /// The side of the tiles in which this model decodes in this run since no memory was left for the whole image.
    pub(super) fn decode_tile(&self, model: &ModelPlan) -> Option<usize> {
        let path = &model.decoder.as_ref()?.graph.path;
        self.short.decode_tiles.iter().rfind(|(own, _)| own == path).map(|(_, side)| *side)
    }

    pub(super) fn set_decode_tile(&mut self, model: &ModelPlan, side: usize) {
        self.short.decode_tiles.extend(model.decoder.iter().map(|part| (part.graph.path.clone(), side)));
    }

    /// True if a run at these sizes was found to fit.
    pub(super) fn has_run_at(&self, sizes: Sizes) -> bool {
        self.sizes.contains(&sizes)
    }

    pub(super) fn set_run_at(&mut self, sizes: Sizes) {
        if !self.has_run_at(sizes) {
            self.sizes.push(sizes);
        }
    }

    pub(super) fn is_open(&self, key: &SessionKey) -> bool {
        self.idle.iter().any(|(own, _)| own == key)
    }

    /// Closes all graphs but these.
    pub(super) fn close_others(&mut self, needed: &[SessionKey]) {
        self.idle.retain(|(own, _)| needed.contains(own));
    }

    /// Closes those graphs that are open in another way than they are `needed`.
    pub(super) fn close_outdated(&mut self, needed: &[SessionKey]) {
        self.idle.retain(|(own, _)| needed.contains(own) || !needed.iter().any(|key| key.shares_graph(own)));
        self.ready.retain(|own| needed.contains(own) || !needed.iter().any(|key| key.shares_graph(own)));
    }

    /// Closes a graph, however it is open.
    pub(super) fn close(&mut self, graph: &Path) {
        self.idle.retain(|(own, _)| own.graph != graph);
    }

    pub(super) fn is_ready(&self, key: &SessionKey) -> bool {
        self.ready.contains(key)
    }

    pub(super) fn set_ready(&mut self, keys: Vec<SessionKey>) {
        let new: Vec<_> = keys.into_iter().filter(|key| !self.ready.contains(key)).collect();
        self.ready.extend(new);
    }

    pub(super) fn set_uncached(&mut self, key: SessionKey) {
        self.uncached.push(key);
    }

    pub(super) fn is_uncached(&self, key: &SessionKey) -> bool {
        self.uncached.contains(key)
    }

    pub(super) fn set_stays_in_float32(&mut self, key: SessionKey) {
        self.float32.push(key);
    }

    pub(super) fn stays_in_float32(&self, key: &SessionKey) -> bool {
        self.float32.contains(key)
    }

    /// The embeddings of the prompts that this plan's text encoders have met.
    pub(super) fn encodings(&mut self, plan: &ExecutionPlan) -> PromptCache {
        /// As many kinds of text encoders as two models in a row have, once over.
        const MOST: usize = 4;
        let Some(key) = TextKey::new(plan) else { return PromptCache::default() };
        let known = self.encodings.iter().position(|(own, _)| *own == key);
        let entry = known.map_or_else(|| (key, PromptCache::default()), |at| self.encodings.remove(at));
        let encodings = entry.1.clone();
        self.encodings.push(entry);
        let spare = self.encodings.len().saturating_sub(MOST);
        self.encodings.drain(..spare);
        encodings
    }

    pub(super) fn encoded(&mut self, key: &SessionKey) -> Option<EncodedImage> {
        self.encoded.take().filter(|(own, _)| own == key).map(|(_, image)| image)
    }

    pub(super) fn set_encoded(&mut self, key: SessionKey, image: EncodedImage) {
        self.encoded = Some((key, image));
    }

    pub(super) fn map(&self, key: &(SessionKey, [usize; 2])) -> Option<LinearColors> {
        self.maps.iter().find(|(own, _)| own == key).map(|(_, map)| map.clone())
    }

    pub(super) fn set_map(&mut self, key: (SessionKey, [usize; 2]), map: LinearColors) {
        self.maps.push((key, map));
    }

    /// Returns the measurement of the rows of a graph with so many threads, if that was tried.
    pub(super) fn measured(&self, graph: &Path, threads: usize) -> Option<Option<Rows>> {
        self.measured.iter().rfind(|((own, count), _)| own == graph && *count == threads).map(|(_, rows)| *rows)
    }

    pub(super) fn set_measured(&mut self, graph: &Path, threads: usize, rows: Option<Rows>) {
        self.measured.retain(|((own, count), _)| own != graph || *count != threads);
        self.measured.push(((graph.to_path_buf(), threads), rows));
    }

    pub(super) fn device(&self, asked: &(DeviceSpec, Vec<ComponentKind>)) -> Option<DeviceSpec> {
        self.devices.iter().find(|(own, _)| own == asked).map(|(_, device)| device.clone())
    }

    pub(super) fn set_device(&mut self, asked: (DeviceSpec, Vec<ComponentKind>), device: DeviceSpec) {
        self.devices.push((asked, device));
    }

    /// Those of these sentences that were not told before.
    pub(super) fn untold(&mut self, sentences: Vec<String>) -> Vec<String> {
        sentences.into_iter().filter(|sentence| self.told.insert(sentence.clone())).collect()
    }

    /// Closes all graphs, and forgets what they made, if one of this cache may be damaged: the next to open it makes it
    /// again.
    pub(super) fn close_damaged(&mut self, cache: Option<&GraphCache>) {
        let Some(cache) = cache else { return };
        let now = cache.damages();
        let known = self.damages.iter_mut().find(|(folder, _)| folder == cache.folder());
        match known {
            None => self.damages.push((cache.folder().to_path_buf(), now)),
            Some((_, before)) if *before == now => {}
            Some((_, before)) => {
                *before = now;
                self.idle.clear();
                self.encodings.clear();
                self.encoded = None;
                self.maps.clear();
            }
        }
    }
}
