//! The cleaning of prompts before CLIP's tokenizer splits them into words.
//!
//! transformers has two classes for CLIP's tokenizer. `CLIPTokenizerFast` normalizes as `tokenizer.json` specifies.
//! `CLIPTokenizer` of transformers 4, which diffusers loads if `model_index.json` names it, cleans text in a way that
//! depends on whether the package ftfy is installed. All three give the same tokens for plain English.

use std::sync::LazyLock;

use regex::Regex;
use tokenizers::Tokenizer;

use super::clip::{SPLIT_OF_ANY_CASE, splitter};
use super::ftfy;
use super::normalization::composed;
use crate::error::{Error, Result};

/// The method of cleaning prompts for CLIP's tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cleaning {
    /// As `CLIPTokenizerFast`: composed characters (NFC), runs of white space as one space, lower case.
    #[default]
    Fast,
    /// As `CLIPTokenizer` of transformers 4 without ftfy: control characters are removed, and each Chinese character is
    /// a word.
    Basic,
    /// As `CLIPTokenizer` of transformers 4 with ftfy 6: typographic quotes, ligatures, full-width forms and HTML
    /// entities become plain text, and control characters are removed.
    Ftfy,
}

impl Cleaning {
    /// Cleans a text, in lower case.
    ///
    /// # Errors
    /// A sentence about an unsupported function of ftfy, such as the repair of text in a wrong encoding.
    pub(super) fn clean(self, text: &str) -> Result<String, String> {
        Ok(match self {
            // The tokenizer's own normalizer does the rest.
            Self::Fast => text.to_owned(),
            Self::Basic => basic(text),
            Self::Ftfy => words(&ftfy::fix_text(text)?).join(" ").to_lowercase(),
        })
    }
}

/// CLIP's tokenizer with a separate cleaning instead of its normalizer: added tokens are found in the text as written,
/// and the text between them is cleaned.
#[derive(Debug, Clone)]
pub(super) struct Cleaner {
    cleaning: Cleaning,
    /// The tokenizer without a normalizer and without added tokens.
    words: Tokenizer,
}

/// A text's tokens, and the range of each in the text.
#[derive(Debug, Default)]
pub(super) struct CleanedTokens {
    /// The cleaned text.
    pub(super) text: String,
    pub(super) ids: Vec<i64>,
    pub(super) offsets: Vec<(usize, usize)>,
}

/// Tokens that CLIP's own word pattern also finds in a text.
const IN_TEXT: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];

impl Cleaner {
    pub(super) fn new(tokenizer: &Tokenizer, cleaning: Cleaning) -> tokenizers::Result<Self> {
        let mut words = Tokenizer::new(tokenizer.get_model().clone());
        words.with_pre_tokenizer(Some(splitter(SPLIT_OF_ANY_CASE, false)?));
        Ok(Self { cleaning, words })
    }

    pub(super) fn cleaning(&self) -> Cleaning {
        self.cleaning
    }

    /// Encodes a text without special tokens. `tokenizer` has the added tokens.
    ///
    /// # Errors
    /// [`Error::Input`] if the text cannot be encoded, or if ftfy may repair its encoding.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<CleanedTokens> {
        let added: Vec<(String, u32)> = match tokenizer.get_encode_special_tokens() {
            true => Vec::new(),
            false => tokenizer.get_added_tokens_decoder().into_iter().map(|(id, token)| (token.content, id)).collect(),
        };
        let mut tokens = CleanedTokens::default();
        let mut rest = text;
        while !rest.is_empty() {
            let found = rest.char_indices().find_map(|(at, _)| {
                let here = rest.get(at..)?;
                let (content, id) =
                    added.iter().filter(|(content, _)| here.starts_with(content)).max_by_key(|(c, _)| c.len())?;
                Some((at, content.as_str(), *id))
            });
            let (end, content, id) = found.map_or((rest.len(), "", None), |(at, content, id)| (at, content, Some(id)));
            self.push_cleaned(tokenizer, rest.get(..end).unwrap_or_default(), &mut tokens)?;
            id.into_iter().for_each(|id| tokens.push(content, id));
            rest = rest.get(end + content.len()..).unwrap_or_default();
        }
        Ok(tokens)
    }

    fn push_cleaned(&self, tokenizer: &Tokenizer, text: &str, tokens: &mut CleanedTokens) -> Result<()> {
        let cleaned = self
            .cleaning
            .clean(text)
            .map_err(|problem| Error::input("prompt", problem, "rewrite it, or set text_cleaning = \"basic\""))?;
        let mut rest = cleaned.as_str();
        while !rest.is_empty() {
            let found = IN_TEXT.iter().filter_map(|token| {
                let at = rest.match_indices(token).map(|(at, _)| at).find(|&at| begins_word(rest, at))?;
                Some((at, *token, tokenizer.token_to_id(token)?))
            });
            let (end, token, id) = found
                .min_by_key(|(at, ..)| *at)
                .map_or((rest.len(), "", None), |(at, token, id)| (at, token, Some(id)));
            let part = rest.get(..end).unwrap_or_default();
            let fail = |e: tokenizers::Error| Error::input("prompt", format!("cannot be encoded: {e}"), "");
            let encoding = self.words.encode(part, false).map_err(fail)?;
            let base = tokens.text.len();
            tokens.ids.extend(encoding.get_ids().iter().map(|&id| i64::from(id)));
            tokens.offsets.extend(encoding.get_offsets().iter().map(|(start, end)| (base + start, base + end)));
            tokens.text += part;
            id.into_iter().for_each(|id| tokens.push(token, id));
            rest = rest.get(end + token.len()..).unwrap_or_default();
        }
        Ok(())
    }
}

impl CleanedTokens {
    fn push(&mut self, content: &str, id: u32) {
        self.offsets.push((self.text.len(), self.text.len() + content.len()));
        self.ids.push(id.into());
        self.text += content;
    }
}

/// Returns true if a word begins at a position: consecutive symbols are one word.
fn begins_word(text: &str, at: usize) -> bool {
    match text.get(..at).and_then(|before| before.chars().next_back()) {
        Some(c) => c.is_alphanumeric() || c.is_whitespace(),
        None => true,
    }
}

/// Python's `str.split()`.
fn words(text: &str) -> Vec<&str> {
    let is_blank = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    text.split(is_blank).filter(|word| !word.is_empty()).collect()
}

/// transformers' `BasicTokenizer(strip_accents=False, do_split_on_punc=False)`, its words joined by spaces.
fn basic(text: &str) -> String {
    static LEFT_OUT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\p{C}&&[^\t\n\r]]|\x{FFFD}").ok());
    let kept = LEFT_OUT.as_ref().map_or(text.into(), |left_out| left_out.replace_all(text, ""));
    let mut spaced = String::with_capacity(kept.len());
    for c in kept.chars() {
        match is_chinese(c) {
            true => spaced.extend([' ', c, ' ']),
            false => spaced.push(c),
        }
    }
    let composed = composed(&spaced);
    words(&composed).into_iter().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// Returns true for the blocks of ideographs that BERT's tokenizer splits.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x2A6DF | 0x2A700..=0x2CEAF | 0x2F800..=0x2FA1F)
}
