//! Files and prompts beyond the limits of time and size.

use super::super::*;
use super::{directory, fixture, t5, write};
use serde_json::{Value, json};

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
