//! Files that are damaged, incomplete or missing.

use super::super::*;
use super::{bert, directory, fixture, t5, write};
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn damaged_t5_tokenizers_are_refused() {
    let text = std::fs::read_to_string(fixture("t5").join("tokenizer.json")).unwrap();
    let good: Value = serde_json::from_str(&text).unwrap();
    let charsmap = good["normalizer"]["normalizers"][0]["precompiled_charsmap"].as_str().unwrap();
    let half = charsmap.len() / 2 / 4 * 4;
    let at = "/normalizer/normalizers/0/precompiled_charsmap";
    for (path, value, word) in [
        (at, json!(""), "precompiled_charsmap is empty"),
        (at, json!("AAAAAA=="), "points beyond its end"),
        (at, json!("not base64"), "is not base64"),
        (at, json!(charsmap[..half]), "is truncated"),
        (at, json!(charsmap[half..]), "precompiled_charsmap"),
        (at, json!(charsmap[..charsmap.len() - 40]), "not UTF-8"),
        (at, json!(charsmap[..charsmap.len() - 44]), "precompiled_charsmap"),
        ("/model/unk_id", json!(100_000), "UnkIdNotInVocabulary"),
        ("/model/unk_id", Value::Null, "unk_id"),
        ("/model/vocab", json!([]), "mpty"),
        ("/model/vocab", json!([["a"]]), "is not a readable tokenizer"),
        ("/post_processor/special_tokens", json!({}), "special_tokens"),
        ("/post_processor/single/0/Sequence/id", json!("B"), "post_processor"),
    ] {
        let [dir, _] = t5();
        let mut json = good.clone();
        *json.pointer_mut(path).unwrap() = value;
        write(&dir, "tokenizer.json", json.to_string());
        let opened = Tokenizer::open(dir.path());
        let error = opened.and_then(|tokenizer| tokenizer.encode("a \u{fb01}sh \u{732b}\u{1f600}")).unwrap_err();
        assert!(matches!(error, Error::Model { .. }), "{path}: {error}");
        assert!(error.to_string().contains(word), "{path}: {word}: {error}");
    }
}

#[test]
fn the_own_file_of_sentencepiece_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "spiece.model", [10, 0, 1]);
    write(&dir, "tokenizer_config.json", "{}");
    let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
    for word in ["spiece.model and no tokenizer.json", "transformers", "save_pretrained"] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn damaged_vocabularies_are_refused() {
    for (content, word) in [
        ("<html>\n<body>\n", "one token per line"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("[PAD]\n[CLS]\n[UNK]\na\n", "sep_token is \"[SEP]\""),
    ] {
        let dir = bert();
        write(&dir, "vocab.txt", content);
        let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// A vocabulary truncated at the end of a line is found by the rows of the embedding.
#[test]
fn a_vocabulary_that_is_cut_does_not_fill_the_embedding() {
    let dir = bert();
    let text = std::fs::read_to_string(dir.path().join("vocab.txt")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 370);
    for (kept, rows, is_complete) in
        [(370, 370, true), (370, 376, true), (370, 369, true), (369, 370, false), (200, 370, false), (370, 512, false)]
    {
        write(&dir, "vocab.txt", lines[..kept].join("\n"));
        let checked = Tokenizer::open(dir.path()).unwrap().check_vocabulary(rows);
        assert_eq!(checked.is_ok(), is_complete, "{kept} of {} tokens, {rows} rows", lines.len());
        if let Err(error) = checked {
            assert!(error.to_string().contains(&format!("{kept} tokens")), "{error}");
        }
    }
}

#[test]
fn damaged_files_are_named() {
    let merges = std::fs::read_to_string(fixture("sd1").join("merges.txt")).unwrap();
    let config = |value: Value| ("tokenizer_config.json", value.to_string());
    for ((file, content), words) in [
        (("vocab.json", "{\"a\": 1,".to_owned()), vec!["vocab.json", "JSON"]),
        (("vocab.json", "<html>".to_owned()), vec!["vocab.json", "JSON"]),
        (("vocab.json", "version https://git-lfs.github.com/spec/v1\n".to_owned()), vec!["vocab.json", "Git LFS"]),
        (("merges.txt", merges.replacen("i n\n", "i \u{2603}\n", 1)), vec!["merges.txt", "line 2", "\u{2603}"]),
        (("merges.txt", merges.replacen("i n\n", "i\n", 1)), vec!["merges.txt", "line 2", "two tokens"]),
        (("merges.txt", merges.replacen("i n\n", "<|startoftext|> n\n", 1)), vec!["line 2", "<|startoftext|>n"]),
        (("special_tokens_map.json", "[]".to_owned()), vec!["special_tokens_map.json"]),
        (("added_tokens.json", "{\"a\": \"b\"}".to_owned()), vec!["added_tokens.json"]),
        (config(json!({"bos_token": "<s>"})), vec!["bos_token", "<s>", "vocabulary"]),
        (config(json!({"pad_token": "<pad>"})), vec!["pad_token", "<pad>", "vocabulary"]),
        (config(json!({"pad_token": 7})), vec!["pad_token", "7"]),
        (config(json!({"model_max_length": "long"})), vec!["model_max_length", "long"]),
        (config(json!({"model_max_length": 1})), vec!["length of 1"]),
        (config(json!({"added_tokens_decoder": {"x": "y"}})), vec!["added_tokens_decoder", "\"x\""]),
    ] {
        let dir = directory("sd1");
        // The older files count only if the newer configuration is absent.
        std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
        if file == "tokenizer_config.json" {
            std::fs::remove_file(dir.path().join("special_tokens_map.json")).unwrap();
        }
        write(&dir, file, content);
        let error = Tokenizer::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Model { .. }), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }
}

/// Incomplete lists of merges: empty, only a header, a web page on one line, truncated at the end of any line or in
/// one.
#[test]
fn merges_that_are_not_complete_are_refused() {
    let merges = std::fs::read_to_string(fixture("sd1").join("merges.txt")).unwrap();
    let lines: Vec<&str> = merges.lines().collect();
    assert_eq!(lines.len(), 687);
    let mut damaged = vec![
        String::new(),
        "\n".to_owned(),
        lines[0].to_owned(),
        format!("{}\n", lines[0]),
        "<!DOCTYPE html><html><head><title>Not found</title></head></html>".to_owned(),
        lines[1..].join("\n"),
        merges.replacen("i n\n", "", 1),
    ];
    damaged.extend((1..lines.len()).step_by(37).map(|kept| lines[..kept].join("\n")));
    damaged.push(merges.trim_end()[..merges.trim_end().len() - 1].to_owned());
    for text in damaged {
        let dir = directory("sd1");
        write(&dir, "merges.txt", &text);
        let error = Tokenizer::open(dir.path()).expect_err(&text);
        assert!(matches!(error, Error::Model { .. }), "{error}");
        assert!(error.to_string().contains("merges.txt: "), "{error}");
    }
    let dir = directory("sd1");
    write(&dir, "merges.txt", lines[..600].join("\n"));
    let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("expected 686 merges for the vocabulary, found 599"), "{error}");
}

/// OpenAI's own list has 213,000 lines beyond those that transformers reads.
#[test]
fn merges_beyond_those_that_are_read_are_passed_over() {
    let merges = std::fs::read_to_string(fixture("sd1").join("merges.txt")).unwrap();
    let repeated = "i n\n".repeat(49152 - 256 - 2 - 686);
    for (extra, is_read) in [("", false), ("i n\n", true)] {
        let dir = directory("sd1");
        let kept = repeated.strip_suffix(extra).unwrap();
        write(&dir, "merges.txt", format!("{merges}{kept}unknown pair\n"));
        assert_eq!(Tokenizer::open(dir.path()).is_err(), is_read, "{extra}");
    }
}

#[test]
fn a_tokenizer_json_that_lacks_merges_is_refused() {
    let text = std::fs::read_to_string(fixture("json").join("tokenizer.json")).unwrap();
    let good: Value = serde_json::from_str(&text).unwrap();
    for kept in [0, 1, 300, 685] {
        let mut json = good.clone();
        json["model"]["merges"].as_array_mut().unwrap().truncate(kept);
        let dir = directory("json");
        write(&dir, "tokenizer.json", json.to_string());
        let error = Tokenizer::open(dir.path()).expect_err("some are missing").to_string();
        assert!(error.contains(&format!("expected 686 merges for the vocabulary, found {kept}")), "{error}");
    }
}

#[test]
fn missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |dir: &TempDir| Tokenizer::open(dir.path()).unwrap_err().to_string();
    assert!(error(&dir).contains("neither tokenizer.json nor vocab.json and merges.txt"), "{}", error(&dir));
    let dir = directory("sd1");
    std::fs::remove_file(dir.path().join("merges.txt")).unwrap();
    assert!(error(&dir).contains("neither merges.txt nor tokenizer.json"), "{}", error(&dir));
    std::fs::remove_file(dir.path().join("vocab.json")).unwrap();
    std::fs::copy(fixture("sd1").join("merges.txt"), dir.path().join("merges.txt")).unwrap();
    assert!(error(&dir).contains("neither vocab.json nor tokenizer.json"), "{}", error(&dir));
}

#[test]
fn damaged_tokenizer_json_is_refused() {
    let good: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture("json").join("tokenizer.json")).unwrap()).unwrap();
    let with = |path: &str, value: Value| {
        let mut json = good.clone();
        *json.pointer_mut(path).unwrap() = value;
        json.to_string()
    };
    for (content, word) in [
        (String::new(), "is not a readable tokenizer"),
        ("[]".to_owned(), "is not a readable tokenizer"),
        (with("/model/merges/3", json!(["a", "\u{2603}"])), "merge 3"),
        (with("/model/merges/3", json!(["<|startoftext|>", "<|endoftext|>"])), "merge 3"),
        (with("/model/merges/0", json!("in")), "merge 0"),
        (
            with("/pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true})),
            "wrong",
        ),
        (with("/model/type", json!("Markov")), "is not a readable tokenizer"),
    ] {
        let dir = directory("json");
        write(&dir, "tokenizer.json", content);
        let error = Tokenizer::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Model { .. }), "{error}");
        assert!(error.to_string().contains("tokenizer.json: "), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}
