//! Limits on the effect of a `tokenizer.json` on a text, checked before the tokenizers library reads it.
//!
//! An untrusted file can contain a regular expression that runs for hours, replacements that double a text thirty
//! times, or steps nested until the stack overflows. None of that can be caught afterwards. The limits are far above
//! those of every published tokenizer.

use std::path::Path;
use std::sync::Once;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedToken, Encoding, NormalizedString, Normalizer, NormalizerWrapper, Tokenizer};

use super::files::FETCH;
use crate::error::{Error, Result};
use crate::guard::contain;

/// The maximum size of a prompt in bytes. CLIP reads some 300 of them at once and T5 some 2,000.
pub const PROMPT_BYTES: usize = 32 * 1024;

/// The maximum length of a regular expression in bytes. Those of published tokenizers have up to 500.
const PATTERN_BYTES: usize = 2048;
/// The maximum number of groups of a regular expression.
const PATTERN_GROUPS: usize = 64;
/// The maximum product of a regular expression's counted repetitions.
const PATTERN_REPEATS: usize = 1000;
/// The maximum number of backtracking steps of a regular expression search.
const RETRIES: u32 = 1_000_000;
/// The maximum number of steps of a kind, and their maximum nesting depth.
const STEPS: usize = 32;
const DEPTH: usize = 8;
/// The maximum number of bytes that a step inserts for a match, or before a text.
pub(super) const CONTENT_BYTES: usize = 64;
/// The maximum size in bytes of a piece of a unigram model, and of all its pieces. A piece is a tree as deep as its
/// bytes.
const PIECE_BYTES: usize = 1024;
const PIECES_BYTES: usize = 8 << 20;
/// The maximum number of characters of a word that a WordPiece model splits.
const WORD_CHARS: u64 = 1000;
/// The maximum number of pieces that a template adds to a text.
const TEMPLATE_PIECES: usize = 16;
/// The maximum length of a normalized prompt: a multiple of the prompt's length, and an additional number of bytes.
const GROWTH: (usize, usize) = (32, 1024);

/// Checks the length of a prompt.
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

/// Checks that a tokenizer's stages are within the limits.
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

/// Limits the work of every regular expression search in this process; by default, the library does not limit the work
/// of a whole search.
fn bound_searches() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: each sets a number that a search reads when it starts.
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
    /// Checks a stage and returns its first fault.
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
            return Some("splits text into bytes more than twice".to_owned());
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
            return Some(format!("combines {} pieces; expected at most {TEMPLATE_PIECES}", pieces.len()));
        }
        let inner = ["normalizers", "pretokenizers", "CPUs", "decoders"].into_iter();
        let mut inner = inner.filter_map(|key| step[key].as_array()).flatten();
        inner.find_map(|step| self.walk(step, depth + 1))
    }
}

/// Returns the reason why a regular expression is too expensive.
fn pattern(text: &str) -> Option<String> {
    let shown: String = text.chars().take(40).collect();
    let fault = |problem: String| Some(format!("has the regular expression {shown:?}, which {problem}"));
    if text.len() > PATTERN_BYTES {
        return fault(format!("has {} bytes; expected at most {PATTERN_BYTES}", text.len()));
    }
    // Brackets in character classes and comments also count, since telling them apart needs a parser.
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

/// Returns the reason why a model is unsafe to read or to run.
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
            "has pieces of up to {longest} bytes and {all} in total; expected at most {PIECE_BYTES} and {PIECES_BYTES}"
        ));
    }
    None
}

/// Encodes a text after checking that normalization does not make it too long. The check goes step by step, so that no
/// step starts with a text beyond the limits.
///
/// # Errors
/// As the tokenizer's own `encode`, and if a step makes the text too long.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str, special: bool) -> tokenizers::Result<Encoding> {
    check_growth(tokenizer.get_normalizer(), text)?;
    tokenizer.encode(text, special)
}

/// Adds a token, which is normalized like texts, after checking the length of its normalized form.
///
/// # Errors
/// As the tokenizer's own `add_tokens`, and if normalization makes the token too long.
pub(super) fn add_token(tokenizer: &mut Tokenizer, token: AddedToken) -> tokenizers::Result<()> {
    check_growth(tokenizer.get_normalizer(), &token.content)?;
    tokenizer.add_tokens([token])?;
    Ok(())
}

/// Checks that normalization does not make a file's own added tokens too long.
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
        bytes if bytes > most => Err(format!("its normalizer turns it into {bytes} bytes; expected at most {most}")),
        _ => Ok(()),
    }
}
