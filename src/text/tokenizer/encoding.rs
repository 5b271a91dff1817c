//! A prompt's tokens.

use crate::error::count_of;

/// A prompt's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// [`Tokenizer::max_length`](super::Tokenizer::max_length) ids: beginning of text (not for T5), the prompt, end of text
    /// (not for Gemma), padding.
    pub ids: Vec<i64>,
    /// The number of ids that are not padding.
    pub length: usize,
    /// The number of the prompt's tokens that were truncated.
    pub cut: usize,
    /// The truncated part of the prompt, as written; empty if there is none.
    pub cut_text: String,
}

impl Encoding {
    /// Returns a warning about a truncated prompt.
    pub fn warning(&self) -> Option<String> {
        let Self { ids, cut, cut_text, .. } = self;
        (*cut > 0).then(|| {
            let text = cut_text.trim();
            let cut = count_of(*cut, "token");
            format!("the model reads {} tokens, which cuts off {cut} at the prompt's end: \"{text}\"", ids.len())
        })
    }
}
