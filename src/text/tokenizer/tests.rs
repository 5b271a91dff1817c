use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

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

#[test]
fn gives_the_ids_that_transformers_gives() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tokenizer/prompts.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let prompts = golden["prompts"].as_array().unwrap();
    for name in ["sd1", "sd2", "json", "objects", "strings"] {
        let tokenizer = Tokenizer::open(directory(name).path()).unwrap();
        assert_eq!(tokenizer.max_length(), 77);
        assert_eq!(tokenizer.vocab_size(), if name == "strings" { 1201 } else { 1200 });
        let pad = golden[name]["pad"].as_i64().unwrap();
        let rows = golden[name]["rows"].as_array().unwrap();
        assert_eq!(rows.len(), prompts.len());
        for (prompt, row) in prompts.iter().zip(rows) {
            let prompt = prompt.as_str().unwrap();
            let mut want: Vec<i64> = serde_json::from_value(row["ids"].clone()).unwrap();
            want.resize(77, pad);
            let got = tokenizer.encode(prompt).unwrap();
            assert_eq!(got.ids, want, "{name}: {prompt:?}");
            assert_eq!(got.cut as u64, row["cut"].as_u64().unwrap(), "{name}: {prompt:?}");
            assert_eq!(got.cut > 0, !got.cut_text.is_empty(), "{name}: {prompt:?}");
        }
    }
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

#[test]
fn gives_the_ids_that_transformers_gives_for_t5() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tokenizer/t5.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (name, dir) in ["t5", "t5-older"].into_iter().zip(t5()) {
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        assert!(tokenizer.is_t5());
        assert_eq!((tokenizer.max_length(), tokenizer.capacity(), tokenizer.vocab_size()), (48, 47, 322));
        let rows = golden[name]["rows"].as_array().unwrap();
        for (prompt, row) in golden["prompts"].as_array().unwrap().iter().zip(rows) {
            let prompt = prompt.as_str().unwrap();
            let mut want: Vec<i64> = serde_json::from_value(row["ids"].clone()).unwrap();
            want.resize(48, golden[name]["pad"].as_i64().unwrap());
            let got = tokenizer.encode(prompt).unwrap();
            assert_eq!(got.ids, want, "{name}: {prompt:?}");
            assert_eq!(got.cut as u64, row["cut"].as_u64().unwrap(), "{name}: {prompt:?}");
        }
    }
}

/// A folder with Gemma's tokenizer, its configuration changed.
fn gemma(change: impl FnOnce(&mut Value)) -> TempDir {
    let from = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer-gemma"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(from.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let text = std::fs::read_to_string(from.join("tokenizer_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(&mut config);
    write(&dir, "tokenizer_config.json", config.to_string());
    dir
}

#[test]
fn gives_the_ids_that_transformers_gives_for_gemma() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tokenizer/gemma.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let eos = |config: &mut Value| {
        config["add_bos_token"] = false.into();
        config["add_eos_token"] = true.into();
        config["padding_side"] = "left".into();
    };
    for (name, dir) in [("gemma", gemma(|_| {})), ("gemma-eos", gemma(eos))] {
        let tokenizer = Tokenizer::open(dir.path()).unwrap().with_max_length(48).unwrap();
        assert_eq!((tokenizer.kind(), tokenizer.has_own_length()), (TokenizerKind::Gemma, false));
        assert_eq!((tokenizer.capacity(), tokenizer.vocab_size()), (47, 530));
        let rows = golden[name].as_array().unwrap();
        for (prompt, row) in golden["prompts"].as_array().unwrap().iter().zip(rows) {
            let prompt = prompt.as_str().unwrap();
            let mut want: Vec<i64> = serde_json::from_value(row["ids"].clone()).unwrap();
            want.resize(48, 0);
            let got = tokenizer.encode(prompt).unwrap();
            assert_eq!(got.ids, want, "{name}: {prompt:?}");
            assert_eq!(got.cut as u64, row["cut"].as_u64().unwrap(), "{name}: {prompt:?}");
            assert_eq!(tokenizer.count(prompt).unwrap(), got.length + got.cut, "{name}: {prompt:?}");
        }
    }
}

#[test]
fn t5_has_its_end_and_its_length_where_the_files_leave_them_out() {
    let [dir, _] = t5();
    let want = Tokenizer::open(dir.path()).unwrap().encode("a red circle").unwrap();
    let text = std::fs::read_to_string(fixture("t5").join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["post_processor"] = Value::Null;
    write(&dir, "tokenizer.json", json.to_string());
    std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(tokenizer.max_length(), 512);
    assert_eq!(tokenizer.encode("a red circle").unwrap().ids[..48], want.ids);
    write(&dir, "tokenizer_config.json", json!({"eos_token": "<end>"}).to_string());
    let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("eos_token is \"<end>\""), "{error}");
}

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

#[test]
fn gives_the_ids_that_transformers_gives_for_bert() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/systems/bert-ids.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let built = bert();
    // The same tokenizer, written out as tokenizer.json.
    let saved = bert();
    let inner = Tokenizer::open(built.path()).unwrap().inner;
    inner.save(saved.path().join("tokenizer.json"), false).unwrap();
    std::fs::remove_file(saved.path().join("vocab.txt")).unwrap();
    for dir in [built, saved] {
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        assert_eq!(tokenizer.max_length(), 77);
        let pad = golden["bert"]["pad"].as_i64().unwrap();
        let rows = golden["bert"]["rows"].as_array().unwrap();
        for (prompt, row) in golden["prompts"].as_array().unwrap().iter().zip(rows) {
            let prompt = prompt.as_str().unwrap();
            let mut want: Vec<i64> = serde_json::from_value(row["ids"].clone()).unwrap();
            want.resize(77, pad);
            let got = tokenizer.encode(prompt).unwrap();
            assert_eq!(got.ids, want, "{prompt:?}");
            assert_eq!(got.cut as u64, row["cut"].as_u64().unwrap(), "{prompt:?}");
        }
    }
}

#[test]
fn the_configuration_says_how_text_is_made_plain() {
    let dir = bert();
    let plain = Tokenizer::open(dir.path()).unwrap().encode("A CAF\u{c9}").unwrap();
    assert_eq!(plain, Tokenizer::open(dir.path()).unwrap().encode("a cafe").unwrap());
    write(&dir, "tokenizer_config.json", json!({"do_lower_case": false}).to_string());
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_ne!(tokenizer.encode("A CAF\u{c9}").unwrap().ids, plain.ids);
    assert_eq!(tokenizer.encode("a cafe").unwrap().ids, plain.ids);
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
fn says_what_was_cut() {
    let tokenizer = Tokenizer::open(&fixture("sd1")).unwrap();
    let kept = "the ".repeat(75);
    let whole = tokenizer.encode(&kept).unwrap();
    assert_eq!((whole.length, whole.cut, whole.cut_text.as_str()), (77, 0, ""));
    let long = tokenizer.encode(&format!("{kept}  The \u{c9}nd, \u{1f600} ")).unwrap();
    assert_eq!(long.cut_text, "The \u{c9}nd, \u{1f600}");
    assert_eq!(long.ids, whole.ids);
    assert!(long.cut > 3);

    let left = Tokenizer::open(directory("strings").path()).unwrap();
    assert_eq!(left.encode(&format!("Of the {kept}")).unwrap().cut_text, "Of the");
}

#[test]
fn takes_another_length() {
    let tokenizer = Tokenizer::open(&fixture("sd1")).unwrap().with_max_length(4).unwrap();
    let encoding = tokenizer.encode("the the the").unwrap();
    assert_eq!((encoding.ids.len(), encoding.cut, encoding.cut_text.as_str()), (4, 1, "the"));
    let tokenizer = tokenizer.with_max_length(2).unwrap();
    assert_eq!(tokenizer.encode("the the").unwrap().ids, [1198, 1199]);
    assert!(tokenizer.with_max_length(1).is_err());
}

#[test]
fn pads_on_the_left_where_the_files_say_so() {
    let dir = directory("sd1");
    write(&dir, "tokenizer_config.json", json!({"padding_side": "left", "model_max_length": 5}).to_string());
    let encoding = Tokenizer::open(dir.path()).unwrap().encode("the").unwrap();
    assert_eq!(encoding.ids[..3], [1199, 1199, 1198]);
    assert_eq!((encoding.ids[4], encoding.length), (1199, 3));
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

/// Vocabularies with tokens that no merge produces and that need none.
#[test]
fn added_tokens_need_no_merge() {
    let vocab: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture("sd1").join("vocab.json")).unwrap()).unwrap();
    let with = |token: &str| {
        let mut vocab = vocab.clone();
        vocab[token] = 1200.into();
        vocab.to_string()
    };
    let dir = directory("sd1");
    write(&dir, "vocab.json", with("<|extra|>"));
    assert!(Tokenizer::open(dir.path()).is_ok());
    // A token after the special ones was added by hand, and transformers never returns it.
    let ids = |dir: &TempDir| Tokenizer::open(dir.path()).unwrap().encode("mycat").unwrap().ids;
    let without = ids(&directory("sd1"));
    write(&dir, "vocab.json", with("mycat"));
    assert_eq!(ids(&dir), without);
    let before = with("mycat").replace(":1199,", ":1201,").replace(":1199}", ":1201}");
    write(&dir, "vocab.json", before);
    assert!(Tokenizer::open(dir.path()).unwrap_err().to_string().contains("\"mycat\" (id 1200)"));
    write(&dir, "vocab.json", with("mycat"));
    let added = json!({"added_tokens_decoder": {"1200": {"content": "mycat"}}, "model_max_length": 77});
    write(&dir, "tokenizer_config.json", added.to_string());
    assert!(Tokenizer::open(dir.path()).is_ok());
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

#[test]
fn merges_written_the_older_way_are_read() {
    let text = std::fs::read_to_string(fixture("json").join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    for merge in json["model"]["merges"].as_array_mut().unwrap() {
        *merge = format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()).into();
    }
    let dir = directory("json");
    let want = Tokenizer::open(dir.path()).unwrap().encode("a red circle").unwrap();
    write(&dir, "tokenizer.json", json.to_string());
    assert_eq!(Tokenizer::open(dir.path()).unwrap().encode("a red circle").unwrap(), want);
}

/// Replaces a value of a fixture's `tokenizer.json`, opens the tokenizer and encodes a prompt.
fn encode_with(name: &str, path: &str, value: Value) -> Result<Encoding> {
    let dir = directory(name);
    let text = std::fs::read_to_string(dir.path().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    let (parent, key) = path.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[key] = value;
    write(&dir, "tokenizer.json", json.to_string());
    Tokenizer::open(dir.path())?.encode("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa a \u{fb01}sh \u{732b}!")
}

#[test]
fn hostile_tokenizers_are_refused() {
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "normalizers": steps});
    let regex = |text: &str| replace(json!({"Regex": text}), "");
    let nested = (0..20).fold(json!({"type": "NFC"}), |inner, _| sequence(vec![inner]));
    let split =
        |text: &str| json!({"type": "Split", "pattern": {"Regex": text}, "behavior": "Removed", "invert": true});
    let pre = |step: Value| json!({"type": "Sequence", "pretokenizers": [step]});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let bytes = json!({"type": "Sequence", "pretokenizers": vec![byte_level; 25]});
    let charsmap = |map: Value| json!({"type": "Precompiled", "precompiled_charsmap": map});
    // One unit that points to the second on "a", whose text is long.
    let long = {
        let mut bytes = vec![0; 4 + 4 * 1024];
        bytes[..4].copy_from_slice(&(4 * 1024u32).to_le_bytes());
        let mut unit = |at: usize, value: u32| bytes[4 + 4 * at..8 + 4 * at].copy_from_slice(&value.to_le_bytes());
        unit(0, 0);
        unit(0x61, 512 << 10 | 1 << 8 | 0x61);
        unit(0x61 ^ 512, 1 << 31);
        bytes.extend(vec![b'x'; 10_000]);
        base64(&bytes)
    };
    for (path, value, word) in [
        ("/model/continuing_subword_prefix", json!("long prefix"), "does not begin with the continuing_subword_prefix"),
        ("/model/continuing_subword_prefix", json!("i"), "does not begin with the continuing_subword_prefix"),
        ("/model/continuing_subword_prefix", json!("\u{e9}"), "does not begin with the continuing_subword_prefix"),
        ("/model/end_of_word_suffix", json!("x".repeat(100)), "end_of_word_suffix of 100 bytes"),
        ("/model/dropout", json!(0.5), "dropout = 0.5"),
        ("/normalizer", charsmap(Value::Null), "precompiled_charsmap is null"),
        ("/normalizer", charsmap(json!(7)), "precompiled_charsmap is a number"),
        ("/normalizer", charsmap(json!(long)), "maps a character to 65 bytes"),
        ("/normalizer", json!({"type": "Precompiled"}), "precompiled_charsmap is missing"),
        ("/normalizer", sequence(vec![json!({"type": "Precompiled"})]), "precompiled_charsmap is missing"),
        ("/normalizer", sequence(vec![replace(json!({"String": "a"}), "aa"); 30]), "bytes; expected at most"),
        ("/normalizer", sequence(vec![json!({"type": "Prepend", "prepend": "a"}); 40]), "more than 32 steps"),
        ("/normalizer", replace(json!({"String": "a"}), &"a".repeat(65)), "content of 65 bytes"),
        ("/normalizer", nested, "nests more than 8 steps"),
        ("/normalizer", regex(r"(?:a|aa)+\d"), "cannot encode the prompt"),
        ("/normalizer", regex("(?:a{100}){100}"), "repeats a part more than 1000 times"),
        ("/normalizer", regex(&format!("{}a{}", "(".repeat(500), ")".repeat(500))), "has 500 groups"),
        ("/normalizer", regex("(?<x>a\\g<x>?)"), "refers back"),
        ("/normalizer", regex(&"a?".repeat(1500)), "has 3000 bytes"),
        ("/normalizer", regex("("), "unmatched parenthesis"),
        ("/pre_tokenizer", pre(split(r"(?:a|aa)+\d")), "cannot encode the prompt"),
        ("/pre_tokenizer", pre(json!({"type": "FixedLength", "length": 0})), "chunk size must be non-zero"),
        ("/pre_tokenizer", bytes, "into bytes more than twice"),
        (
            "/post_processor",
            json!({"type": "TemplateProcessing", "single": vec![json!({"Sequence": {"id": "A",
            "type_id": 0}}); 1000], "pair": [], "special_tokens": {}}),
            "combines 1000 pieces",
        ),
    ] {
        let error = encode_with("json", path, value).expect_err(word);
        assert!(matches!(error, Error::Model { .. }), "{path}: {error}");
        assert!(error.to_string().contains(word), "{path}: {word}: {error}");
    }
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn hostile_models_are_refused() {
    let text = std::fs::read_to_string(fixture("t5").join("tokenizer.json")).unwrap();
    let good: Value = serde_json::from_str(&text).unwrap();
    let deep = json!("a".repeat(1_000_000));
    for (path, value, word) in [
        ("/model/vocab/9/0", deep, "pieces of up to 1000000 bytes"),
        (
            "/model",
            json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 1_000_000, "vocab": {"[UNK]": 0}}),
            "max_input_chars_per_word = 1000000",
        ),
    ] {
        let [dir, _] = t5();
        let mut json = good.clone();
        *json.pointer_mut(path).unwrap() = value;
        write(&dir, "tokenizer.json", json.to_string());
        let error = Tokenizer::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Model { .. }) && error.to_string().contains(word), "{error}");
    }
}

/// Regular expressions of published tokenizers, and their hardest texts.
#[test]
fn published_expressions_are_within_bounds() {
    let gpt4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    for regex in [gpt4, gpt2, r" {2,}", r"\s+", r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", r"\\|[{(]"] {
        let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let dir = directory("json");
        let text = std::fs::read_to_string(dir.path().join("tokenizer.json")).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        json["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap().insert(0, split);
        write(&dir, "tokenizer.json", json.to_string());
        let tokenizer = Tokenizer::open(dir.path()).unwrap_or_else(|error| panic!("{regex}: {error}"));
        for unit in ["a", " ", "\n", "1", "\u{732b}", "a ", "!"] {
            let prompt = unit.repeat(limits::PROMPT_BYTES / unit.len());
            tokenizer.tokens(&prompt).unwrap_or_else(|error| panic!("{regex}: {unit:?}: {error}"));
        }
    }
}

#[test]
fn a_file_has_a_largest_length() {
    let dir = directory("sd1");
    let file = std::fs::File::create(dir.path().join("vocab.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("vocab.json: has 1099511627776 bytes; expected at most 67108864"), "{error}");
}

#[test]
fn a_prompt_has_a_largest_length() {
    let tokenizer = Tokenizer::open(directory("sd1").path()).unwrap();
    assert!(tokenizer.encode(&"a".repeat(limits::PROMPT_BYTES)).is_ok());
    let error = tokenizer.encode(&"a".repeat(limits::PROMPT_BYTES + 1)).unwrap_err();
    assert!(matches!(error, Error::Input { .. }), "{error}");
    assert!(error.to_string().contains("32769 bytes; expected at most 32768"), "{error}");
    assert!(tokenizer.tokens(&"a".repeat(limits::PROMPT_BYTES + 1)).is_err());
}

/// The ids of transformers' slow tokenizer, with ftfy and without (`scripts/goldens/golden_tokenizer_cleaning.py`). Prompts
/// that ftfy repairs are errors, and few others.
#[test]
fn gives_the_ids_that_transformers_gives_after_cleaning() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tokenizer/cleaning.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let dir = directory("sd1");
    let open = |cleaning| Tokenizer::open(dir.path()).unwrap().with_cleaning(cleaning).unwrap();
    let (basic, ftfy) = (open(Cleaning::Basic), open(Cleaning::Ftfy));
    let mut wrong = Vec::new();
    for part in ["natural", "random"] {
        let mut refused = 0;
        let rows = golden[part].as_array().unwrap();
        for row in rows {
            let text = row["text"].as_str().unwrap();
            let want = |key: &str| {
                let mut ids: Vec<i64> = serde_json::from_value(row[key].clone()).unwrap();
                let is_cut = ids.len() > 77;
                ids.truncate(77);
                let last = ids.len() - 1;
                ids[last] = 1199;
                ids.resize(77, 1199);
                (ids, is_cut)
            };
            let got = basic.encode(text).unwrap();
            if (&got.ids, got.cut > 0) != (&want("basic").0, want("basic").1) {
                wrong.push(format!("basic {part}: {text:?} {:?} {:?}", got.ids, want("basic")));
            }
            match ftfy.encode(text) {
                Ok(got) if row["repaired"] == true || got.ids != want("ftfy").0 => {
                    wrong.push(format!(
                        "ftfy {part}: {text:?} repaired {}\n {:?}\n {:?}",
                        row["repaired"],
                        got.ids,
                        want("ftfy").0
                    ));
                }
                Ok(got) => assert_eq!(
                    got.ids,
                    ftfy.around(&ftfy.tokens(text).unwrap()[..got.length - 2], &vec![1.0; got.length - 2]).0
                ),
                Err(error) if part == "natural" && row["repaired"] == false => wrong.push(format!("{text:?}: {error}")),
                Err(error) => {
                    assert!(matches!(error, Error::Input { .. }), "{error}");
                    refused += 1;
                }
            }
        }
        println!("{part}: {refused} of {} refused", rows.len());
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(12)].join("\n"));
}
