//! A prompt's tokens with their weights, in pieces of the length that a text encoder reads.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayD, Axis};

use super::emphasis::{Part, broken, weighted};
use super::tokenizer::Tokenizer;
use crate::error::{Result, count_of};

/// How prompts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Whether brackets weigh words, as AUTOMATIC1111's web UI has it; else they are part of the text.
    pub weighs: bool,
    /// Whether a prompt that is longer than the text encoder reads goes on in another chunk; else it is cut.
    pub goes_on: bool,
    /// Whether a prompt is read in lower case and without the blanks around it, and padding is told apart from it: to
    /// the text encoder, and with its states to the denoiser. PixArt was trained so.
    pub is_masked: bool,
}

impl Style {
    /// A prompt as it is tokenized. Python's `strip` takes the four separators of ASCII for blanks too.
    fn text(self, prompt: &str) -> Cow<'_, str> {
        let is_blank = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
        match self.is_masked {
            true => Cow::Owned(prompt.to_lowercase().trim_matches(is_blank).to_owned()),
            false => Cow::Borrowed(prompt),
        }
    }
}

/// A text that is put before prompts.
#[derive(Debug, Clone)]
pub struct Instruction {
    text: String,
    /// The tokenizer, with room for the text as well.
    tokenizer: Arc<Tokenizer>,
    /// The number of states that are read: the first, and the last ones.
    read: usize,
}

impl Instruction {
    /// Puts `text` before the prompts that `tokenizer` reads. There is room for all of its tokens and for two fewer than the
    /// tokenizer gives without it: diffusers' `SanaPipeline`, where the text begins and ends with a token of its own that
    /// the states to be read have, too.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn new(text: String, tokenizer: &Tokenizer) -> Result<Self> {
        let read = tokenizer.max_length();
        let length = (tokenizer.count(&text)? + read).saturating_sub(2);
        let tokenizer = Arc::new(tokenizer.clone().with_max_length(length)?);
        Ok(Self { text, tokenizer, read })
    }

    /// Reads a prompt behind the text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn chunks(&self, prompt: &str, style: Style) -> Result<Chunks> {
        Chunks::with_prefix(&self.text, prompt, &self.tokenizer, style)
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number of tokens that are encoded.
    pub fn tokens(&self) -> usize {
        self.tokenizer.max_length()
    }

    /// Leaves the first of all `[tokens, …]` and the last ones, as many in all as are read.
    pub(super) fn frame(&self, all: &ArrayD<f32>) -> ArrayD<f32> {
        let tokens = all.shape()[0];
        let last = tokens - (self.read - 1).min(tokens);
        let rows: Vec<usize> = std::iter::once(0).chain(last..tokens).take(self.read).collect();
        all.select(Axis(0), &rows)
    }
}

/// How far before the end of a piece a comma may stand for the piece to end there.
const BACKTRACK: usize = 20;

/// As many tokens as the text encoder reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// [`Tokenizer::max_length`] ids, the tokens around the text and the padding among them.
    pub ids: Vec<i64>,
    /// What the state of each is multiplied by.
    pub weights: Vec<f32>,
    /// Which of the ids are no padding.
    pub read: Range<usize>,
}

/// A prompt, ready for its text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunks {
    /// One at least.
    pub chunks: Vec<Chunk>,
    /// What was cut off, where something was.
    pub warning: Option<String>,
}

impl Chunks {
    /// Reads a prompt.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn new(prompt: &str, tokenizer: &Tokenizer, style: Style) -> Result<Self> {
        Self::with_prefix("", prompt, tokenizer, style)
    }

    fn with_prefix(prefix: &str, prompt: &str, tokenizer: &Tokenizer, style: Style) -> Result<Self> {
        let in_chunks = style.goes_on;
        let prompt: &str = &style.text(prompt);
        if !style.weighs && !in_chunks && !tokenizer.has_words() {
            let encoding = tokenizer.encode(&format!("{prefix}{prompt}"))?;
            let warning = encoding.warning();
            let weights = vec![1.0; encoding.ids.len()];
            let read = tokenizer.read(encoding.length);
            return Ok(Self { chunks: vec![Chunk { ids: encoding.ids, weights, read }], warning });
        }
        let mut parts = match style {
            Style { weighs: true, .. } => weighted(prompt),
            Style { goes_on: true, .. } => broken(prompt),
            _ => vec![Part::Text(prompt.to_owned(), 1.0)],
        };
        match parts.first_mut() {
            Some(Part::Text(first, 1.0)) => first.insert_str(0, prefix),
            _ if prefix.is_empty() => {}
            _ => parts.insert(0, Part::Text(prefix.to_owned(), 1.0)),
        }
        let mut filling =
            Filling { tokenizer, comma: tokenizer.comma(), done: Vec::new(), open: Vec::new(), last_comma: None };
        for part in parts {
            match part {
                Part::Text(text, weight) => {
                    tokenizer.tokens(&text)?.into_iter().for_each(|id| filling.push(id, weight as f32, in_chunks));
                }
                Part::Break if in_chunks => filling.close(),
                Part::Break => {}
            }
        }
        Ok(filling.finish(in_chunks))
    }
}

/// Chunks being filled.
struct Filling<'t> {
    tokenizer: &'t Tokenizer,
    comma: Option<i64>,
    done: Vec<Chunk>,
    open: Vec<(i64, f32)>,
    /// Where the last comma of the open chunk stands.
    last_comma: Option<usize>,
}

impl Filling<'_> {
    fn push(&mut self, id: i64, weight: f32, in_chunks: bool) {
        let room = self.tokenizer.room();
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
        let (length, room) = (self.open.len(), self.tokenizer.room());
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

    fn read(prompt: &str, weighs: bool, goes_on: bool) -> Chunks {
        Chunks::new(prompt, &tokenizer(), Style { weighs, goes_on, is_masked: false }).unwrap()
    }

    #[test]
    fn a_masked_prompt_is_in_lower_case_and_its_padding_told_apart() {
        let plain = read("a red circle", false, false);
        for weighs in [false, true] {
            let style = Style { weighs, goes_on: false, is_masked: true };
            let got = Chunks::new("\x1f\u{3000}A Red\u{a0}CIRCLE \n", &tokenizer(), style).unwrap();
            let [chunk] = got.chunks.as_slice() else { panic!("{got:?}") };
            assert_eq!(
                chunk.ids,
                Chunks::new("a red\u{a0}circle", &tokenizer(), Style::default()).unwrap().chunks[0].ids
            );
            assert_eq!(chunk.read, plain.chunks[0].read);
        }
        assert_eq!(plain.chunks[0].read, 0..2 + tokenizer().tokens("a red circle").unwrap().len());
        assert_eq!(read(&"the ".repeat(40), false, false).chunks[0].read, 0..16);
    }

    #[test]
    fn a_short_prompt_is_one_chunk_of_the_same_ids() {
        let plain = tokenizer().encode("a red circle").unwrap();
        for (weighs, goes_on) in [(false, false), (true, false), (false, true), (true, true)] {
            let got = read("a red circle", weighs, goes_on);
            assert_eq!(got.chunks.len(), 1);
            assert_eq!(got.chunks[0].ids, plain.ids);
            assert!(got.chunks[0].weights.iter().all(|&w| w == 1.0));
            assert_eq!(read("", weighs, goes_on).chunks[0].ids, tokenizer().encode("").unwrap().ids);
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
        // The fixture's encoder reads 16 tokens, 14 of the text.
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
        let style = Style { is_masked: true, ..Style::default() };
        let read = instruction.chunks(" A Blue SQUARE ", style).unwrap();
        let longer = short.clone().with_max_length(length).unwrap();
        assert_eq!(read.chunks[0].ids, longer.encode("a red circle a blue square").unwrap().ids);
        let weighed = instruction.chunks("(square:1.5)", Style { weighs: true, ..style }).unwrap();
        let last = weighed.chunks[0].weights.iter().rposition(|&weight| weight == 1.5);
        assert!(last.is_some() && weighed.chunks[0].weights[1] == 1.0);
        let all = ArrayD::from_shape_fn(vec![length, 1], |at| at[0] as f32);
        let framed: Vec<f32> = instruction.frame(&all).into_iter().collect();
        let want: Vec<f32> = std::iter::once(0).chain(length - 5..length).map(|row| row as f32).collect();
        assert_eq!(framed, want);
    }
}
