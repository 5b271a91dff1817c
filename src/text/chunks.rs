//! Splits a prompt's tokens and their weights into chunks of the length that a text encoder reads.

use std::borrow::Cow;
use std::ops::Range;

use super::emphasis::{PromptPart, split_breaks, split_emphasis};
use super::tokenizer::Tokenizer;
use crate::error::{Result, count_of};

/// The options for reading prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PromptStyle {
    /// True if brackets weight words, as in AUTOMATIC1111's web UI; otherwise they are part of the text.
    pub has_weights: bool,
    /// True if a prompt longer than the text encoder's limit continues in another chunk; otherwise it is truncated.
    pub is_chunked: bool,
    /// True if a prompt is converted to lower case and stripped, and padding is masked: in the text encoder, and in the
    /// denoiser's cross-attention. PixArt was trained with both.
    pub is_masked: bool,
}

impl PromptStyle {
    /// Returns a prompt as it is tokenized. Python's `strip` also removes the four ASCII separators.
    fn text(self, prompt: &str) -> Cow<'_, str> {
        let is_blank = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
        match self.is_masked {
            true => Cow::Owned(prompt.to_lowercase().trim_matches(is_blank).to_owned()),
            false => Cow::Borrowed(prompt),
        }
    }
}

/// The maximum distance between the end of a chunk and a comma at which the chunk is split instead.
const BACKTRACK: usize = 20;

/// As many tokens as the text encoder reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// [`Tokenizer::max_length`] ids, including the tokens around the text and the padding.
    pub ids: Vec<i64>,
    /// The factor of each token's states.
    pub weights: Vec<f32>,
    /// The range of ids that are not padding.
    pub read: Range<usize>,
}

/// A prompt, tokenized for its text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunks {
    /// At least one chunk.
    pub chunks: Vec<Chunk>,
    /// A warning if the prompt was truncated.
    pub warning: Option<String>,
}

impl Chunks {
    /// Tokenizes a prompt.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn new(prompt: &str, tokenizer: &Tokenizer, style: PromptStyle) -> Result<Self> {
        let in_chunks = style.is_chunked;
        let prompt: &str = &style.text(prompt);
        if !style.has_weights && !in_chunks && !tokenizer.has_words() {
            let encoding = tokenizer.encode(prompt)?;
            let warning = encoding.warning();
            let weights = vec![1.0; encoding.ids.len()];
            let read = tokenizer.read(encoding.length);
            return Ok(Self { chunks: vec![Chunk { ids: encoding.ids, weights, read }], warning });
        }
        let parts = match style {
            PromptStyle { has_weights: true, .. } => split_emphasis(prompt),
            PromptStyle { is_chunked: true, .. } => split_breaks(prompt),
            _ => vec![PromptPart::Text(prompt.to_owned(), 1.0)],
        };
        let mut filling =
            ChunkBuilder { tokenizer, comma: tokenizer.comma(), done: Vec::new(), open: Vec::new(), last_comma: None };
        for part in parts {
            match part {
                PromptPart::Text(text, weight) => {
                    tokenizer.tokens(&text)?.into_iter().for_each(|id| filling.push(id, weight as f32, in_chunks));
                }
                PromptPart::Break if in_chunks => filling.close(),
                PromptPart::Break => {}
            }
        }
        Ok(filling.finish(in_chunks))
    }
}

/// Chunks under construction.
struct ChunkBuilder<'t> {
    tokenizer: &'t Tokenizer,
    comma: Option<i64>,
    done: Vec<Chunk>,
    open: Vec<(i64, f32)>,
    /// The position of the last comma of the open chunk.
    last_comma: Option<usize>,
}

impl ChunkBuilder<'_> {
    fn push(&mut self, id: i64, weight: f32, in_chunks: bool) {
        let room = self.tokenizer.capacity();
        let is_full = in_chunks && self.open.len() >= room;
        if self.comma == Some(id) {
            self.last_comma = Some(self.open.len());
        } else if let Some(comma) = self.last_comma.filter(|comma| is_full && self.open.len() - comma <= BACKTRACK) {
            let moved = self.open.split_off((comma + 1).min(self.open.len()));
            self.close();
            self.open = moved;
        }
        if in_chunks && self.open.len() >= room {
            self.close();
        }
        self.open.push((id, weight));
    }

    fn close(&mut self) {
        let (ids, weights): (Vec<_>, Vec<_>) = self.open.drain(..).unzip();
        self.last_comma = None;
        let read = self.tokenizer.read(ids.len() + self.tokenizer.specials());
        let (ids, weights) = self.tokenizer.around(&ids, &weights);
        self.done.push(Chunk { ids, weights, read });
    }

    fn finish(mut self, in_chunks: bool) -> Chunks {
        let mut warning = None;
        let (length, room) = (self.open.len(), self.tokenizer.capacity());
        if !in_chunks && length > room {
            let cut = length - room;
            self.open.truncate(room);
            warning = Some(format!(
                "the model reads {} tokens, which cuts off {} at the prompt's end (long_prompts = \"chunk\" reads \
                 the whole prompt)",
                self.tokenizer.max_length(),
                count_of(cut, "token")
            ));
        }
        if !self.open.is_empty() || self.done.is_empty() {
            self.close();
        }
        Chunks { chunks: self.done, warning }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/sd1/tokenizer");
        Tokenizer::open(dir.as_ref()).unwrap()
    }

    fn read(prompt: &str, has_weights: bool, is_chunked: bool) -> Chunks {
        Chunks::new(prompt, &tokenizer(), PromptStyle { has_weights, is_chunked, is_masked: false }).unwrap()
    }

    #[test]
    fn a_masked_prompt_is_in_lower_case_and_its_padding_told_apart() {
        let plain = read("a red circle", false, false);
        for has_weights in [false, true] {
            let style = PromptStyle { has_weights, is_chunked: false, is_masked: true };
            let got = Chunks::new("\x1f\u{3000}A Red\u{a0}CIRCLE \n", &tokenizer(), style).unwrap();
            let [chunk] = got.chunks.as_slice() else { panic!("{got:?}") };
            assert_eq!(
                chunk.ids,
                Chunks::new("a red\u{a0}circle", &tokenizer(), PromptStyle::default()).unwrap().chunks[0].ids
            );
            assert_eq!(chunk.read, plain.chunks[0].read);
        }
        assert_eq!(plain.chunks[0].read, 0..2 + tokenizer().tokens("a red circle").unwrap().len());
        assert_eq!(read(&"the ".repeat(40), false, false).chunks[0].read, 0..16);
    }

    #[test]
    fn a_short_prompt_is_one_chunk_of_the_same_ids() {
        let plain = tokenizer().encode("a red circle").unwrap();
        for (has_weights, is_chunked) in [(false, false), (true, false), (false, true), (true, true)] {
            let got = read("a red circle", has_weights, is_chunked);
            assert_eq!(got.chunks.len(), 1);
            assert_eq!(got.chunks[0].ids, plain.ids);
            assert!(got.chunks[0].weights.iter().all(|&w| w == 1.0));
            assert_eq!(read("", has_weights, is_chunked).chunks[0].ids, tokenizer().encode("").unwrap().ids);
        }
    }

    #[test]
    fn the_weights_are_those_of_the_tokens() {
        let got = read("a (red:1.5) circle", true, false);
        let red = tokenizer().tokens("red").unwrap().len();
        let weights = &got.chunks[0].weights;
        assert_eq!(weights.iter().filter(|&&w| w == 1.5).count(), red);
        assert_eq!((weights[0], weights[1], weights[2]), (1.0, 1.0, 1.5));
    }

    #[test]
    fn what_does_not_fit_is_cut_or_goes_on() {
        // The fixture's encoder reads 16 tokens, 14 of them text.
        let long = "the ".repeat(40);
        let cut = read(&long, true, false);
        assert_eq!(cut.chunks.len(), 1);
        assert_eq!(cut.chunks[0].ids, tokenizer().encode(&long).unwrap().ids);
        assert!(cut.warning.unwrap().contains("cuts off 26 tokens"));
        let chunked = read(&long, false, true);
        assert_eq!((chunked.chunks.len(), chunked.warning), (3, None));
        assert_eq!(chunked.chunks[0].ids, cut.chunks[0].ids);
        assert_eq!(chunked.chunks[2].ids, tokenizer().encode(&"the ".repeat(12)).unwrap().ids);
    }

    #[test]
    fn a_chunk_ends_at_a_comma_and_at_break() {
        let ids = |text: &str| tokenizer().encode(text).unwrap().ids;
        let got = read(&format!("the the, {}", "the ".repeat(20)), false, true);
        let got: Vec<_> = got.chunks.into_iter().map(|chunk| chunk.ids).collect();
        assert_eq!(got, [ids("the the,"), ids(&"the ".repeat(14)), ids(&"the ".repeat(6))]);
        let got = read("the BREAK the the", false, true);
        let got: Vec<_> = got.chunks.into_iter().map(|chunk| chunk.ids).collect();
        assert_eq!(got, [ids("the"), ids("the the")]);
    }
}
