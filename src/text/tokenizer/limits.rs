//! Bounds on what a `tokenizer.json` may make of a text, checked before its reader is called.
//!
//! A file from anywhere can hold a regular expression that runs for hours, replacements that double a text thirty times,
//! or steps nested until the stack overflows. None of that can be caught afterwards. The bounds are far above those of
//! every published tokenizer.

use std::path::Path;
use std::sync::Once;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedToken, Encoding, NormalizedString, Normalizer, NormalizerWrapper, Tokenizer};

use super::files::FETCH;
use crate::error::{Error, Result};
use crate::guard::contain;

/// The most bytes of a prompt. CLIP reads some 300 of them at once and T5 some 2,000.
pub const PROMPT_BYTES: usize = 32 * 1024;

/// The most bytes of a regular expression. Those of published tokenizers have up to 500.
const PATTERN_BYTES: usize = 2048;
/// The most groups of a regular expression.
const PATTERN_GROUPS: usize = 64;
/// The largest product of a regular expression's counted repetitions.
const PATTERN_REPEATS: usize = 1000;
/// The most times that a search for a regular expression may go back and try another way.
const RETRIES: u32 = 1_000_000;
/// The most steps of a kind, and the most steps within each other.
const STEPS: usize = 32;
const DEPTH: usize = 8;
/// The most bytes that a step puts in place of a match, or before a text.
pub(super) const CONTENT_BYTES: usize = 64;
/// The most bytes of a piece of a unigram model, and of all its pieces. A piece is as deep a tree as it has bytes.
const PIECE_BYTES: usize = 1024;
const PIECES_BYTES: usize = 8 << 20;
/// The most characters of a word that a WordPiece model takes apart.
const WORD_CHARS: u64 = 1000;
/// The most pieces that a template puts around a text.
const TEMPLATE_PIECES: usize = 16;
/// The longest normalized form, as a multiple of the prompt's length, and the bytes that are added to that.
const GROWTH: (usize, usize) = (32, 1024);

/// Requires that a prompt is short enough to be read.
pub(super) fn check_length(text: &str) -> Result<()> {
    match text.len() {
        ..=PROMPT_BYTES => Ok(()),
        bytes => Err(Error::input(
            "prompt",
            format!("has {bytes} bytes; expected at most {PROMPT_BYTES}"),
            "shorten it: text encoders read a few hundred bytes",
        )),
    }
}

/// Requires that a tokenizer's stages stay within bounds.
pub(super) fn check(path: &Path, json: &Value) -> Result<()> {
    bound_searches();
    let fault = ["normalizer", "pre_tokenizer", "post_processor", "decoder"].iter().find_map(|stage| {
        let mut steps = Steps::default();
        steps.walk(&json[*stage], 0).map(|fault| format!("its {stage} {fault}"))
    });
    let fault = fault.or_else(|| model(&json["model"]).map(|fault| format!("its model {fault}")));
    match fault {
        None => Ok(()),
        Some(fault) => Err(Error::model(path, fault, FETCH)),
    }
}

/// Bounds the work of every search for a regular expression in this process, whose library has no bound by default on
/// the work of a whole search.
fn bound_searches() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: these set a number each, which a search reads when it begins.
        unsafe {
            onig_sys::onig_set_retry_limit_in_match(RETRIES.into());
            onig_sys::onig_set_retry_limit_in_search(RETRIES.into());
        }
    });
}

/// The steps of a stage.
#[derive(Default)]
struct Steps {
    count: usize,
    byte_levels: usize,
}

impl Steps {
    /// Walks through a stage and returns its first fault.
    fn walk(&mut self, step: &Value, depth: usize) -> Option<String> {
        if depth > DEPTH {
            return Some(format!("nests more than {DEPTH} steps"));
        }
        self.count += 1;
        if self.count > STEPS {
            return Some(format!("has more than {STEPS} steps"));
        }
        // Each of them turns a byte above 127 into two.
        self.byte_levels += usize::from(step["type"] == "ByteLevel");
        if self.byte_levels > 2 {
            return Some("takes text apart into bytes more than twice".to_owned());
        }
        let texts = ["content", "prepend", "replacement"].into_iter();
        let long = texts.filter_map(|key| Some((key, step[key].as_str()?.len())));
        if let Some((key, bytes)) = long.into_iter().find(|&(_, bytes)| bytes > CONTENT_BYTES) {
            return Some(format!("has a {key} of {bytes} bytes; expected at most {CONTENT_BYTES}"));
        }
        if let Some(fault) = step["pattern"]["Regex"].as_str().and_then(pattern) {
            return Some(fault);
        }
        if let Some(pieces) = step["single"].as_array().filter(|pieces| pieces.len() > TEMPLATE_PIECES) {
            return Some(format!("puts {} pieces together; expected at most {TEMPLATE_PIECES}", pieces.len()));
        }
        let inner = ["normalizers", "pretokenizers", "CPUs", "decoders"].into_iter();
        let mut inner = inner.filter_map(|key| step[key].as_array()).flatten();
        inner.find_map(|step| self.walk(step, depth + 1))
    }
}

/// Returns what makes a regular expression too much to search for.
fn pattern(text: &str) -> Option<String> {
    let shown: String = text.chars().take(40).collect();
    let fault = |problem: String| Some(format!("has the regular expression {shown:?}, which {problem}"));
    if text.len() > PATTERN_BYTES {
        return fault(format!("has {} bytes; expected at most {PATTERN_BYTES}", text.len()));
    }
    // Brackets in character classes and comments are counted as well, since telling them apart is the parser's own work.
    let (mut groups, mut repeats) = (0, 1usize);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.next().is_some_and(|(_, c)| matches!(c, 'g' | 'k' | '1'..='9')) => {
                return fault("refers back to one of its groups".to_owned());
            }
            '(' => groups += 1,
            '{' => {
                let counts = text.get(at + 1..).and_then(|rest| rest.split('}').next()).unwrap_or_default();
                let most = counts.split(',').filter_map(|count| count.trim().parse::<usize>().ok()).max();
                repeats = repeats.saturating_mul(most.unwrap_or(1).max(1));
            }
            _ => {}
        }
    }
    if groups > PATTERN_GROUPS {
        return fault(format!("has {groups} groups; expected at most {PATTERN_GROUPS}"));
    }
    if repeats > PATTERN_REPEATS {
        return fault(format!("repeats a part more than {PATTERN_REPEATS} times"));
    }
    None
}

/// Returns what makes a model unsafe to read or to run.
fn model(model: &Value) -> Option<String> {
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if let Some(bytes) = model[key].as_str().map(str::len).filter(|&bytes| bytes > CONTENT_BYTES) {
            return Some(format!("has a {key} of {bytes} bytes; expected at most {CONTENT_BYTES}"));
        }
    }
    if model["dropout"].as_f64().is_some_and(|dropout| dropout != 0.0) {
        return Some(format!("has dropout = {}, with which a prompt's tokens are random", model["dropout"]));
    }
    if model["max_input_chars_per_word"].as_u64().is_some_and(|chars| chars > WORD_CHARS) {
        let found = &model["max_input_chars_per_word"];
        return Some(format!("has max_input_chars_per_word = {found}; expected at most {WORD_CHARS}"));
    }
    let pieces = model["vocab"].as_array().into_iter().flatten().filter_map(|piece| piece[0].as_str());
    let (longest, all) = pieces.map(str::len).fold((0, 0), |(longest, all), n| (longest.max(n), all + n));
    if longest > PIECE_BYTES || all > PIECES_BYTES {
        return Some(format!(
            "has pieces of up to {longest} bytes and {all} in all; expected at most {PIECE_BYTES} and {PIECES_BYTES}"
        ));
    }
    None
}

/// Encodes a text, once it is known that normalizing does not multiply it. That is tried step by step, so that no step
/// begins with a text out of bounds.
///
/// # Errors
/// As the tokenizer's own `encode`, and if a step makes too much of the text.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str, special: bool) -> tokenizers::Result<Encoding> {
    check_growth(tokenizer.get_normalizer(), text)?;
    tokenizer.encode(text, special)
}

/// Adds a token, which is normalized as texts are, once it is known what that makes of it.
///
/// # Errors
/// As the tokenizer's own `add_tokens`, and if normalizing makes too much of the token.
pub(super) fn add_token(tokenizer: &mut Tokenizer, token: AddedToken) -> tokenizers::Result<()> {
    check_growth(tokenizer.get_normalizer(), &token.content)?;
    tokenizer.add_tokens([token])?;
    Ok(())
}

/// Requires that normalizing makes no long texts of a file's own added tokens, which its reader normalizes.
pub(super) fn check_added(path: &Path, json: &Value) -> Result<()> {
    let fail = |fault: &dyn std::fmt::Display| Error::model(path, format!("its normalizer: {fault}"), FETCH);
    let read = contain(|| Option::<NormalizerWrapper>::deserialize(&json["normalizer"]));
    let normalizer = read.map_err(|e| fail(&e))?.map_err(|e| fail(&e))?;
    let tokens = json["added_tokens"].as_array().into_iter().flatten();
    tokens.filter_map(|token| token["content"].as_str()).try_for_each(|content| {
        let grown = contain(|| check_growth(normalizer.as_ref(), content));
        grown.map_err(|e| fail(&e))?.map_err(|e| fail(&e))
    })
}

fn check_growth(normalizer: Option<&NormalizerWrapper>, text: &str) -> Result<(), String> {
    let most = text.len() * GROWTH.0 + GROWTH.1;
    normalizer.map_or(Ok(()), |normalizer| grow(normalizer, &mut NormalizedString::from(text), most))
}

fn grow(step: &NormalizerWrapper, text: &mut NormalizedString, most: usize) -> Result<(), String> {
    if let NormalizerWrapper::Sequence(steps) = step {
        return steps.as_ref().iter().try_for_each(|step| grow(step, text, most));
    }
    step.normalize(text).map_err(|e| e.to_string())?;
    match text.get().len() {
        bytes if bytes > most => Err(format!("its normalizer makes {bytes} bytes of it; expected at most {most}")),
        _ => Ok(()),
    }
}
