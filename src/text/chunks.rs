//! Splits a prompt's tokens and their weights into chunks of the length that a text encoder reads.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayD, Axis};

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

/// A text prepended to prompts.
#[derive(Debug, Clone)]
pub struct Instruction {
    text: String,
    /// The tokenizer, with room for the text as well.
    tokenizer: Arc<Tokenizer>,
    /// The number of states to keep: the first one, and the last ones.
    read: usize,
}

impl Instruction {
    /// Creates the instruction `text` for prompts that `tokenizer` encodes. The length is all of its tokens plus the
    /// tokenizer's length minus two, as in diffusers' `SanaPipeline`: the text's first and last token are special tokens
    /// that the kept states also have.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn new(text: String, tokenizer: &Tokenizer) -> Result<Self> {
        let read = tokenizer.max_length();
        let length = (tokenizer.count(&text)? + read).saturating_sub(2);
        let tokenizer = Arc::new(tokenizer.clone().with_max_length(length)?);
        Ok(Self { text, tokenizer, read })
    }

    /// Tokenizes the text followed by a prompt.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn chunks(&self, prompt: &str, style: PromptStyle) -> Result<Chunks> {
        Chunks::with_prefix(&self.text, prompt, &self.tokenizer, style)
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the number of tokens that are encoded.
    pub fn tokens(&self) -> usize {
        self.tokenizer.max_length()
    }

    /// Keeps the first and the last of all states `[tokens, …]`, as many in total as are kept.
    pub(super) fn frame(&self, all: &ArrayD<f32>) -> ArrayD<f32> {
        let tokens = all.shape()[0];
        let last = tokens - (self.read - 1).min(tokens);
        let rows: Vec<usize> = std::iter::once(0).chain(last..tokens).take(self.read).collect();
        all.select(Axis(0), &rows)
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
        Self::with_prefix("", prompt, tokenizer, style)
    }

    fn with_prefix(prefix: &str, prompt: &str, tokenizer: &Tokenizer, style: PromptStyle) -> Result<Self> {
        let in_chunks = style.is_chunked;
        let prompt: &str = &style.text(prompt);
        if !style.has_weights && !in_chunks && !tokenizer.has_words() {
            let encoding = tokenizer.encode(&format!("{prefix}{prompt}"))?;
            let warning = encoding.warning();
            let weights = vec![1.0; encoding.ids.len()];
            let read = tokenizer.read(encoding.length);
            return Ok(Self { chunks: vec![Chunk { ids: encoding.ids, weights, read }], warning });
        }
        let mut parts = match style {
            PromptStyle { has_weights: true, .. } => split_emphasis(prompt),
            PromptStyle { is_chunked: true, .. } => split_breaks(prompt),
            _ => vec![PromptPart::Text(prompt.to_owned(), 1.0)],
        };
        match parts.first_mut() {
            Some(PromptPart::Text(first, 1.0)) => first.insert_str(0, prefix),
            _ if prefix.is_empty() => {}
            _ => parts.insert(0, PromptPart::Text(prefix.to_owned(), 1.0)),
        }
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
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer-tiny");
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

    #[test]
    fn an_instruction_leaves_as_many_states_as_are_read_without_it() {
        let short = tokenizer().with_max_length(6).unwrap();
        let instruction = Instruction::new("a red circle ".to_owned(), &short).unwrap();
        let length = short.count("a red circle ").unwrap() + 4;
        assert_eq!(instruction.tokens(), length);
        let style = PromptStyle { is_masked: true, ..PromptStyle::default() };
        let read = instruction.chunks(" A Blue SQUARE ", style).unwrap();
        let longer = short.clone().with_max_length(length).unwrap();
        assert_eq!(read.chunks[0].ids, longer.encode("a red circle a blue square").unwrap().ids);
        let weighed = instruction.chunks("(square:1.5)", PromptStyle { has_weights: true, ..style }).unwrap();
        let last = weighed.chunks[0].weights.iter().rposition(|&weight| weight == 1.5);
        assert!(last.is_some() && weighed.chunks[0].weights[1] == 1.0);
        let all = ArrayD::from_shape_fn(vec![length, 1], |at| at[0] as f32);
        let framed: Vec<f32> = instruction.frame(&all).into_iter().collect();
        let want: Vec<f32> = std::iter::once(0).chain(length - 5..length).map(|row| row as f32).collect();
        assert_eq!(framed, want);
    }
}
