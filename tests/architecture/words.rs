//! The words of the code: first sentences of doc comments, and names of files and types.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Source, assert_none, names, sources};

/// Words that open a noun clause instead of a verb or noun phrase.
const FREE_RELATIVES: &[&str] = &["What", "Whether", "How", "Where", "Which", "Who", "Why", "When"];

/// The share of doc comments that may open with one of them, in percent.
const MOST_FREE_RELATIVES: usize = 4;

/// File and folder names that do not name a concept the user knows.
const FILES: &[&str] = &[
    "thrift", "loose", "amount", "likeness", "behind", "fits", "late", "share", "outer", "learnt", "remade", "narrow",
];

/// Bare participles and prepositions, which do not say what a type holds, and nouns that need a qualifier.
const TYPES: &[&str] = &[
    "Asked", "Given", "Made", "Kept", "Held", "Told", "Taken", "Drawn", "Handed", "Shown", "Settled", "Learnt",
    "Behind", "Beside", "Level", "Model", "Source", "Weights", "Stage", "Kind", "Entry",
];

/// Words with a more common term: image, VAE, memory budget, guidance-distilled or textual inversion.
const PROSE: &[&str] = &["picture", "pictures", "first stage", "first stages", "thrift", "learnt"];

/// The table of old names, which has to spell them.
const OLD_NAMES: &str = "aliases.rs";

/// A source with its comments and unit tests.
fn whole_text(source: &Source) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&source.path);
    std::fs::read_to_string(path).expect("a source is text")
}

/// The first line of each doc comment of a text.
fn doc_comments(text: &str) -> Vec<&str> {
    let mut first_lines = Vec::new();
    let mut is_inside = false;
    for line in text.lines().map(str::trim_start) {
        let comment = line.strip_prefix("///").filter(|rest| !rest.starts_with('/')).or(line.strip_prefix("//!"));
        if let Some(comment) = comment.filter(|_| !is_inside) {
            first_lines.push(comment.trim_start());
        }
        is_inside = comment.is_some();
    }
    first_lines
}

fn is_free_relative(comment: &str) -> bool {
    let word: &str = comment.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    FREE_RELATIVES.contains(&word)
}

/// The types that a source declares, with the visibility of each: `pub`, `pub(super)`, or nothing.
fn declared_types(source: &Source) -> Vec<(&str, &str)> {
    const DECLARATIONS: &[&str] = &["struct ", "enum ", "trait ", "type ", "union "];
    let declared = |line: &'_ str| -> Option<(usize, usize)> {
        let start = DECLARATIONS.iter().find_map(|word| {
            let at = line.find(word)?;
            let before = line[..at].trim();
            (before.is_empty() || before.starts_with("pub")).then_some(at + word.len())
        })?;
        let length = line[start..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(line.len() - start);
        Some((start, start + length))
    };
    let types = source.code.lines().filter_map(|line| {
        let (start, end) = declared(line)?;
        let visibility = line.split_whitespace().next().filter(|word| word.starts_with("pub")).unwrap_or_default();
        line[start..].starts_with(char::is_uppercase).then_some((visibility, &line[start..end]))
    });
    types.collect()
}

#[test]
fn doc_comments_open_with_a_verb_or_a_noun() {
    let all = sources();
    let texts: Vec<(&Source, String)> = all.iter().map(|source| (source, whole_text(source))).collect();
    let comments: Vec<(&Source, &str)> = texts
        .iter()
        .flat_map(|(source, text)| doc_comments(text).into_iter().map(move |line| (*source, line)))
        .collect();
    assert!(comments.len() > 3000, "only {} doc comments found", comments.len());
    let found: Vec<String> = comments
        .iter()
        .filter(|(_, line)| is_free_relative(line))
        .map(|(source, line)| format!("{}: {line}", source.path.display()))
        .collect();
    assert!(
        found.len() * 100 < comments.len() * MOST_FREE_RELATIVES,
        "{} of {} doc comments open with a free relative:\n{}",
        found.len(),
        comments.len(),
        found.join("\n")
    );
}

#[test]
fn files_are_named_after_concepts() {
    let all = sources();
    let parts = all.iter().flat_map(|source| source.path.iter().map(move |part| (source, part.to_string_lossy())));
    let wrong = parts.filter(|(_, part)| FILES.contains(&part.trim_end_matches(".rs")));
    assert_none(wrong.map(|(source, _)| format!("{}: not a concept the user knows", source.path.display())).collect());
}

#[test]
fn types_are_named_by_qualified_nouns() {
    let all = sources();
    let types: Vec<(&Source, &str)> =
        all.iter().flat_map(|source| declared_types(source).into_iter().map(move |(_, name)| (source, name))).collect();
    assert!(types.len() > 500, "only {} types found", types.len());
    let wrong = types.iter().filter(|(_, name)| TYPES.contains(name));
    assert_none(wrong.map(|(source, name)| format!("{}: type {name}", source.path.display())).collect());
}

#[test]
fn no_public_type_name_is_used_twice() {
    let all = sources();
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in &all {
        let public =
            declared_types(source).into_iter().filter(|(visibility, _)| ["pub", "pub(crate)"].contains(visibility));
        public.for_each(|(_, name)| places.entry(name).or_default().push(source.path.display().to_string()));
    }
    assert!(places.len() > 200, "only {} public types found", places.len());
    places.retain(|_, places| places.len() > 1);
    assert_none(places.iter().map(|(name, places)| format!("{name}: {}", places.join(", "))).collect());
}

#[test]
fn prose_uses_the_fields_terms() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path.to_str() != Some(OLD_NAMES)) {
        for (at, line) in whole_text(source).lines().enumerate() {
            let line = line.to_lowercase();
            let found = PROSE.iter().filter(|word| names(&line, word));
            wrong.extend(found.map(|word| format!("{}:{}: {word}", source.path.display(), at + 1)));
        }
    }
    assert_none(wrong);
}

/// The checks see the words that they forbid.
#[test]
fn a_forbidden_word_is_found() {
    let text = "//! What it does.\n//! More of it.\n\n/// Returns it.\n    /// Whether it is.\n\n    /// Whatever.\n";
    let comments = doc_comments(text);
    assert_eq!(comments, ["What it does.", "Returns it.", "Whatever."]);
    assert_eq!(comments.iter().filter(|comment| is_free_relative(comment)).count(), 1);
    let code = "pub(crate) struct Given<'a> {\n    pub enum Kind {\nstruct Made;\n    let type = x;\n".to_owned();
    let source = Source { path: "given.rs".into(), code };
    assert_eq!(declared_types(&source), [("pub(crate)", "Given"), ("pub", "Kind"), ("", "Made")]);
}
