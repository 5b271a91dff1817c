//! `ftfy.fix_text` of ftfy 6 with its defaults, except for the repair of text in a wrong encoding (mojibake), which is
//! an error.

use std::collections::HashMap;
use std::sync::LazyLock;

use tokenizers::NormalizedString;

use super::normalization::composed;

/// The maximum number of passes over a line: each decodes one level of nested entities.
const MOST_ROUNDS: usize = 100;

/// Fixes a text, line by line.
///
/// # Errors
/// A sentence about text that may be in a wrong encoding, or about endlessly nested entities.
pub(super) fn fix_text(text: &str) -> Result<String, String> {
    let mut fixed = String::with_capacity(text.len());
    // After a line that may contain HTML tags, entities are not decoded.
    let mut unescapes = true;
    for line in text.split_inclusive('\n') {
        unescapes = unescapes && !line.contains('<');
        fixed += &fix_line(line, unescapes)?;
    }
    Ok(fixed)
}

fn fix_line(line: &str, unescapes: bool) -> Result<String, String> {
    let mut text = line.to_owned();
    for _ in 0..MOST_ROUNDS {
        let before = text.clone();
        if unescapes {
            text = unescape(&text);
        }
        if let Some(part) = mojibake(&text) {
            return Err(format!(
                "\"{part}\" may be text in a wrong encoding, which ftfy would repair; that is not supported"
            ));
        }
        text = text.chars().flat_map(|c| plain(c).chars().collect::<Vec<_>>()).collect();
        for line_break in ["\r\n", "\r", "\u{2028}", "\u{2029}", "\u{85}"] {
            text = text.replace(line_break, "\n");
        }
        text = without_terminal_escapes(&text);
        text.retain(|c| !is_control(c));
        text = composed(&text);
        if text == before {
            return Ok(text);
        }
    }
    Err(format!("has more than {MOST_ROUNDS} levels of nested HTML entities or control characters"))
}

/// Returns the plain form of a Latin ligature, a half-width or full-width character, or a typographic quote.
fn plain(c: char) -> String {
    let ligature = match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "\u{2bc}n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        '\u{3000}' => " ",
        '\u{ff01}'..='\u{ffef}' => {
            let mut normalized = NormalizedString::from(c.to_string());
            normalized.nfkc();
            return normalized.get().to_owned();
        }
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => "'",
        '\u{201c}'..='\u{201f}' => "\"",
        _ => return c.to_string(),
    };
    // An apostrophe in a ligature is also a quote.
    ligature.replace('\u{2bc}', "'")
}

/// Returns true for control characters that ftfy removes. White space, and those that shape the following text, stay.
fn is_control(c: char) -> bool {
    matches!(c,
        '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// Removes `ESC [ digits letter`, which colors text on terminals.
fn without_terminal_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        let (before, escape) = rest.split_at(at);
        kept += before;
        let body = escape.get(2..).unwrap_or_default();
        let end = body.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match end.chars().next().filter(char::is_ascii_alphabetic) {
            Some(_) => rest = end.get(1..).unwrap_or_default(),
            None => {
                kept += "\x1b[";
                rest = body;
            }
        }
    }
    kept + rest
}

/// Decodes HTML entities that end with a semicolon.
fn unescape(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, entity) = rest.split_at(at);
        decoded += before;
        let name = entity.get(1..).unwrap_or_default();
        let body = name.strip_prefix('#').unwrap_or(name);
        let length = body.len() - body.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).len();
        let is_entity = (1..=24).contains(&length) && body.get(length..).is_some_and(|end| end.starts_with(';'));
        let whole = entity.get(..entity.len() - body.len() + length + 1).filter(|_| is_entity);
        match whole.and_then(|whole| Some((whole, entity_text(whole)?))) {
            Some((whole, text)) => {
                decoded += &text;
                rest = entity.get(whole.len()..).unwrap_or_default();
            }
            None => {
                decoded.push('&');
                rest = name;
            }
        }
    }
    decoded + rest
}

/// Returns the text of an entity, `&eacute;` or `&#233;`; `None` if it is not one.
fn entity_text(entity: &str) -> Option<String> {
    static NAMES: LazyLock<HashMap<&str, &str>> =
        LazyLock::new(|| entities::ENTITIES.iter().map(|entity| (entity.entity, entity.characters)).collect());
    if let Some(number) = entity.strip_prefix("&#") {
        return number_text(number.strip_suffix(';')?);
    }
    if let Some(text) = NAMES.get(entity) {
        return Some((*text).to_owned());
    }
    // In capitals, those that do not begin with an HTML entity's name.
    let lower = entity.to_ascii_lowercase();
    let has_start = (3..entity.len()).any(|end| entity.get(..end).is_some_and(|start| NAMES.contains_key(start)));
    let text = NAMES.get(lower.as_str()).filter(|_| entity.to_ascii_uppercase() == *entity && !has_start)?;
    Some(text.to_uppercase())
}

/// Returns the character with a number; HTML replaces some.
fn number_text(number: &str) -> Option<String> {
    let code = match number.strip_prefix(['x', 'X']) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u128::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => Some(number).filter(|n| n.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.parse().ok()),
    }?;
    const WINDOWS_1252: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    let code = u32::try_from(code).unwrap_or(u32::MAX);
    Some(match code {
        0 | 0xd800..=0xdfff | 0x11_0000.. => "\u{fffd}".to_owned(),
        0x80..=0x9f => WINDOWS_1252.chars().nth(code as usize - 0x80)?.to_string(),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        _ if code & 0xfffe == 0xfffe => String::new(),
        // ftfy keeps the possible end of another entity.
        0x3b => return None,
        _ => char::from_u32(code)?.to_string(),
    })
}

/// The class of a character that may be part of text in a wrong encoding: the non-ASCII characters of 8-bit code pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Control,
    Upper,
    Lower,
    Greek,
    Cyrillic,
    /// Marks that may be anywhere: dashes, the apostrophe.
    Common,
    Opening,
    Closing,
    /// Any other character.
    Symbol,
}

impl Sign {
    fn of(c: char) -> Option<Self> {
        Some(match c {
            '\u{80}'..='\u{9f}' => Self::Control,
            '\u{a0}' | '\u{ad}' | '·' | '´' | '–' | '—' | '―' | '…' | '’' => Self::Common,
            '¡' | '«' | '¿' | '©' | '΄' | '΅' | '‘' | '‚' | '“' | '„' | '•' | '‹' | '\u{f8ff}' => {
                Self::Opening
            }
            '®' | '»' | '˝' | '”' | '›' | '™' => Self::Closing,
            'Ґ' => Self::Upper,
            'ґ' | 'ﬁ' | 'ﬂ' => Self::Lower,
            '×' | '÷' | 'ª' | 'º' => Self::Symbol,
            '\u{c0}'..='\u{17f}' if c.is_uppercase() => Self::Upper,
            '\u{c0}'..='\u{17f}' => Self::Lower,
            '\u{386}'..='\u{3ce}' => Self::Greek,
            '\u{400}'..='\u{45f}' => Self::Cyrillic,
            '\u{a0}'..='\u{bf}' | 'ƒ' | '\u{2c6}'..='\u{2dd}' | '\u{2010}'..='\u{2044}' | '₧' | '€' | '№' => {
                Self::Symbol
            }
            '\u{2200}'..='\u{22ff}' | '\u{2310}'..='\u{2321}' | '\u{2500}'..='\u{25ff}' | '\u{fffd}' => Self::Symbol,
            _ => return None,
        })
    }

    fn is_latin(self) -> bool {
        matches!(self, Self::Upper | Self::Lower)
    }

    fn is_letter(self) -> bool {
        self.is_latin() || matches!(self, Self::Greek | Self::Cyrillic)
    }

    fn is_mark(self) -> bool {
        matches!(self, Self::Common | Self::Opening | Self::Closing)
    }
}

/// Finds a part of a text that ftfy may take for text in a wrong encoding. ftfy repairs only matches of its heuristic;
/// this one matches all of those and a few more.
fn mojibake(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let chars: Vec<char> = text.chars().collect();
    let at = (0..chars.len()).find(|&at| is_suspicious(&chars, at))?;
    Some(chars.iter().skip(at.saturating_sub(8)).take(20).collect())
}

fn is_suspicious(chars: &[char], at: usize) -> bool {
    let sign = |at: usize| chars.get(at).copied().and_then(Sign::of);
    let Some((a, first)) = chars.get(at).copied().zip(sign(at)) else { return false };
    let Some(b) = chars.get(at + 1).copied() else { return first == Sign::Control };
    let lone = match a {
        'Œ' | 'œ' => !b.is_ascii_alphabetic(),
        'Â' | 'Ã' => matches!(b, ' ' | '\u{a0}'),
        _ => first == Sign::Control,
    };
    let Some(second) = sign(at + 1) else { return lone };
    let before = at.checked_sub(1).and_then(|at| chars.get(at).copied());
    let third = chars.get(at + 2).copied();
    let goes_on = third.is_some_and(|c| c.is_alphanumeric() || c == '_' || Sign::of(c).is_some());
    let starts_sequence = matches!(a, 'Â' | 'Ã' | 'Î' | 'Ð' | 'Ø' | 'Ù');
    lone || match (first, second) {
        (_, Sign::Control) => true,
        (Sign::Lower, Sign::Upper) => true,
        _ if matches!((a, b), ('в' | 'В', 'Ђ')) => true,
        _ if starts_sequence && matches!(b, 'œ' | 'Š' | 'š' | 'Ÿ' | 'ž') => true,
        (a, b) if a.is_letter() && b.is_letter() => (a != b) && !(a.is_latin() && b.is_latin()),
        (a, Sign::Common) if a.is_letter() => starts_sequence,
        (a, b) if a.is_latin() && b.is_mark() => {
            goes_on || starts_sequence || before.is_some_and(|c| c.is_ascii_lowercase()) && b == Sign::Opening
        }
        (a, b) if a.is_letter() && b.is_mark() => goes_on,
        (a, _) if a.is_latin() => true,
        (Sign::Greek | Sign::Cyrillic, _) => goes_on || !is_measure(b),
        (_, Sign::Greek | Sign::Cyrillic) => false,
        (Sign::Closing, b) if b.is_latin() => true,
        (a, b) if a.is_mark() && b.is_latin() => chars[at] == '‚',
        (_, b) if b.is_latin() => true,
        (a, b) if a.is_mark() && b.is_mark() => before.is_some_and(|c| Sign::of(c).is_some_and(|s| s == Sign::Symbol)),
        (a, Sign::Symbol) if a.is_mark() => !is_measure(b) || a == Sign::Closing || before.and_then(Sign::of).is_some(),
        (Sign::Symbol, b) if b.is_mark() => b == Sign::Opening || goes_on,
        _ => true,
    }
}

/// Returns true for units, numbers and currencies, which texts contain along with letters.
fn is_measure(c: char) -> bool {
    matches!(
        c,
        '¢' | '£'
            | '¥'
            | '€'
            | '§'
            | '¶'
            | '±'
            | '²'
            | '³'
            | '¹'
            | 'µ'
            | '¼'
            | '½'
            | '¾'
            | '×'
            | '÷'
            | '°'
            | '№'
            | '⁄'
            | '\u{2200}'..='\u{22ff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_within_entities_end() {
        let nested = |depth: usize| format!("&{}lt;", "amp;".repeat(depth));
        assert_eq!(fix_text(&nested(98)).as_deref(), Ok("<"));
        for text in [nested(8000), format!("{}{}", "&#".repeat(8000), "1;".repeat(8000))] {
            let problem = fix_text(&text).unwrap_err();
            assert!(problem.contains("levels of nested"), "{problem}");
        }
    }
}
