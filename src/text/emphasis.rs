//! Prompt weights in AUTOMATIC1111's syntax.

/// The factor of a pair of round brackets, and the divisor of a pair of square ones.
const STEP: f64 = 1.1;

/// The word that ends a chunk of a long prompt.
const BREAK: &str = "BREAK";

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PromptPart {
    /// Text, and the factor of its tokens' states.
    Text(String, f64),
    /// The end of a chunk.
    Break,
}

/// Splits a prompt into parts of one weight each. Every prompt is valid: an unclosed bracket extends to the end, an
/// unopened one is text.
pub(super) fn split_emphasis(prompt: &str) -> Vec<PromptPart> {
    let mut parts: Vec<PromptPart> = Vec::new();
    let (mut round, mut square) = (Vec::new(), Vec::new());
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        match first {
            '\\' => {
                let escaped = rest.chars().nth(1).filter(|c| "()[]\\".contains(*c));
                taken += escaped.map_or(0, char::len_utf8);
                // A backslash before any other character is removed too.
                parts.push(PromptPart::Text(escaped.map(String::from).unwrap_or_default(), 1.0));
            }
            '(' => round.push(parts.len()),
            '[' => square.push(parts.len()),
            ')' if let Some(from) = round.pop() => multiply(&mut parts, from, STEP),
            ']' if let Some(from) = square.pop() => multiply(&mut parts, from, 1.0 / STEP),
            ':' if let (Some((weight, length)), Some(&from)) = (weight(rest), round.last()) => {
                round.pop();
                multiply(&mut parts, from, weight);
                taken = length;
            }
            ')' | ']' | ':' => parts.push(PromptPart::Text(first.into(), 1.0)),
            _ => {
                taken = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                parts.extend(split_breaks(rest.get(..taken).unwrap_or_default()));
            }
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    round.into_iter().for_each(|from| multiply(&mut parts, from, STEP));
    square.into_iter().for_each(|from| multiply(&mut parts, from, 1.0 / STEP));
    merged(parts)
}

/// Splits a text at the word BREAK and the white space around it.
pub(super) fn split_breaks(text: &str) -> Vec<PromptPart> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut parts = Vec::new();
    let (mut rest, mut searched) = (text, 0);
    while let Some(found) = rest.get(searched..).and_then(|tail| tail.find(BREAK)) {
        let (start, end) = (searched + found, searched + found + BREAK.len());
        let (before, behind) = (rest.get(..start).unwrap_or_default(), rest.get(end..).unwrap_or_default());
        if before.ends_with(is_word) || behind.starts_with(is_word) {
            searched = end;
            continue;
        }
        parts.push(PromptPart::Text(before.trim_end().to_owned(), 1.0));
        parts.push(PromptPart::Break);
        (rest, searched) = (behind.trim_start(), 0);
    }
    parts.push(PromptPart::Text(rest.to_owned(), 1.0));
    parts
}

/// Parses `:1.2)` at the start of a text; returns the number and the length in bytes.
fn weight(text: &str) -> Option<(f64, usize)> {
    let end = text.find(')')?;
    let written = text.get(1..end)?.trim();
    let unsigned = written.strip_prefix(['+', '-']).unwrap_or(written);
    let is_number = unsigned.chars().all(|c| c == '.' || c.is_ascii_digit());
    written.parse().ok().filter(|_| is_number).map(|weight| (weight, end + 1))
}

fn multiply(parts: &mut [PromptPart], from: usize, by: f64) {
    for part in parts.iter_mut().skip(from) {
        if let PromptPart::Text(_, weight) = part {
            *weight *= by;
        }
    }
}

/// Joins adjacent parts with equal weight, which are then tokenized as one text.
fn merged(parts: Vec<PromptPart>) -> Vec<PromptPart> {
    let mut joined: Vec<PromptPart> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(PromptPart::Text(text, weight)), PromptPart::Text(more, same)) if *weight == same => {
                text.push_str(&more)
            }
            (_, part) => joined.push(part),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(prompt: &str) -> Vec<(String, f64)> {
        let part = |part| match part {
            PromptPart::Text(text, weight) => (text, weight),
            PromptPart::Break => ("|".to_owned(), 0.0),
        };
        split_emphasis(prompt).into_iter().map(part).collect()
    }

    #[test]
    fn reads_as_a1111_reads() {
        let cases: &[(&str, &[(&str, f64)])] = &[
            ("", &[]),
            ("normal text", &[("normal text", 1.0)]),
            ("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
            ("(unbalanced", &[("unbalanced", 1.1)]),
            ("un(bal[anced", &[("un", 1.0), ("bal", 1.1), ("anced", 1.1 * (1.0 / 1.1))]),
            ("un)bal]anced:", &[("un)bal]anced:", 1.0)]),
            (r"\(literal\] \\ \x", &[(r"(literal] \ x", 1.0)]),
            ("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]),
            ("((two)) [one]", &[("two", 1.1 * 1.1), (" ", 1.0), ("one", 1.0 / 1.1)]),
            ("a (b:1.3) (c : -.5 )", &[("a ", 1.0), ("b", 1.3), (" ", 1.0), ("c ", -0.5)]),
            ("(a:b:1.5)", &[("a:b", 1.5)]),
            ("(a:1.2.3)", &[("a:1.2.3", 1.1)]),
            ("(a:inf)", &[("a:inf", 1.1)]),
            ("a:1.2)", &[("a:1.2)", 1.0)]),
            ("((a:1.5) b)", &[("a", 1.5 * 1.1), (" b", 1.1)]),
            (
                "a BREAK (b BREAK c) BREAKs",
                &[("a", 1.0), ("|", 0.0), ("b", 1.1), ("|", 0.0), ("c", 1.1), (" BREAKs", 1.0)],
            ),
            ("日本 (の:1.1)山", &[("日本 ", 1.0), ("の", 1.1), ("山", 1.0)]),
        ];
        for (prompt, want) in cases {
            let want: Vec<_> = want.iter().map(|(text, weight)| ((*text).to_owned(), *weight)).collect();
            let got: Vec<_> = read(prompt).into_iter().filter(|(text, _)| !text.is_empty()).collect();
            assert_eq!(got, want, "{prompt}");
        }
    }

    #[test]
    fn nothing_in_a_prompt_fails() {
        let signs = ['(', ')', '[', ']', ':', '\\', '1', '.', '\u{e9}', ' '];
        for n in 0..10_000_usize {
            let prompt: String = (0..4).map(|place| signs[n / 10_usize.pow(place) % 10]).collect();
            let length: usize = read(&prompt).iter().map(|(text, _)| text.len()).sum();
            assert!(length <= prompt.len(), "{prompt}");
        }
    }
}
