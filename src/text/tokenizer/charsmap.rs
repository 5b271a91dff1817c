//! The character map of SentencePiece's normalization, validated before the tokenizers library reads it, which does
//! not.
//!
//! In `tokenizer.json` it is `precompiled_charsmap`, in base64: the bytes of a double array (Aoe 1989) as a
//! little-endian u32, the array's units, one u32 each, and the replacement texts, each ended by a zero byte.

use std::path::Path;

use serde_json::Value;

use super::files::FETCH;
use super::limits::CONTENT_BYTES;
use crate::error::{Error, Result};

/// Checks that every map in a `tokenizer.json` is safe for any text, and maps no character to a long text.
pub(super) fn check(path: &Path, json: &Value) -> Result<()> {
    let fault = maps(&json["normalizer"]).into_iter().find_map(|map| match map {
        Some(Value::String(map)) => fault(map),
        None => Some("is missing".to_owned()),
        Some(other) => Some(format!("is {}; expected base64 in a string", kind(other))),
    });
    match fault {
        None => Ok(()),
        Some(fault) => Err(Error::model(path, format!("its normalizer's precompiled_charsmap {fault}"), FETCH)),
    }
}

/// Returns the maps of a normalizer and of those in it; `None` for a missing map.
fn maps(normalizer: &Value) -> Vec<Option<&Value>> {
    let inner = normalizer["normalizers"].as_array().into_iter().flatten().flat_map(maps);
    let own = normalizer.get("precompiled_charsmap");
    let has_one = own.is_some() || normalizer["type"] == "Precompiled";
    has_one.then_some(own).into_iter().chain(inner).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Returns the fault of a map, if any.
fn fault(text: &str) -> Option<String> {
    let fault = |problem: &str| Some(problem.to_owned());
    let Some(bytes) = from_base64(text) else { return fault("is not base64") };
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else { return fault("is empty") };
    let size = u32::from_le_bytes(*size) as usize / 4 * 4;
    let Some((array, texts)) = rest.split_at_checked(size) else { return fault("is truncated") };
    let units: Vec<usize> = array.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    let Ok(texts) = std::str::from_utf8(texts) else { return fault("contains texts that are not UTF-8") };
    match walk(&units, texts) {
        None => fault("points beyond its end"),
        Some(longest) if longest > CONTENT_BYTES => {
            Some(format!("maps a character to {longest} bytes; expected at most {CONTENT_BYTES}"))
        }
        Some(_) => None,
    }
}

/// Walks all units that a text can reach from the first one, and returns the length of the longest replacement text;
/// `None` if a step points beyond the units or the texts.
fn walk(units: &[usize], texts: &str) -> Option<usize> {
    const IS_VALUE: usize = 1 << 31;
    const HAS_VALUE: usize = 1 << 8;
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(*units.first()?)];
    let mut longest = 0;
    while let Some(node) = open.pop() {
        if std::mem::replace(seen.get_mut(node)?, true) {
            continue;
        }
        for byte in 1..=usize::from(u8::MAX) {
            let at = node ^ byte;
            let unit = *units.get(at)?;
            if unit & (IS_VALUE | 0xff) != byte {
                continue;
            }
            let next = at ^ offset(unit);
            if unit & HAS_VALUE != 0 {
                let value = *units.get(next)? & (IS_VALUE - 1);
                let text = texts.get(value..)?.bytes().take(CONTENT_BYTES + 1);
                longest = longest.max(text.take_while(|&byte| byte != 0).count());
            }
            open.push(next);
        }
    }
    Some(longest)
}

/// Decodes base64 in the usual alphabet, with padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut digits = [None; 256];
    for (value, &letter) in (0u32..).zip(ALPHABET) {
        digits[usize::from(letter)] = Some(value);
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0u32, 0);
    for &letter in text.trim_end_matches('=').as_bytes() {
        held = held << 6 | digits[usize::from(letter)]?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, bytes) in [("", &b""[..]), ("AA==", &[0]), ("//79", &[255, 254, 253]), ("aGVsbG8=", b"hello")] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(from_base64("a b="), None);
    }
}
