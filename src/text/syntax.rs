//! Finds prompt syntax of other programs, which has no effect here.

use super::emphasis::{PromptPart, split_breaks};

/// Finds syntax of AUTOMATIC1111's web UI, ComfyUI and their extensions that has no effect in a prompt, and returns a
/// sentence for each kind of it. `has_weights` and `is_chunked` are those of [`PromptStyle`](super::PromptStyle), and `words` the tokens of
/// embeddings, which are valid whatever they look like. Characters after a backslash are plain text.
pub fn foreign_syntax(prompt: &str, has_weights: bool, is_chunked: bool, words: &[&str]) -> Vec<String> {
    let mut found = SyntaxFindings { words, kinds: Vec::new() };
    found.networks(prompt, has_weights);
    found.groups(prompt, has_weights);
    found.words(prompt, has_weights, is_chunked);
    let sentence = |(kind, examples): (SyntaxKind, Vec<&str>)| {
        let more = match examples.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        format!("\"{}\"{more}{}", examples[0], kind.says())
    };
    found.kinds.into_iter().map(sentence).collect()
}

/// A kind of syntax, with its explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SyntaxKind {
    Lora,
    Hypernetwork,
    Network,
    Weight,
    Edit,
    Alternation,
    Choice,
    Wildcard,
    And,
    Break,
    BreakLeftOut,
    Embedding,
}

impl SyntaxKind {
    /// Returns the effect of the syntax here, and the alternative.
    fn says(self) -> &'static str {
        match self {
            Self::Lora => {
                " is read as words and adds no LoRA; add its file in a [[lora]] table, with its weight as scale"
            }
            Self::Hypernetwork => " is read as words; hypernetworks are not supported",
            Self::Network => " is read as words; AUTOMATIC1111 removes it from the prompt",
            Self::Weight => " is read as words; prompt_weighting = \"a1111\" enables weights in brackets",
            Self::Edit => {
                " is read as words; to change the prompt during a run, end the run at run.denoising_end and continue in a \
                 [[stage]] with the other prompt"
            }
            Self::Alternation => " is read as words; prompts that alternate from step to step are not supported",
            Self::Choice => " is read as words; to generate each, make prompt a list",
            Self::Wildcard => {
                " is read as words; wildcards are not supported: write the words themselves, or make prompt a list"
            }
            Self::And => {
                " is read as a word; composed prompts are not supported. Write one prompt, or \"and\" for the word"
            }
            Self::Break => " is read as a word; with long_prompts = \"chunk\" it starts another chunk",
            Self::BreakLeftOut => " is ignored; with long_prompts = \"chunk\" it starts another chunk",
            Self::Embedding => {
                " is read as words; add the file in a [[textual_inversion]] table, and write only its token in the prompt"
            }
        }
    }
}

/// The maximum length of a group in brackets in bytes, which keeps the work linear in the prompt.
const MOST_BYTES: usize = 1000;

/// The syntax found so far, by kind.
struct SyntaxFindings<'p> {
    words: &'p [&'p str],
    kinds: Vec<(SyntaxKind, Vec<&'p str>)>,
}

impl<'p> SyntaxFindings<'p> {
    fn add(&mut self, kind: SyntaxKind, example: &'p str) {
        if self.words.iter().any(|word| word.contains(example) || example.contains(word)) {
            return;
        }
        match self.kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, examples)) if examples.contains(&example) => {}
            Some((_, examples)) => examples.push(example),
            None => self.kinds.push((kind, vec![example])),
        }
    }

    /// Finds `<lora:name:0.8>` and the like.
    fn networks(&mut self, prompt: &'p str, has_weights: bool) {
        for (at, _) in unescaped(prompt).filter(|(_, c)| *c == '<') {
            let Some(text) = prompt.get(at..).and_then(|rest| rest.get(..=rest.find('>')?)) else { continue };
            let Some((name, arguments)) = text.trim_matches(['<', '>']).split_once(':') else { continue };
            let kind = match name.to_ascii_lowercase().as_str() {
                "lora" | "lyco" => SyntaxKind::Lora,
                "hypernet" => SyntaxKind::Hypernetwork,
                _ if has_weights && !name.is_empty() && name.chars().all(is_word) => SyntaxKind::Network,
                _ => continue,
            };
            if !arguments.is_empty() && !arguments.contains('<') {
                self.add(kind, text);
            }
        }
    }

    /// Finds brackets: `[a:b:0.5]`, `[a|b]`, `{a|b}` and `(a:1.3)`.
    fn groups(&mut self, prompt: &'p str, has_weights: bool) {
        let mut open: Vec<(char, usize)> = Vec::new();
        for (at, c) in unescaped(prompt) {
            let opener = match c {
                '(' | '[' | '{' => {
                    open.push((c, at));
                    continue;
                }
                ')' => '(',
                ']' => '[',
                '}' => '{',
                _ => continue,
            };
            // An unclosed inner bracket is text.
            let Some(place) = open.iter().rposition(|(c, _)| *c == opener) else { continue };
            let start = open[place].1;
            open.truncate(place);
            let (Some(group), Some(inner)) = (prompt.get(start..at + 1), prompt.get(start + 1..at)) else { continue };
            if inner.len() > MOST_BYTES {
                continue;
            }
            let alternatives = split(inner, '|').len() > 1;
            match opener {
                '[' if alternatives => self.add(SyntaxKind::Alternation, group),
                '[' if is_timed(inner) => self.add(SyntaxKind::Edit, group),
                '{' if alternatives => self.add(SyntaxKind::Choice, group),
                '(' if !has_weights && is_timed(inner) => self.add(SyntaxKind::Weight, group),
                _ => {}
            }
        }
    }

    /// Finds `AND`, `BREAK`, `__animals__` and `embedding:cat`.
    fn words(&mut self, prompt: &'p str, has_weights: bool, is_chunked: bool) {
        let is_split = |c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | '[' | ']' | '{' | '}' | '|');
        for word in prompt.split(is_split).filter(|word| !word.is_empty()) {
            if word == "AND" && has_weights {
                self.add(SyntaxKind::And, word);
            }
            let name = word.trim_matches(|c: char| !is_word(c) && !matches!(c, '*' | '/'));
            if name.len() > 4 && name.starts_with("__") && name.ends_with("__") {
                self.add(SyntaxKind::Wildcard, name);
            }
            let after = word.strip_prefix("embedding:").map(|name| name.trim_start_matches("\\"));
            if after.is_some_and(|name| name.chars().next().is_some_and(is_word)) {
                self.add(SyntaxKind::Embedding, word);
            }
        }
        if !is_chunked
            && let Some(at) = split_breaks(prompt).contains(&PromptPart::Break).then(|| prompt.find("BREAK")).flatten()
        {
            let kind = if has_weights { SyntaxKind::BreakLeftOut } else { SyntaxKind::Break };
            self.add(kind, prompt.get(at..at + 5).unwrap_or_default());
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Returns the characters of a text without a preceding backslash, with their positions.
fn unescaped(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut is_escaped = false;
    text.char_indices().filter(move |(_, c)| {
        let was_escaped = is_escaped;
        is_escaped = *c == '\\' && !was_escaped;
        !was_escaped && *c != '\\'
    })
}

/// Returns true for a text that ends with a colon outside of brackets and a number. Two integers, `16:9` or `12:30`,
/// are a ratio or a time.
fn is_timed(inner: &str) -> bool {
    let parts = split(inner, ':');
    let [.., before, last] = parts[..] else { return false };
    let is_ratio = before.ends_with(|c: char| c.is_ascii_digit()) && last.bytes().all(|b| b.is_ascii_digit());
    !is_ratio && last.trim().parse::<f64>().is_ok_and(f64::is_finite)
}

/// Splits a text at a character outside of brackets.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (place, c) in unescaped(text) {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            c if c == at && depth == 0 => {
                parts.push(text.get(start..place).unwrap_or_default());
                start = place + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the kinds that are found without weights, with them, and with them and chunks.
    fn found(prompt: &str) -> [Vec<SyntaxKind>; 3] {
        [(false, false), (true, false), (true, true)].map(|(has_weights, is_chunked)| {
            let sentences = foreign_syntax(prompt, has_weights, is_chunked, &["<cat:x>"]);
            let mut found = SyntaxFindings { words: &["<cat:x>"], kinds: Vec::new() };
            found.networks(prompt, has_weights);
            found.groups(prompt, has_weights);
            found.words(prompt, has_weights, is_chunked);
            assert_eq!(found.kinds.len(), sentences.len());
            found.kinds.into_iter().map(|(kind, _)| kind).collect()
        })
    }

    #[test]
    fn syntax_of_other_programs_is_found() {
        use SyntaxKind::*;
        for (prompt, plain, split_emphasis, chunked) in [
            ("a <lora:x:1> b", vec![Lora], vec![Lora], vec![Lora]),
            ("<lyco:x>", vec![Lora], vec![Lora], vec![Lora]),
            ("<hypernet:x:0.5>", vec![Hypernetwork], vec![Hypernetwork], vec![Hypernetwork]),
            ("<ti:x:0.5>", vec![], vec![Network], vec![Network]),
            ("[cat:dog:0.5]", vec![Edit], vec![Edit], vec![Edit]),
            ("a [dog:0.5] [cat::12]", vec![Edit], vec![Edit], vec![Edit]),
            ("[(a:1.2):b (c:1.1):0.25]", vec![Weight, Edit], vec![Edit], vec![Edit]),
            ("[a|b] c", vec![Alternation], vec![Alternation], vec![Alternation]),
            ("{a|b} c", vec![Choice], vec![Choice], vec![Choice]),
            ("a __animal__, __x/y*__", vec![Wildcard], vec![Wildcard], vec![Wildcard]),
            ("a AND b", vec![], vec![And], vec![And]),
            ("a BREAK b", vec![Break], vec![BreakLeftOut], vec![]),
            ("embedding:cat, (embedding:dog:1.2)", vec![Weight, Embedding], vec![Embedding], vec![Embedding]),
            ("a (red:1.4) circle", vec![Weight], vec![], vec![]),
            ("a (v2:1.4) circle", vec![Weight], vec![], vec![]),
            ("((a) [b:c:3])", vec![Edit], vec![Edit], vec![Edit]),
        ] {
            assert_eq!(found(prompt), [plain, split_emphasis, chunked], "{prompt}");
        }
    }

    #[test]
    fn plain_text_and_what_is_escaped_are_left_alone() {
        for prompt in [
            "",
            "a cat and a dog, BREAKfast, BRAND, sand",
            "a (cat) [dog] {bird} <3 :) (: a:b at 12:30",
            r"\[cat:dog:0.5\] \(red:1.4\) \<lora:x:1> \[a|b\] \{a|b\}",
            "a | b, x<y and y>z, __, ____, snake_case, <cat:x> <|endoftext|>",
            "a [cat:dog] (see: left)",
            "a poster (aspect ratio 16:9) of a clock (at 12:30), [at 12:30]",
            "[unclosed:0.5, (unclosed:1.3",
            "closed:0.5] too:1.3)",
            "SALT, PEPPER",
            "日本 [の] (山:川)",
        ] {
            assert_eq!(found(prompt), [vec![], vec![], vec![]], "{prompt}");
        }
    }

    #[test]
    fn sentences_quote_what_they_are_about() {
        let sentences = foreign_syntax("<lora:a:1> <lora:b:1> <lora:a:1> [x|y]", true, false, &[]);
        assert_eq!(sentences.len(), 2);
        assert!(sentences[0].starts_with("\"<lora:a:1>\" (and 1 more) is read as words"), "{sentences:?}");
        assert!(sentences[0].contains("[[lora]]") && sentences[1].starts_with("\"[x|y]\""), "{sentences:?}");
    }
}
