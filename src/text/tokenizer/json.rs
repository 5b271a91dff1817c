//! Reads a `tokenizer.json`, which describes the stages of a tokenizer.

use std::path::Path;

use serde_json::Value;
use tokenizers::{ModelWrapper, PreTokenizerWrapper, Tokenizer};

use super::charsmap;
use super::clip::{WORD_END, incomplete, missing_token};
use super::files::{FETCH, read_text};
use super::limits;
use crate::error::{Error, Result};
use crate::family::TokenizerKind;
use crate::guard::contain;

/// Opens a `tokenizer.json`.
pub(super) fn open(path: &Path) -> Result<Tokenizer> {
    let text = read_text(path)?.unwrap_or_default();
    let broken = |e: &dyn std::fmt::Display| Error::model(path, format!("is not a readable tokenizer: {e}"), FETCH);
    let json: Value = serde_json::from_str(&text).map_err(|e| broken(&e))?;
    drop(text);
    limits::check(path, &json)?;
    check_model(path, &json)?;
    charsmap::check(path, &json)?;
    check_template(path, &json["post_processor"])?;
    limits::check_added(path, &json)?;
    // Parses the checked values: parsing the text again could use another one of two equal keys.
    let read = contain(|| serde_json::from_value::<Tokenizer>(json)).map_err(|e| broken(&e))?;
    let tokenizer = read.map_err(|e| broken(&e))?;

    // Files written before transformers 4.17 split words differently than in training.
    let clip = matches!(tokenizer.get_model(), ModelWrapper::BPE(bpe) if bpe.end_of_word_suffix.is_some());
    if clip && !matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::Sequence(_))) {
        let help = "remove it, so that vocab.json and merges.txt next to it are used, or save it again";
        return Err(Error::model(path, "was written by a version of transformers whose ids were wrong", help));
    }
    Ok(tokenizer)
}

/// Returns the kind of a tokenizer, by its model.
pub(super) fn kind(tokenizer: &Tokenizer) -> TokenizerKind {
    match tokenizer.get_model() {
        ModelWrapper::WordPiece(_) => TokenizerKind::Bert,
        ModelWrapper::Unigram(_) => TokenizerKind::T5,
        ModelWrapper::BPE(pairs) if pairs.byte_fallback && pairs.end_of_word_suffix.is_none() => TokenizerKind::Gemma,
        _ => TokenizerKind::Clip,
    }
}

/// Checks that the tokens which a template adds exist, which the tokenizers library does not.
fn check_template(path: &Path, processor: &Value) -> Result<()> {
    for inner in processor["processors"].as_array().into_iter().flatten() {
        check_template(path, inner)?;
    }
    for piece in processor["single"].as_array().into_iter().flatten() {
        let (token, text) = (piece["SpecialToken"]["id"].as_str(), piece["Sequence"]["id"].as_str());
        let problem = match (token, text) {
            (Some(token), _) if processor["special_tokens"].get(token).is_none() => {
                format!("adds \"{token}\" to texts, which special_tokens lacks")
            }
            (_, Some(text)) if text != "A" => format!("adds a text {text} to every text"),
            _ => continue,
        };
        return Err(Error::model(path, format!("its post_processor {problem}"), FETCH));
    }
    Ok(())
}

/// Checks the merges in a `tokenizer.json` against its vocabulary, which the tokenizers library does not.
fn check_model(path: &Path, json: &Value) -> Result<()> {
    let model = &json["model"];
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else { return Ok(()) };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    let mut pairs = Vec::with_capacity(merges.len());
    for (i, merge) in merges.iter().enumerate() {
        // Files before tokenizers 0.20 write "a b", later ones ["a", "b"].
        let pair = match merge {
            Value::String(line) => line.split_once(' '),
            Value::Array(pair) => pair.first().and_then(Value::as_str).zip(pair.get(1).and_then(Value::as_str)),
            _ => None,
        };
        let problem = match pair {
            None => format!("merge {i} is not a pair of tokens: {merge}"),
            Some((_, b)) if !b.starts_with(prefix) => {
                format!("merge {i}: token \"{b}\" does not begin with the continuing_subword_prefix \"{prefix}\"")
            }
            Some((a, b)) => match missing_token(vocab, a, b, prefix.len()) {
                None => {
                    pairs.push((a.to_owned(), b.to_owned()));
                    continue;
                }
                Some(token) => format!("merge {i}: token \"{token}\" is not in the vocabulary"),
            },
        };
        return Err(Error::model(path, problem, FETCH));
    }
    // Only in CLIP's kind of vocabulary is each token known to be the result of a merge.
    if model["end_of_word_suffix"].as_str() != Some(WORD_END) {
        return Ok(());
    }
    let added: Vec<&str> =
        json["added_tokens"].as_array().into_iter().flatten().filter_map(|token| token["content"].as_str()).collect();
    let tokens = vocab.iter().map(|(token, id)| (token.as_str(), id.as_u64().unwrap_or(u64::MAX)));
    match incomplete(tokens, &pairs, |token| added.contains(&token)) {
        None => Ok(()),
        Some(problem) => Err(Error::model(path, format!("its list of merges {problem}"), FETCH)),
    }
}
