//! A prompt's tokens.

use crate::error::count_of;

/// A prompt's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// [`Tokenizer::max_length`](super::Tokenizer::max_length) ids: beginning of text (not for T5), the prompt, end of text
    /// (not for Gemma), padding.
    pub ids: Vec<i64>,
    /// How many of the ids are not padding.
    pub length: usize,
    /// How many of the prompt's tokens did not fit.
    pub cut: usize,
    /// The part of the prompt that did not fit, as it was written; empty where all of it did.
    pub cut_text: String,
}

impl Encoding {
    /// What to tell of a prompt that did not fit.
    pub fn warning(&self) -> Option<String> {
        let Self { ids, cut, cut_text, .. } = self;
        (*cut > 0).then(|| {
            let text = cut_text.trim();
            let cut = count_of(*cut, "token");
            format!("the model reads {} tokens, which cuts off {cut} at the prompt's end: \"{text}\"", ids.len())
        })
    }
}
