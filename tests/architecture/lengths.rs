//! Lengths of files and functions.

use std::path::{Path, PathBuf};

use super::{Source, assert_none, code_of, sources};

/// Lines of a function, from its `fn` to its closing brace.
const LONGEST_FUNCTION: usize = 80;

/// The functions of a source that are longer than `most` lines: their names, and their lengths.
fn longer(source: &Source, most: usize) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = source.code.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let words: Vec<&str> = line.split_whitespace().take(6).collect();
        let Some(name) = words.iter().position(|word| *word == "fn").and_then(|at| words.get(at + 1)) else { continue };
        let end = lines[at..].iter().position(|line| line.strip_prefix(indent) == Some("}"));
        let length = end.map_or(1, |end| end + 1);
        // A declaration without a body ends with a semicolon, a function of one line with a brace.
        let opening = lines[at..].iter().find(|line| line.trim_end().ends_with(['{', ';', '}']));
        if opening.is_some_and(|line| line.trim_end().ends_with('{')) && length > most {
            let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            found.push((format!("{}: {name}", source.path.display()), length));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let sources = sources();
    let long = sources.iter().flat_map(|source| longer(source, LONGEST_FUNCTION));
    assert_none(long.map(|(name, lines)| format!("{name}: {lines} lines")).collect());
}

#[test]
fn a_long_function_is_seen() {
    let body = "    let a = 1;\n".repeat(9);
    let code = format!("pub fn long(\n    a: usize,\n) -> usize {{\n{body}}}\n\nfn short() {{\n    long(1);\n}}\n");
    let code = format!("extern \"C\" {{\n    fn declared() -> u32;\n}}\n{code}");
    let source = Source { path: "a.rs".into(), code };
    assert_eq!(longer(&source, 12), [("a.rs: long".to_owned(), 13)]);
    assert_eq!(longer(&source, 13), []);
}

/// The files of tests: those in `tests/`, and in `src/` those named `tests.rs` or in a folder `tests`.
fn test_files() -> Vec<PathBuf> {
    fn collect(folder: &Path, is_test: bool, into: &mut Vec<PathBuf>) {
        for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let is_test = is_test || path.file_stem().is_some_and(|stem| stem == "tests");
            if path.is_dir() {
                collect(&path, is_test, into);
            } else if is_test && path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("tests"), true, &mut files);
    collect(&root.join("src"), false, &mut files);
    files
}

#[test]
fn files_are_short() {
    /// Lines of a file, its comments and unit tests aside.
    const LONGEST: usize = 400;
    let own = sources().into_iter().map(|source| (source.path, source.code.lines().count()));
    let tests = test_files();
    assert!(tests.len() > 50, "only {} files of tests were found", tests.len());
    let tests = tests.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).expect("a source is text");
        (path, code_of(&text).lines().count())
    });
    let long = own.chain(tests).filter(|(_, lines)| *lines > LONGEST);
    assert_none(long.map(|(path, lines)| format!("{}: {lines} lines", path.display())).collect());
}
