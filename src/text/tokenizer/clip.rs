//! Builds CLIP's tokenizer from `vocab.json` and `merges.txt` in the way of transformers' `CLIPConverter`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{NormalizerWrapper, SplitDelimiterBehavior, Tokenizer};

use super::files::{FETCH, read_json, read_text};
use super::special::{SpecialToken, TokenizerSettings};
use crate::error::{Error, Result};

/// The pattern that splits a prompt before pairs are merged: contractions, words, single digits, runs of anything else.
const SPLIT: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The pattern of transformers' slow class, which ignores case, and so matches a long s as an s.
pub(super) const SPLIT_OF_ANY_CASE: &str = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The suffix of a token that ends a word.
pub(super) const WORD_END: &str = "</w>";

/// The number of lines of `merges.txt` that transformers reads after the first, the version.
const MAX_MERGES: usize = 49152 - 256 - 2;

/// Builds CLIP's tokenizer from `vocab.json` and `merges.txt`, without its special tokens.
pub(super) fn from_vocab_and_merges(dir: &Path, settings: &TokenizerSettings) -> Result<Tokenizer> {
    let (vocab_path, merges_path) = (dir.join("vocab.json"), dir.join("merges.txt"));
    let vocab: Option<HashMap<String, u32>> = read_json(&vocab_path)?;
    let merges = read_text(&merges_path)?;
    let (vocab, merges) = match (vocab, merges) {
        (Some(vocab), Some(merges)) => (vocab, merges),
        (vocab, merges) => {
            let missing = match (vocab, merges) {
                (None, None) => "contains neither tokenizer.json nor vocab.json and merges.txt nor vocab.txt",
                (None, _) => "contains merges.txt but neither vocab.json nor tokenizer.json",
                _ => "contains vocab.json but neither merges.txt nor tokenizer.json",
            };
            return Err(Error::model(dir, missing, "copy the files of the model's tokenizer there"));
        }
    };
    let merges = parse_merges(&merges_path, &merges, &vocab)?;
    let tokens = vocab.iter().map(|(token, &id)| (token.as_str(), u64::from(id)));
    if let Some(problem) = incomplete(tokens, &merges, |token| settings.names(token)) {
        return Err(Error::model(&merges_path, problem, FETCH));
    }

    let fail = |e: tokenizers::Error| Error::model(dir, format!("the tokenizer cannot be built: {e}"), FETCH);
    let bpe = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(WORD_END.to_owned())
        .unk_token(settings.unk.content.clone())
        .build()
        .map_err(fail)?;

    let mut tokenizer = Tokenizer::new(bpe);
    let white = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(fail)?;
    let normalizers: Vec<NormalizerWrapper> = vec![NFC.into(), white.into(), Lowercase.into()];
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(fail)?;

    tokenizer.with_pre_tokenizer(Some(splitter(SPLIT, true).map_err(fail)?));
    Ok(tokenizer)
}

/// Returns the stage that splits a text into words by a regular expression, and those into bytes. If `again`, it also
/// splits words by GPT-2's expression, which changes few.
pub(super) fn splitter(pattern: &str, again: bool) -> tokenizers::Result<PreTokenizers> {
    let split = Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    Ok(PreTokenizers::new(vec![split.into(), ByteLevel::new(false, true, again).into()]))
}

/// Adds the beginning and the end of text to every prompt.
pub(super) fn surround(tokenizer: &mut Tokenizer, begin: SpecialToken, end: SpecialToken) {
    let around = RobertaProcessing::new(end, begin).add_prefix_space(false).trim_offsets(false);
    tokenizer.with_post_processor(Some(around));
}

/// Reads the pairs of `merges.txt`, the most frequent first. A repeated pair counts at its first position.
fn parse_merges(path: &Path, text: &str, vocab: &HashMap<String, u32>) -> Result<Vec<(String, String)>> {
    let mut merges = Vec::new();
    let mut seen = HashSet::new();
    for (i, line) in text.trim().split('\n').enumerate().skip(1).take(MAX_MERGES) {
        let mut parts = line.split_whitespace();
        let (Some(a), Some(b), None) = (parts.next(), parts.next(), parts.next()) else {
            let problem = format!("line {}: expected two tokens, found \"{}\"", i + 1, line.trim());
            return Err(Error::model(path, problem, FETCH));
        };
        if let Some(token) = missing_token(vocab, a, b, 0) {
            let problem = format!("line {}: token \"{token}\" is not in vocab.json", i + 1);
            return Err(Error::model(path, problem, "use vocab.json and merges.txt of the same model"));
        }
        if seen.insert((a, b)) {
            merges.push((a.to_owned(), b.to_owned()));
        }
    }
    Ok(merges)
}

/// Describes the merges that are missing from a CLIP vocabulary; `None` if it is complete.
///
/// Training adds a token for each merge. So every token is a single character with or without the end-of-word suffix, a
/// special token (`is_special`, or `<…>`, which no merge produces), or the result of a merge. A list of merges that is
/// empty, truncated between two lines or taken from another model leaves tokens that no merge produces. Special tokens
/// are the last that training adds, so tokens after them were added later, by hand: no text becomes those, in
/// transformers neither.
pub(super) fn incomplete<'a>(
    tokens: impl Iterator<Item = (&'a str, u64)>,
    merges: &[(String, String)],
    is_special: impl Fn(&str) -> bool,
) -> Option<String> {
    let made: HashSet<String> = merges.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let is_bracketed = |token: &str| {
        let inner = token.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        inner.is_some_and(|inner| inner.contains(|c: char| c.is_ascii_alphanumeric()))
    };
    let is_merged = |token: &str| {
        let plain = token.strip_suffix(WORD_END).unwrap_or(token);
        plain.chars().nth(1).is_some() && !is_special(token) && !is_bracketed(plain)
    };
    let (merged, others): (Vec<_>, Vec<_>) = tokens.partition(|(token, _)| is_merged(token));
    let (made, mut missing): (Vec<_>, Vec<_>) = merged.iter().partition(|(token, _)| made.contains(*token));
    let last_special = others.iter().filter(|(token, _)| is_special(token)).map(|(_, id)| *id).max();
    if let Some(last) = last_special.filter(|last| made.iter().all(|(_, id)| id < last)) {
        missing.retain(|(_, id)| *id < last);
    }
    let (token, id) = missing.iter().min_by_key(|(_, id)| *id)?;
    Some(format!(
        "is incomplete: no merge produces \"{token}\" (id {id}); expected {} merges for the vocabulary, found {}",
        made.len() + missing.len(),
        made.len()
    ))
}

/// A set of tokens.
pub(super) trait Vocabulary {
    fn has(&self, token: &str) -> bool;
}

impl Vocabulary for HashMap<String, u32> {
    fn has(&self, token: &str) -> bool {
        self.contains_key(token)
    }
}

impl Vocabulary for serde_json::Map<String, Value> {
    fn has(&self, token: &str) -> bool {
        self.contains_key(token)
    }
}

/// Returns the first of a pair's two tokens and their merged token that the vocabulary lacks. `prefix` bytes of the
/// second token mark that it continues a word, and are not part of the merged token.
pub(super) fn missing_token(vocab: &impl Vocabulary, a: &str, b: &str, prefix: usize) -> Option<String> {
    let merged = format!("{a}{}", b.get(prefix..).unwrap_or(b));
    [a, b, &merged].into_iter().find(|token| !vocab.has(token)).map(str::to_owned)
}
