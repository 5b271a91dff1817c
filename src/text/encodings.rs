//! What prompts became, remembered beyond the encoders that made it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::prompt_embedding::PromptEmbedding;

/// A prompt or a negative prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text {
    /// What it says.
    pub text: String,
    /// What it says to the text encoders behind the first one, in their order, where that is something else.
    pub later: Vec<Option<String>>,
    /// Whether it is a negative prompt, of which no layers are left out.
    pub is_negative: bool,
}

impl Text {
    /// What the encoder at this place of the model's is told.
    pub fn of(&self, encoder: usize) -> &str {
        let later = encoder.checked_sub(1).and_then(|at| self.later.get(at));
        later.and_then(Option::as_deref).unwrap_or(&self.text)
    }
}

/// What the text encoders of one model made of the prompts met so far: several images of one prompt, or the empty
/// negative prompt of every request. All clones are one.
#[derive(Clone, Default)]
pub struct Encodings(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// By the number of chunks that was asked for, too.
    embeddings: HashMap<(Text, usize), Arc<PromptEmbedding>>,
    /// How many chunks each text is read in.
    chunks: HashMap<Text, usize>,
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
        let chunks = together.iter().map(|text| known.chunks.get(text).copied());
        let Some(chunks) = chunks.collect::<Option<Vec<_>>>() else { return false };
        let chunks = chunks.into_iter().max().unwrap_or(1);
        together.iter().all(|text| known.embeddings.contains_key(&(text.clone(), chunks)))
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

    pub(super) fn chunks(&self, text: &Text) -> Option<usize> {
        self.known().chunks.get(text).copied()
    }

    pub(super) fn read(&self, text: &Text, chunks: usize) {
        let mut known = self.known();
        if known.chunks.len() >= READ {
            known.chunks.clear();
        }
        known.chunks.insert(text.clone(), chunks);
    }

    pub(super) fn get(&self, text: &Text, chunks: usize) -> Option<Arc<PromptEmbedding>> {
        self.known().embeddings.get(&(text.clone(), chunks)).cloned()
    }

    pub(super) fn keep(&self, text: &Text, chunks: usize, embedding: &Arc<PromptEmbedding>) {
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;

    fn keep(encodings: &Encodings, name: &str, bytes: usize) {
        let tokens = ArrayD::zeros(ndarray::IxDyn(&[1, bytes / 4]));
        let embedding = PromptEmbedding { tokens, pooled: None, mask: None, warnings: Vec::new() };
        encodings.read(&text(name), 1);
        encodings.keep(&text(name), 1, &Arc::new(embedding));
    }

    fn text(text: &str) -> Text {
        Text { text: text.to_owned(), later: Vec::new(), is_negative: false }
    }

    #[test]
    fn texts_are_held_in_as_many_chunks_as_the_longest_of_them() {
        let encodings = Encodings::default();
        keep(&encodings, "a", 400);
        assert!(encodings.hold(&[text("a")]) && encodings.hold(&[]));
        assert!(!encodings.hold(&[Text { is_negative: true, ..text("a") }]) && !encodings.hold(&[text("b")]));
        encodings.read(&text("a"), 2);
        assert!(!encodings.hold(&[text("a")]));
    }

    #[test]
    fn each_encoder_is_told_its_own() {
        let told = Text { later: vec![None, Some("b".to_owned())], ..text("a") };
        assert_eq!([0, 1, 2, 3].map(|encoder| told.of(encoder)), ["a", "a", "b", "a"]);
        let encodings = Encodings::default();
        keep(&encodings, "a", 400);
        assert!(!encodings.hold(&[told]));
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
