//! The tokens that transformers gives.

use super::super::*;
use super::{bert, directory, fixture, t5, write};
use serde_json::{Value, json};
use tempfile::TempDir;

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
