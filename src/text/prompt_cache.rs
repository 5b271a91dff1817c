//! A cache of prompt embeddings that outlives the encoders.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::prompt_embedding::PromptEmbedding;

/// A prompt or a negative prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PromptText {
    /// The text for the first text encoder.
    pub text: String,
    /// The texts for the other text encoders, in their order, if they differ.
    pub later: Vec<Option<String>>,
    /// True for a negative prompt, for which no layers are skipped.
    pub is_negative: bool,
}

impl PromptText {
    /// Returns the text for the encoder with this index.
    pub fn for_encoder(&self, encoder: usize) -> &str {
        let later = encoder.checked_sub(1).and_then(|at| self.later.get(at));
        later.and_then(Option::as_deref).unwrap_or(&self.text)
    }
}

/// The prompt embeddings of one model so far: several images of one prompt, or the empty negative prompt of every
/// request. All clones share its state.
#[derive(Clone, Default)]
pub struct PromptCache(Arc<Mutex<CacheState>>);

#[derive(Default)]
struct CacheState {
    /// The embeddings by text and number of chunks.
    embeddings: HashMap<(PromptText, usize), Arc<PromptEmbedding>>,
    /// The number of chunks of each text.
    chunks: HashMap<PromptText, usize>,
    bytes: usize,
    made: usize,
}

/// The capacity in bytes, above which the cache is cleared: 400 prompts of Stable Diffusion XL, 30 of Flux.
const ROOM: usize = 256 << 20;

/// The number of texts above which their numbers of chunks are cleared.
const READ: usize = 1 << 14;

impl PromptCache {
    /// Returns true if all of these texts, encoded together, are cached.
    pub fn contains(&self, together: &[PromptText]) -> bool {
        let known = self.known();
        let chunks = together.iter().map(|text| known.chunks.get(text).copied());
        let Some(chunks) = chunks.collect::<Option<Vec<_>>>() else { return false };
        let chunks = chunks.into_iter().max().unwrap_or(1);
        together.iter().all(|text| known.embeddings.contains_key(&(text.clone(), chunks)))
    }

    /// Returns the number of texts encoded so far.
    pub fn encoded_count(&self) -> usize {
        self.known().made
    }

    /// Returns true if another prompt and negative prompt of the same size would clear the cache.
    pub fn is_full(&self) -> bool {
        let known = self.known();
        known.bytes + 2 * known.bytes.div_ceil(known.embeddings.len().max(1)) > ROOM
    }

    pub(super) fn chunks(&self, text: &PromptText) -> Option<usize> {
        self.known().chunks.get(text).copied()
    }

    pub(super) fn read(&self, text: &PromptText, chunks: usize) {
        let mut known = self.known();
        if known.chunks.len() >= READ {
            known.chunks.clear();
        }
        known.chunks.insert(text.clone(), chunks);
    }

    pub(super) fn get(&self, text: &PromptText, chunks: usize) -> Option<Arc<PromptEmbedding>> {
        self.known().embeddings.get(&(text.clone(), chunks)).cloned()
    }

    pub(super) fn keep(&self, text: &PromptText, chunks: usize, embedding: &Arc<PromptEmbedding>) {
        let mut known = self.known();
        let bytes = embedding.bytes();
        if known.bytes + bytes > ROOM {
            known.embeddings.clear();
            known.bytes = 0;
        }
        known.bytes += bytes;
        known.made += 1;
        known.embeddings.insert((text.clone(), chunks), Arc::clone(embedding));
    }

    fn known(&self) -> MutexGuard<'_, CacheState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;

    fn keep(encodings: &PromptCache, name: &str, bytes: usize) {
        let tokens = ArrayD::zeros(ndarray::IxDyn(&[1, bytes / 4]));
        let embedding = PromptEmbedding { tokens, pooled: None, mask: None, warnings: Vec::new() };
        encodings.read(&text(name), 1);
        encodings.keep(&text(name), 1, &Arc::new(embedding));
    }

    fn text(text: &str) -> PromptText {
        PromptText { text: text.to_owned(), later: Vec::new(), is_negative: false }
    }

    #[test]
    fn texts_are_held_in_as_many_chunks_as_the_longest_of_them() {
        let encodings = PromptCache::default();
        keep(&encodings, "a", 400);
        assert!(encodings.contains(&[text("a")]) && encodings.contains(&[]));
        assert!(
            !encodings.contains(&[PromptText { is_negative: true, ..text("a") }]) && !encodings.contains(&[text("b")])
        );
        encodings.read(&text("a"), 2);
        assert!(!encodings.contains(&[text("a")]));
    }

    #[test]
    fn each_encoder_is_told_its_own() {
        let told = PromptText { later: vec![None, Some("b".to_owned())], ..text("a") };
        assert_eq!([0, 1, 2, 3].map(|encoder| told.for_encoder(encoder)), ["a", "a", "b", "a"]);
        let encodings = PromptCache::default();
        keep(&encodings, "a", 400);
        assert!(!encodings.contains(&[told]));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let encodings = PromptCache::default();
        for name in ["a", "b"] {
            assert!(!encodings.is_full());
            keep(&encodings, name, ROOM / 3);
        }
        assert!(encodings.is_full() && encodings.contains(&[text("a"), text("b")]));
        keep(&encodings, "c", ROOM / 2);
        assert!(!encodings.contains(&[text("a")]) && encodings.contains(&[text("c")]));
        assert_eq!(encodings.encoded_count(), 3);
    }
}
