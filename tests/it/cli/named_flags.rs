//! Scripts and flags that texts name.

use crate::common::root;
use std::path::Path;

/// The long flags of the program, those of all its commands.
fn flags(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long()).map(|long| format!("--{long}"));
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

/// The files of a folder, and of those below it, that end in one of these.
fn files(folder: &Path, endings: &[&str]) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let below = |path: std::path::PathBuf| if path.is_dir() { files(&path, endings) } else { vec![path] };
    let ends = |path: &std::path::PathBuf| path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending));
    entries.flat_map(below).filter(ends).collect()
}

/// The parts of a text that begin with `prefix`, not within a word, and go on with letters, digits and `more`.
fn named<'t>(text: &'t str, prefix: &str, more: &[char]) -> Vec<&'t str> {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || more.contains(&c);
    let starts = text.match_indices(prefix).map(|(at, _)| at);
    let free = |&at: &usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "-_/".contains(c));
    let end = |at: usize| {
        let rest = &text[at + prefix.len()..];
        at + prefix.len() + rest.find(|c| !goes_on(c)).unwrap_or(rest.len())
    };
    starts.filter(free).map(|at| text[at..end(at)].trim_end_matches(['.', '-'])).collect()
}

/// Flags of pkg-config, of Slurm and of Triton's server.
const FOREIGN: [&str; 8] = [
    "--cflags",
    "--libs",
    "--array",
    "--backend-config",
    "--backend-directory",
    "--exit-timeout-secs",
    "--model-control-mode",
    "--model-repository",
];

/// Scripts and flags that errors, help and documents name exist, under that name.
#[test]
fn scripts_and_flags_that_are_named_exist() {
    use clap::CommandFactory;

    let root = root();
    let mut of_program = flags(&ldm_ort::cli::args::Cli::command());
    // clap's own, and the one that stands for any.
    of_program.extend(["--help", "--version", "--flag"].map(str::to_owned));
    of_program.extend(FOREIGN.map(str::to_owned));
    let mut texts = files(&root.join("src"), &["rs"]);
    texts.extend(["docs", "models", "examples"].iter().flat_map(|folder| files(&root.join(folder), &["md", "rs"])));
    texts.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for path in texts {
        let text = std::fs::read_to_string(&path).expect("it is text").replace("\r\n", "\n");
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        // A message that goes on in the next line of a source is one line; a document is about all scripts it names.
        let joined: String =
            text.split("\\\n").enumerate().map(|(i, piece)| if i == 0 { piece } else { piece.trim_start() }).collect();
        let scripts_in = |text: &str| -> Vec<String> {
            let names = named(text, "scripts/", &['_', '-', '.', '/']);
            names.into_iter().filter(|name| !name.ends_with(['/', '_'])).map(str::to_owned).collect()
        };
        let of_document = if path.extension().is_some_and(|e| e == "md") { scripts_in(&joined) } else { Vec::new() };
        for line in joined.lines() {
            let scripts = scripts_in(line);
            let missing = scripts.iter().filter(|script| !root.join(script).exists());
            wrong.extend(missing.map(|script| format!("{}: {script} does not exist", path.display())));
            // Cargo's, CMake's and pip's flags are not ours to check.
            if ["cargo ", "cmake ", "rustdoc ", "pip ", "scripts/check --full", "--full`"]
                .iter()
                .any(|other| line.contains(other))
            {
                continue;
            }
            for flag in named(line, "--", &['-']).into_iter().filter(|flag| flag.len() > 3) {
                checked += 1;
                let takes = |script: &String| {
                    let source = std::fs::read_to_string(root.join(script)).unwrap_or_default();
                    source.contains(&format!("\"{flag}\""))
                };
                if !of_program.iter().any(|known| known == flag) && !scripts.iter().chain(&of_document).any(takes) {
                    wrong.push(format!("{}: no {flag} in: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(checked > 100, "only {checked} flags were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
