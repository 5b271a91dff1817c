//! What prompts became, remembered beyond the encoders that made it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::encoder::Asked;
use super::encoders::Embedding;

/// A prompt or a negative prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What it says.
    pub text: String,
    /// Whether it is a negative prompt, of which no layers are left out.
    pub is_negative: bool,
}

/// What the text encoders of one model made of the prompts met so far: several pictures of one prompt, or the empty
/// negative prompt of every request. All clones are one.
#[derive(Clone, Default)]
pub struct Encodings(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    embeddings: HashMap<(String, Asked), Arc<Embedding>>,
    /// How many chunks each text is read in.
    chunks: HashMap<String, usize>,
    bytes: usize,
    made: usize,
}

/// What may be remembered before all of it is forgotten, in bytes: 400 prompts of Stable Diffusion XL, 30 of Flux.
const ROOM: usize = 256 << 20;

/// How many texts may have been read before all of their numbers of chunks are forgotten.
const READ: usize = 1 << 14;

impl Encodings {
    /// Whether all of these texts, told together, are remembered.
    pub fn hold(&self, together: &[Text]) -> bool {
        let known = self.known();
        let chunks = together.iter().map(|text| known.chunks.get(&text.text).copied());
        let Some(chunks) = chunks.collect::<Option<Vec<_>>>() else { return false };
        let chunks = chunks.into_iter().max().unwrap_or(1);
        together.iter().all(|Text { text, is_negative }| {
            known.embeddings.contains_key(&(text.clone(), Asked { chunks, is_negative: *is_negative }))
        })
    }

    /// How many texts were encoded so far.
    pub fn made(&self) -> usize {
        self.known().made
    }

    /// Whether another prompt and negative prompt like those remembered would have all of them forgotten.
    pub fn is_full(&self) -> bool {
        let known = self.known();
        known.bytes + 2 * known.bytes.div_ceil(known.embeddings.len().max(1)) > ROOM
    }

    pub(super) fn chunks(&self, text: &str) -> Option<usize> {
        self.known().chunks.get(text).copied()
    }

    pub(super) fn read(&self, text: &str, chunks: usize) {
        let mut known = self.known();
        if known.chunks.len() >= READ {
            known.chunks.clear();
        }
        known.chunks.insert(text.to_owned(), chunks);
    }

    pub(super) fn get(&self, text: &str, asked: Asked) -> Option<Arc<Embedding>> {
        self.known().embeddings.get(&(text.to_owned(), asked)).cloned()
    }

    pub(super) fn keep(&self, text: &str, asked: Asked, embedding: &Arc<Embedding>) {
        let mut known = self.known();
        let bytes = embedding.bytes();
        if known.bytes + bytes > ROOM {
            known.embeddings.clear();
            known.bytes = 0;
        }
        known.bytes += bytes;
        known.made += 1;
        known.embeddings.insert((text.to_owned(), asked), Arc::clone(embedding));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;

    fn keep(encodings: &Encodings, text: &str, bytes: usize) {
        let tokens = ArrayD::zeros(ndarray::IxDyn(&[1, bytes / 4]));
        let embedding = Embedding { tokens, pooled: None, mask: None, warnings: Vec::new() };
        encodings.read(text, 1);
        encodings.keep(text, Asked { chunks: 1, is_negative: false }, &Arc::new(embedding));
    }

    fn text(text: &str) -> Text {
        Text { text: text.to_owned(), is_negative: false }
    }

    #[test]
    fn texts_are_held_in_as_many_chunks_as_the_longest_of_them() {
        let encodings = Encodings::default();
        keep(&encodings, "a", 400);
        assert!(encodings.hold(&[text("a")]) && encodings.hold(&[]));
        assert!(!encodings.hold(&[Text { is_negative: true, ..text("a") }]) && !encodings.hold(&[text("b")]));
        encodings.read("a", 2);
        assert!(!encodings.hold(&[text("a")]));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let encodings = Encodings::default();
        for name in ["a", "b"] {
            assert!(!encodings.is_full());
            keep(&encodings, name, ROOM / 3);
        }
        assert!(encodings.is_full() && encodings.hold(&[text("a"), text("b")]));
        keep(&encodings, "c", ROOM / 2);
        assert!(!encodings.hold(&[text("a")]) && encodings.hold(&[text("c")]));
        assert_eq!(encodings.made(), 3);
    }
}
