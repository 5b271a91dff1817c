//! The snippets of the pages, run as written.

use std::path::Path;
use std::process::{Command, Stdio};

use super::world::World;
use super::{pages, root};
use crate::common::{Answer, answer};

/// Commands that are not run, by the words they begin with.
const SKIPPED: [(&str, &str); 9] = [
    ("cargo ", "builds the program anew; scripts/guides.sh runs it"),
    ("scripts/bindings/install_c.sh ", "builds the program anew; scripts/bindings/c_test.sh runs it"),
    ("tritonserver ", "another program; scripts/guides.sh runs it"),
    ("pip ", "builds the program anew; scripts/guides.sh runs it"),
    ("python ", "needs torch or other programs"),
    ("scripts/check", "runs all of the tests"),
    ("git ", "needs the network"),
    ("ldm-ort runtime install", "needs the network"),
    ("LDM_ORT_WRITE_DOCS=1 cargo", "writes into the repository"),
];

/// A fenced block of a page.
struct Block {
    language: String,
    line: usize,
    text: String,
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(root().join(page)).expect("a page");
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                let language = language.split(',').next().unwrap_or_default().to_owned();
                open = Some(Block { language, line: at + 2, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// Lays a snippet's tables over a pipeline. A task, scheduler or cache of another name takes the place of the pipeline's.
fn merged(base: &toml::Table, over: toml::Table, choices: bool) -> toml::Table {
    let mut merged = base.clone();
    for (key, value) in over {
        let value = match (merged.get(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => {
                let is_choice = choices && ["task", "scheduler", "cache"].contains(&key.as_str());
                let replaces = is_choice && !over.keys().all(|name| base.contains_key(name));
                toml::Value::Table(if replaces { over } else { self::merged(base, over, false) })
            }
            (_, value) => value,
        };
        merged.insert(key, value);
    }
    merged
}

/// Checks a page's pipelines. A snippet without `[model]` changes the page's first pipeline, or the shipped one.
fn check_pipelines(page: &Path, world: &World, wrong: &mut Vec<String>) -> usize {
    let parse = |text: &str| text.parse::<toml::Table>();
    let shipped = std::fs::read_to_string(root().join("pipeline.toml")).expect("the shipped pipeline");
    let blocks: Vec<_> = blocks(page).into_iter().filter(|block| block.language == "toml").collect();
    let first = blocks.iter().map(|block| &block.text).find(|text| text.contains("[model]"));
    let base = parse(first.unwrap_or(&shipped)).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    for block in &blocks {
        let place = format!("{}:{}", page.display(), block.line);
        let snippet = parse(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
        let is_whole = snippet.contains_key("model") && snippet.contains_key("task");
        let text = if is_whole { block.text.clone() } else { merged(&base, snippet, true).to_string() };
        std::fs::write(world.path().join("snippet.toml"), &text).expect("a file");
        let answer = shell(world, "ldm-ort check snippet.toml");
        if answer.code != Some(0) {
            wrong.push(format!("{place}: {answer}\n{text}"));
        }
    }
    blocks.len()
}

/// The commands of a page, comments aside, lines joined that end in a backslash.
fn commands(page: &Path) -> Vec<(usize, String)> {
    let mut commands: Vec<(usize, String)> = Vec::new();
    for block in blocks(page).into_iter().filter(|block| block.language == "sh") {
        let text = block.text.replace("\\\n", " ");
        let lines = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        commands.extend(lines.map(|line| (block.line, line.to_owned())));
    }
    commands
}

/// Runs a command line with the test's own program as `ldm-ort`, and with a cache of its own.
fn shell(world: &World, line: &str) -> Answer {
    let runtime = ldm_ort::Engine::default().runtime_options(None);
    let runtime = ldm_ort::Runtime::load(&runtime).expect("ONNX Runtime is found or fetched");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [world.bin()].into_iter().chain(std::env::split_paths(&path));
    let mut command = Command::new("sh");
    command.args(["-ec", line]).current_dir(world.path()).stdin(Stdio::null());
    command.env("PATH", std::env::join_paths(folders).expect("folders"));
    command.env("ORT_DYLIB_PATH", runtime.path()).env("LDM_ORT_CACHE_DIR", world.path().join("cache"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    answer(command)
}

#[test]
fn every_snippet_works_as_written() {
    let (mut count, mut skipped, mut wrong) = (0, Vec::new(), Vec::new());
    for page in pages() {
        let world = World::new();
        count += check_pipelines(&page, &world, &mut wrong);
        for (at, line) in commands(&page) {
            count += 1;
            if let Some((_, reason)) = SKIPPED.iter().find(|(start, _)| line.starts_with(start)) {
                skipped.push(format!("{}:{at}: {line}: {reason}", page.display()));
                continue;
            }
            let answer = shell(&world, &line);
            if answer.code != Some(0) {
                wrong.push(format!("{}:{at}: {line}: {answer}", page.display()));
            }
        }
    }
    println!("{count} snippets; not run:\n{}", skipped.join("\n"));
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(count > 50 && skipped.len() * 10 <= count, "{} of {count} are not run: {skipped:#?}", skipped.len());
}

#[test]
fn snippets_are_of_known_languages_and_rust_is_compiled() {
    let read =
        |file: &str| std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (library, pytest) = (read("src/lib.rs"), read("bindings/python/tests/test_docs.py"));
    let (programs, triton) = (read("bindings/c/tests/programs.rs"), read("scripts/bindings/triton_server.py"));
    for page in pages() {
        for block in blocks(&page) {
            let known = ["toml", "sh", "rust", "python", "c", "cpp", "text"].contains(&block.language.as_str());
            assert!(known, "{}:{}: the language {:?}", page.display(), block.line, block.language);
            let is_compiled = || library.contains(&format!("include_str!(\"../{}\")", page.display()));
            assert!(block.language != "rust" || is_compiled(), "{}: its Rust is in no doctest", page.display());
            let is_run = || [&pytest, &triton].iter().any(|test| test.contains(&format!("\"{}\"", page.display())));
            assert!(block.language != "python" || is_run(), "{}: no test runs its Python", page.display());
            let is_program = || programs.contains(&format!("\"{}\"", page.display()));
            assert!(!block.language.starts_with('c') || is_program(), "{}: its C is not compiled", page.display());
        }
    }
}
