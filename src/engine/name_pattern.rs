//! Patterns for the names of image files.

use crate::error::{Error, Result};

/// A pattern such as `{prompt}-{seed}`, with the fields `prompt`, `seed` and `index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Prompt,
    Seed,
    Index,
}

impl Default for NamePattern {
    /// Returns `{prompt}-{seed}`.
    fn default() -> Self {
        Self(vec![Piece::Prompt, Piece::Text("-".to_owned()), Piece::Seed])
    }
}

impl NamePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`Error::Input`] naming an unknown field, or a character that no file name may have.
    pub fn parse(pattern: &str) -> Result<Self> {
        const HELP: &str = "write the fields {prompt}, {seed} and {index} between letters, digits, spaces, - and _";
        let fail = |problem: String| Error::input("--name", problem, HELP);
        let (mut pieces, mut rest) = (Vec::new(), pattern);
        while let Some(at) = rest.find(['{', '}']) {
            let (text, from) = rest.split_at(at);
            let field = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let (field, after) =
                field.ok_or_else(|| fail(format!("\"{pattern}\" has a brace without its other one")))?;
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            pieces.push(match field {
                "prompt" => Piece::Prompt,
                "seed" => Piece::Seed,
                "index" => Piece::Index,
                _ => return Err(fail(format!("unknown field {{{field}}}"))),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let is_bad = |c: char| c.is_control() || r#"/\:*?"<>|"#.contains(c);
        if let Some(bad) = pattern.chars().find(|&c| is_bad(c)) {
            return Err(fail(format!("file names cannot have {bad:?}; --output names the folder")));
        }
        if pattern.is_empty() || pattern.starts_with('.') || pattern.len() > 120 {
            return Err(fail(format!("expected 1 to 120 bytes that do not begin with a dot, found \"{pattern}\"")));
        }
        Ok(Self(pieces))
    }

    /// Fills in the fields; `prompt` is in the form for file names.
    pub(super) fn fill(&self, prompt: &str, seed: u64, index: usize) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Prompt => prompt.to_owned(),
            Piece::Seed => seed.to_string(),
            Piece::Index => index.to_string(),
        };
        self.0.iter().map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_in() {
        let name = |pattern: &str| NamePattern::parse(pattern).map(|p| p.fill("a-cat", 7, 2));
        assert_eq!(name("{index}_{prompt} x{seed}").unwrap(), "2_a-cat x7");
        assert_eq!(NamePattern::default(), NamePattern::parse("{prompt}-{seed}").unwrap());
        for (pattern, says) in
            [("{sed}", "{sed}"), ("{seed", "brace"), ("a}b", "brace"), ("../{seed}", "'/'"), ("", "1 to")]
        {
            let error = name(pattern).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("--name"), "{error}");
        }
    }
}
