//! The stages of BERT's tokenizer, put together from `vocab.txt` as transformers' `BertConverter` puts them together:
//! text made plain, split into words, the words into the longest pieces that the vocabulary has (Wu et al. 2016, arXiv
//! 1609.08144, section 4.1).

use std::path::Path;

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{NormalizerWrapper, Tokenizer};

use super::files::FETCH;
use super::files::read_text;
use super::special::{Placed, Plain, Settings};
use crate::error::{Error, Result};

/// Puts BERT's tokenizer together from `vocab.txt`, a token a line, without its special tokens.
pub(super) fn from_vocab(path: &Path, settings: &Settings) -> Result<Tokenizer> {
    let text = read_text(path)?.unwrap_or_default();
    let fail = |e: tokenizers::Error| Error::model(path, format!("the tokenizer cannot be built: {e}"), FETCH);
    if text.trim_start().starts_with(['<', '{']) && !text.contains(&settings.unk.content) {
        return Err(Error::model(path, "is not a vocabulary, which has a token on each line", FETCH));
    }
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    let tokens = lines.map(|line| line.strip_suffix('\r').unwrap_or(line));
    let vocab: Vocab = tokens.zip(0..).map(|(token, id)| (token.to_owned(), id)).collect();
    let pieces = WordPiece::builder().vocab(vocab).unk_token(settings.unk.content.clone()).build().map_err(fail)?;
    let mut tokenizer = Tokenizer::new(pieces);
    let Plain { lowercase, strip_accents, chinese } = settings.plain;
    let plain = BertNormalizer::new(true, chinese.unwrap_or(true), strip_accents, lowercase.unwrap_or(true));
    tokenizer.with_normalizer(Some(plain)).map_err(fail)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(tokenizer)
}

/// Lets `tokenizer_config.json` have the last word on how text is made plain, as `BertTokenizerFast` does.
pub(super) fn make_plain(tokenizer: &mut Tokenizer, path: &Path, plain: Plain) -> Result<()> {
    let Some(NormalizerWrapper::BertNormalizer(own)) = tokenizer.get_normalizer() else { return Ok(()) };
    let mut own = *own;
    own.lowercase = plain.lowercase.unwrap_or(own.lowercase);
    own.strip_accents = plain.strip_accents.or(own.strip_accents);
    own.handle_chinese_chars = plain.chinese.unwrap_or(own.handle_chinese_chars);
    tokenizer.with_normalizer(Some(own)).map_err(|e| Error::model(path, e.to_string(), FETCH))?;
    Ok(())
}

/// Puts `[CLS]` and `[SEP]` around every prompt.
pub(super) fn surround(tokenizer: &mut Tokenizer, begin: Placed, end: Placed) {
    tokenizer.with_post_processor(Some(BertProcessing::new(end, begin)));
}
