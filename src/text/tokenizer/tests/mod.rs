//! Tokenizers of the fixtures.

mod damaged;
mod limits;
mod reference;

use super::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/tokenizer-{name}"))
}

/// The fixture's files, with the shared vocabulary unless it has a `tokenizer.json`.
fn directory(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shared = ["vocab.json", "merges.txt"].map(|file| fixture("sd1").join(file));
    let own = std::fs::read_dir(fixture(name)).unwrap().map(|entry| entry.unwrap().path());
    for file in own.chain(shared.into_iter().filter(|_| name != "json")) {
        std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    dir
}

fn write(dir: &TempDir, file: &str, content: impl AsRef<[u8]>) {
    std::fs::write(dir.path().join(file), content).unwrap();
}

/// A folder with T5's tokenizer as transformers writes it, and one as before version 4.40, which split words before
/// marking them.
fn t5() -> [TempDir; 2] {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for dir in &dirs {
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(fixture("t5").join(file), dir.path().join(file)).unwrap();
        }
    }
    let text = std::fs::read_to_string(fixture("t5").join("tokenizer.json")).unwrap();
    let mut older: Value = serde_json::from_str(&text).unwrap();
    older["normalizer"] = older["normalizer"]["normalizers"][0].take();
    let marked = json!({"type": "Metaspace", "replacement": "\u{2581}", "add_prefix_space": true});
    older["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, marked]});
    older["decoder"] = marked;
    write(&dirs[1], "tokenizer.json", older.to_string());
    dirs
}

/// A folder with the files of the BERT fixture.
fn bert() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer-bert");
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}
