//! Builds BERT's tokenizer from `vocab.txt` in the way of transformers' `BertConverter`: text is normalized, split into
//! words, and words into the longest pieces in the vocabulary (Wu et al. 2016, arXiv 1609.08144, section 4.1).

use std::path::Path;

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{NormalizerWrapper, Tokenizer};

use super::files::{FETCH, read_text};
use super::special::{BertNormalization, SpecialToken, TokenizerSettings};
use crate::error::{Error, Result};

/// Builds BERT's tokenizer from `vocab.txt`, one token per line, without its special tokens.
pub(super) fn from_vocab(path: &Path, settings: &TokenizerSettings) -> Result<Tokenizer> {
    let text = read_text(path)?.unwrap_or_default();
    let fail = |e: tokenizers::Error| Error::model(path, format!("the tokenizer cannot be built: {e}"), FETCH);
    if text.trim_start().starts_with(['<', '{']) && !text.contains(&settings.unk.content) {
        return Err(Error::model(path, "is not a vocabulary; expected one token per line", FETCH));
    }
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    let tokens = lines.map(|line| line.strip_suffix('\r').unwrap_or(line));
    let vocab: Vocab = tokens.zip(0..).map(|(token, id)| (token.to_owned(), id)).collect();
    let pieces = WordPiece::builder().vocab(vocab).unk_token(settings.unk.content.clone()).build().map_err(fail)?;
    let mut tokenizer = Tokenizer::new(pieces);
    let BertNormalization { lowercase, strip_accents, chinese } = settings.plain;
    let plain = BertNormalizer::new(true, chinese.unwrap_or(true), strip_accents, lowercase.unwrap_or(true));
    tokenizer.with_normalizer(Some(plain)).map_err(fail)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(tokenizer)
}

/// Applies the normalization options of `tokenizer_config.json`, which take precedence, as in `BertTokenizerFast`.
pub(super) fn make_plain(tokenizer: &mut Tokenizer, path: &Path, plain: BertNormalization) -> Result<()> {
    let Some(NormalizerWrapper::BertNormalizer(own)) = tokenizer.get_normalizer() else { return Ok(()) };
    let mut own = *own;
    own.lowercase = plain.lowercase.unwrap_or(own.lowercase);
    own.strip_accents = plain.strip_accents.or(own.strip_accents);
    own.handle_chinese_chars = plain.chinese.unwrap_or(own.handle_chinese_chars);
    tokenizer.with_normalizer(Some(own)).map_err(|e| Error::model(path, e.to_string(), FETCH))?;
    Ok(())
}

/// Adds `[CLS]` and `[SEP]` to every prompt.
pub(super) fn surround(tokenizer: &mut Tokenizer, begin: SpecialToken, end: SpecialToken) {
    tokenizer.with_post_processor(Some(BertProcessing::new(end, begin)));
}
