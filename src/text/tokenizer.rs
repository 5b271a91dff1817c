//! Converts prompts to token ids, exactly as transformers' fast CLIP, BERT, T5 and Gemma tokenizers do.

mod bert;
mod charsmap;
mod cleaning;
mod clip;
mod encoding;
mod files;
mod ftfy;
mod json;
mod limits;
mod normalization;
mod special;
mod t5;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::family::TokenizerKind;
use crate::guard::contain;
use cleaning::{CleanedTokens, Cleaner};
use special::TokenizerSettings;

pub use cleaning::Cleaning;
pub use encoding::Encoding;
pub use limits::PROMPT_BYTES;

/// A tokenizer opened from a model directory.
///
/// ```no_run
/// let tokenizer = ldm_ort::text::tokenizer::Tokenizer::open("model/tokenizer".as_ref())?;
/// let encoding = tokenizer.encode("a red circle")?;
/// assert_eq!(encoding.ids.len(), tokenizer.max_length());
/// # Ok::<(), ldm_ort::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    kind: TokenizerKind,
    dir: PathBuf,
    max_length: usize,
    /// True if the tokenizer's own files state its length.
    has_own_length: bool,
    vocab_size: usize,
    /// The number of special tokens that the post-processor adds to a prompt.
    around: usize,
    /// The special tokens before and after a prompt.
    before: Vec<i64>,
    behind: Vec<i64>,
    pad_id: i64,
    /// The ids of textual inversion tokens, by the ids that the tokenizer gives them.
    words: HashMap<i64, Vec<i64>>,
    pads_left: bool,
    truncates_left: bool,
    /// Cleans prompts instead of the tokenizer's normalizer, if set.
    cleaner: Option<Cleaner>,
}

impl Tokenizer {
    /// Opens the tokenizer in `dir`: its `tokenizer.json`, or else its `vocab.json` and `merges.txt` (CLIP) or its
    /// `vocab.txt` (BERT). T5's is read from `tokenizer.json` only.
    ///
    /// The special tokens and the length come from `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`, with the precedence of transformers; the family's defaults replace missing files. A length
    /// left open (transformers writes 1e30) is 77, and for T5 512, unless the text encoder has another
    /// ([`Tokenizer::has_own_length`]).
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if a file is missing, has another format than its name says, or contradicts another;
    /// [`Error::Io`] if one cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        contain(|| Self::load(dir)).unwrap_or_else(|panic| {
            Err(Error::model(dir, format!("the tokenizer cannot be read: {panic}"), files::FETCH))
        })
    }

    fn load(dir: &Path) -> Result<Self> {
        files::require_whole(dir)?;
        let (json, pieces) = (dir.join("tokenizer.json"), dir.join("vocab.txt"));
        let opened = if json.is_file() { Some(json::open(&json)?) } else { None };
        let kind = match &opened {
            Some(opened) => json::kind(opened),
            None if dir.join("vocab.json").is_file() => TokenizerKind::Clip,
            None if pieces.is_file() => TokenizerKind::Bert,
            None => {
                t5::refuse_pieces(dir)?;
                TokenizerKind::Clip
            }
        };
        let settings = TokenizerSettings::read(dir, kind)?;
        let mut inner = match (opened, kind) {
            (Some(mut opened), _) => {
                bert::make_plain(&mut opened, &json, settings.plain)?;
                opened
            }
            (None, TokenizerKind::Bert) => bert::from_vocab(&pieces, &settings)?,
            (None, _) => clip::from_vocab_and_merges(dir, &settings)?,
        };
        settings.register(&mut inner, dir)?;
        // transformers' class of Gemma's tokenizer makes the post-processor anew, whatever the file has.
        if inner.get_post_processor().is_none() || kind == TokenizerKind::Gemma {
            match (kind, settings.around(&inner, dir)?) {
                (TokenizerKind::Clip, [Some(begin), Some(end)]) => clip::surround(&mut inner, begin, end),
                (TokenizerKind::Bert, [Some(begin), Some(end)]) => bert::surround(&mut inner, begin, end),
                (_, around) => t5::surround(&mut inner, dir, around)?,
            }
        }

        // The file's own truncation and padding are those of another program's last call.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::model(dir, e.to_string(), ""))?;

        let pad_id = settings.pad_id(&inner, dir)?;
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let around = limits::encode(&inner, "", true)
            .map_err(|e| Error::model(dir, format!("cannot encode an empty prompt: {e}"), files::FETCH))?
            .len();
        let (before, behind) = surroundings(&inner)
            .map_err(|e| Error::model(dir, format!("cannot encode a prompt: {e}"), "fetch the tokenizer again"))?;
        let tokenizer = Self {
            before,
            behind,
            words: HashMap::new(),
            inner,
            kind,
            dir: dir.to_path_buf(),
            max_length: kind.length(),
            has_own_length: settings.max_length.is_some(),
            vocab_size,
            around,
            pad_id: i64::from(pad_id),
            pads_left: settings.pads_left,
            truncates_left: settings.truncates_left,
            cleaner: None,
        };
        tokenizer.with_max_length(settings.max_length.unwrap_or(kind.length()))
    }

    /// Sets another length, such as that of the text encoder's position embeddings.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the special tokens alone do not fit.
    pub fn with_max_length(mut self, max_length: usize) -> Result<Self> {
        if max_length < self.around.max(1) {
            let problem = format!(
                "a length of {max_length} tokens is too short for the {} special tokens of every prompt",
                self.around
            );
            return Err(Error::model(&self.dir, problem, "correct model_max_length in tokenizer_config.json"));
        }
        self.max_length = max_length;
        Ok(self)
    }

    /// Sets the cleaning of prompts. Only CLIP's tokenizer has a choice; others keep theirs.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the tokenizer's parts cannot be rebuilt.
    pub fn with_cleaning(mut self, cleaning: Cleaning) -> Result<Self> {
        let is_other = self.kind == TokenizerKind::Clip && cleaning != Cleaning::Fast;
        let cleaner = is_other.then(|| Cleaner::new(&self.inner, cleaning)).transpose();
        self.cleaner = cleaner.map_err(|e| Error::model(&self.dir, e.to_string(), files::FETCH))?;
        Ok(self)
    }

    /// Returns the cleaning of prompts; `None` for tokenizers of families other than CLIP, which have their own.
    pub fn cleaning(&self) -> Option<Cleaning> {
        let own = self.cleaner.as_ref().map_or(Cleaning::Fast, Cleaner::cleaning);
        (self.kind == TokenizerKind::Clip).then_some(own)
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> TokenizerKind {
        self.kind
    }

    /// Returns true for T5's, whose text encoder has no pooled embedding.
    pub fn is_t5(&self) -> bool {
        self.kind == TokenizerKind::T5
    }

    /// Returns true if the tokenizer's own files state its length (`model_max_length`); otherwise the text encoder
    /// does.
    pub fn has_own_length(&self) -> bool {
        self.has_own_length
    }

    /// Returns true for CLIP's.
    pub fn is_clip(&self) -> bool {
        self.kind == TokenizerKind::Clip
    }

    /// Returns the number of ids of an encoded prompt.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Returns one more than the tokenizer's largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Checks that the vocabulary fills a text encoder's embedding of `rows` rows.
    ///
    /// BERT's vocabulary is a list of lines, which does not show that lines are missing at its end. An embedding may be
    /// padded to a multiple of 8 rows, by fewer than 128.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the vocabulary has fewer tokens.
    pub fn check_vocabulary(&self, rows: usize) -> Result<()> {
        let missing = rows.saturating_sub(self.vocab_size);
        let is_padding = rows.is_multiple_of(8) && missing < 128;
        if self.kind != TokenizerKind::Bert || missing == 0 || is_padding {
            return Ok(());
        }
        let problem = format!(
            "is incomplete: the vocabulary has {} tokens, and the text encoder's embedding has {rows} rows",
            self.vocab_size
        );
        Err(Error::model(&self.dir, problem, files::FETCH))
    }

    /// Returns the maximum number of a prompt's tokens, without the special ones.
    pub fn capacity(&self) -> usize {
        self.max_length - self.around
    }

    /// Returns the range of ids that are not padding, if there are `length` of those.
    pub(super) fn read(&self, length: usize) -> Range<usize> {
        let whole = self.max_length.max(length);
        if self.pads_left { whole - length..whole } else { 0..length }
    }

    /// Returns the number of tokens of a text including the special ones, without a limit.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn count(&self, text: &str) -> Result<usize> {
        Ok(self.tokens(text)?.len() + self.around)
    }

    /// Returns the number of special tokens around a prompt.
    pub(super) fn specials(&self) -> usize {
        self.around
    }

    /// Returns the token of a comma, if there is one.
    pub(super) fn comma(&self) -> Option<i64> {
        <[i64; 1]>::try_from(self.tokens(",").ok()?).ok().map(|[comma]| comma)
    }

    /// Returns all tokens of a text, without special tokens.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn tokens(&self, text: &str) -> Result<Vec<i64>> {
        Ok(self
            .split(text)?
            .ids
            .into_iter()
            .flat_map(|id| self.words.get(&id).cloned().unwrap_or_else(|| vec![id]))
            .collect())
    }

    /// Maps a textual inversion token to `ids`.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the tokenizer already has the token.
    pub fn with_word(mut self, word: &str, ids: Vec<i64>) -> Result<Self> {
        if self.inner.token_to_id(word).is_some() {
            let problem = format!("already has the token \"{word}\"");
            return Err(Error::model(&self.dir, problem, "set another token in [[textual_inversion]]"));
        }
        let add = contain(|| limits::add_token(&mut self.inner, AddedToken::from(word, false)));
        let add = add.map_err(|panic| self.unencoded(&panic))?;
        add.map_err(|e| Error::model(&self.dir, format!("cannot add \"{word}\": {e}"), "choose another token"))?;
        if let Some(id) = self.inner.token_to_id(word) {
            self.words.insert(i64::from(id), ids);
        }
        Ok(self)
    }

    /// Returns true if a text contains a token that [`Tokenizer::with_word`] added.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn finds_word(&self, text: &str, word: &str) -> Result<bool> {
        let id = self.inner.token_to_id(word).filter(|&id| self.words.contains_key(&i64::from(id)));
        Ok(id.is_some() && self.split(text)?.ids.iter().any(|&found| Some(found) == id.map(i64::from)))
    }

    /// Returns true if it has textual inversion tokens, which [`Tokenizer::encode`] does not support.
    pub(super) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// Adds the special tokens and the padding to up to [`Tokenizer::capacity`] tokens, and ones to their weights.
    pub(super) fn around(&self, tokens: &[i64], weights: &[f32]) -> (Vec<i64>, Vec<f32>) {
        let mut ids: Vec<i64> = self.before.iter().chain(tokens).chain(&self.behind).copied().collect();
        let mut around = vec![1.0; self.before.len()];
        around.extend_from_slice(weights);
        let length = ids.len();
        ids.resize(self.max_length.max(length), self.pad_id);
        around.resize(ids.len(), 1.0);
        if self.pads_left {
            ids.rotate_left(length);
            around.rotate_left(length);
        }
        (ids, around)
    }

    fn unencoded(&self, e: &dyn std::fmt::Display) -> Error {
        Error::model(&self.dir, format!("cannot encode the prompt: {e}"), "use the tokenizer that comes with the model")
    }

    /// Encodes a text of any length without special tokens.
    fn split(&self, text: &str) -> Result<CleanedTokens> {
        limits::check_length(text)?;
        let encode = || match &self.cleaner {
            Some(cleaner) => cleaner.encode(&self.inner, text),
            None => {
                limits::encode(&self.inner, text, false).map_err(|e| self.unencoded(&e)).map(|encoding| CleanedTokens {
                    text: text.to_owned(),
                    ids: encoding.get_ids().iter().map(|&id| i64::from(id)).collect(),
                    offsets: encoding.get_offsets().to_vec(),
                })
            }
        };
        contain(encode).unwrap_or_else(|panic| Err(self.unencoded(&panic)))
    }

    /// Encodes a prompt as ids.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the vocabulary lacks a part of the prompt and has no token for unknown parts;
    /// [`Error::Input`] for a prompt of more than [`PROMPT_BYTES`], or, with [`Cleaning::Ftfy`], for one that may need
    /// repair.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let CleanedTokens { text, ids, offsets } = self.split(text)?;
        let cut = ids.len().saturating_sub(self.capacity());
        let (kept, lost) = match self.truncates_left {
            true => (cut..ids.len(), 0..cut),
            false => (0..ids.len() - cut, ids.len() - cut..ids.len()),
        };
        let cut_text = match offsets.get(lost).unwrap_or_default() {
            [first, .., last] | [first @ last] => slice(&text, first.0, last.1).trim().to_owned(),
            [] => String::new(),
        };
        let kept = ids.get(kept).unwrap_or_default();
        let (ids, _) = self.around(kept, &vec![1.0; kept.len()]);
        Ok(Encoding { ids, length: kept.len() + self.around, cut, cut_text })
    }
}

/// Returns the special tokens before and after a text.
fn surroundings(inner: &tokenizers::Tokenizer) -> tokenizers::Result<(Vec<i64>, Vec<i64>)> {
    let ids = |special: bool| -> tokenizers::Result<Vec<i64>> {
        Ok(limits::encode(inner, "a", special)?.get_ids().iter().map(|&id| i64::from(id)).collect())
    };
    let (bare, whole) = (ids(false)?, ids(true)?);
    let start = (0..whole.len()).find(|&at| whole.get(at..).is_some_and(|rest| rest.starts_with(&bare)));
    let (before, rest) = whole.split_at(start.unwrap_or(0));
    Ok((before.to_vec(), rest.get(bare.len()..).unwrap_or_default().to_vec()))
}

/// Returns the part of `text` between two byte offsets, extended to whole characters.
fn slice(text: &str, begin: usize, end: usize) -> &str {
    let (begin, end) = (text.floor_char_boundary(begin), text.ceil_char_boundary(end));
    text.get(begin..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
