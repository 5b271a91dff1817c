//! Special and added tokens, lengths and sides, gathered from the files beside a tokenizer in the precedence that
//! transformers' `from_pretrained` gives them.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::files::read_json;
use super::limits;
use crate::error::{Error, Result};
use crate::family::TokenizerKind;

/// No text encoder takes more tokens than this; what transformers writes for "not known" is 1e30.
const MAX_LENGTH: f64 = 100_000.0;

impl TokenizerKind {
    /// The keys of the token before a prompt, where there is one, and of the one behind it.
    fn around(self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Clip => (Some("bos_token"), "eos_token"),
            Self::Bert => (Some("cls_token"), "sep_token"),
            Self::T5 => (None, "eos_token"),
            Self::Gemma => (Some("bos_token"), "eos_token"),
        }
    }

    /// The number of tokens that such text encoders were trained on, taken where the files give no usable
    /// number. That of the latent diffusion paper's BERT is CLIP's.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Clip | Self::Bert => 77,
            Self::T5 => 512,
            Self::Gemma => 300,
        }
    }

    /// The special token of a key that no file names.
    fn default(self, key: &str) -> &'static str {
        match (self, key) {
            (Self::Clip, "bos_token") => "<|startoftext|>",
            (Self::Clip, _) => "<|endoftext|>",
            (Self::Bert, "cls_token") => "[CLS]",
            (Self::Bert, "sep_token") => "[SEP]",
            (Self::Bert, "unk_token") => "[UNK]",
            (Self::Bert, "mask_token") => "[MASK]",
            (Self::Bert, _) => "[PAD]",
            (Self::T5, "eos_token") => "</s>",
            (Self::T5, "unk_token") => "<unk>",
            (Self::T5, _) => "<pad>",
            (Self::Gemma, "bos_token") => "<bos>",
            (Self::Gemma, "eos_token") => "<eos>",
            (Self::Gemma, "unk_token") => "<unk>",
            (Self::Gemma, _) => "<pad>",
        }
    }
}

/// How text is made plain before it is split into words: the keys of transformers' `BertTokenizer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plain {
    /// `do_lower_case = true`
    pub(super) lowercase: Option<bool>,
    /// `strip_accents`: as `do_lower_case`, where it is null.
    pub(super) strip_accents: Option<bool>,
    /// `tokenize_chinese_chars = true`: each is a word of its own.
    pub(super) chinese: Option<bool>,
}

/// A special token and its id.
pub(super) type Placed = (String, u32);

/// What the files beside a tokenizer say.
#[derive(Debug)]
pub(super) struct Settings {
    kind: TokenizerKind,
    pub(super) max_length: Option<usize>,
    /// The token before a prompt, where there is one.
    begin: Option<AddedToken>,
    /// The token behind it.
    end: AddedToken,
    /// True if the first of them is put before a prompt, and the second behind it: of Gemma's, `add_bos_token = true` and
    /// `add_eos_token = false`.
    puts: [bool; 2],
    pub(super) unk: AddedToken,
    pad: AddedToken,
    /// BERT's token for a word left out.
    mask: Option<AddedToken>,
    pub(super) plain: Plain,
    /// Further special tokens, such as those of textual inversion.
    additional: Vec<AddedToken>,
    /// Tokens with the flags that a file gives them, by rising id.
    added: Vec<AddedToken>,
    pub(super) pads_left: bool,
    pub(super) truncates_left: bool,
    split_special: bool,
}

impl Settings {
    pub(super) fn read(dir: &Path, kind: TokenizerKind) -> Result<Self> {
        let config_path = dir.join("tokenizer_config.json");
        let mut config: Map<String, Value> = read_json(&config_path)?.unwrap_or_default();

        let mut added = Vec::new();
        if let Some(decoder) = config.get("added_tokens_decoder") {
            // Written since transformers 4.34, this key makes the two older files be passed over.
            added = added_tokens(&config_path, decoder)?;
        } else {
            let map: Option<Map<String, Value>> = read_json(&dir.join("special_tokens_map.json"))?;
            for (key, mut value) in map.unwrap_or_default() {
                if let Some(token) = value.as_object_mut() {
                    token.insert("special".to_owned(), true.into());
                }
                config.insert(key, value);
            }
            let ids: Option<HashMap<String, u32>> = read_json(&dir.join("added_tokens.json"))?;
            let mut ids: Vec<_> = ids.unwrap_or_default().into_iter().collect();
            ids.sort_by_key(|&(_, id)| id);
            let names = special_names(&config);
            for (content, _) in ids {
                let special = names.contains(&content);
                added.push(AddedToken::from(content, special));
            }
        }

        // CLIP's class makes tokens of the three names it knows best before the general code does, with other flags.
        let token = |key: &str, normalized: bool| -> Result<AddedToken> {
            let (default, normalized) = (kind.default(key), normalized && kind == TokenizerKind::Clip);
            let found = match config.get(key) {
                None | Some(Value::Null) => AddedToken::from(default, true).normalized(normalized),
                Some(Value::String(content)) => AddedToken::from(content, true).normalized(normalized),
                Some(value) => parse_token(&config_path, key, value)?,
            };
            Ok(added.iter().find(|token| token.content == found.content).cloned().unwrap_or(found).special(true))
        };
        let additional = match config.get("additional_special_tokens") {
            Some(Value::Array(tokens)) => tokens
                .iter()
                .map(|token| Ok(parse_token(&config_path, "additional_special_tokens", token)?.special(true)))
                .collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        let (begin, end) = kind.around();
        let is_on = |key: &str| config.get(key).and_then(Value::as_bool);
        let is_left = |key: &str| config.get(key).and_then(Value::as_str) == Some("left");

        Ok(Self {
            max_length: max_length(&config_path, config.get("model_max_length"))?,
            begin: begin.map(|key| token(key, true)).transpose()?,
            end: token(end, true)?,
            unk: token("unk_token", true)?,
            pad: token("pad_token", false)?,
            mask: if kind == TokenizerKind::Bert { Some(token("mask_token", false)?) } else { None },
            plain: Plain {
                lowercase: is_on("do_lower_case"),
                strip_accents: is_on("strip_accents"),
                chinese: is_on("tokenize_chinese_chars"),
            },
            puts: match kind {
                TokenizerKind::Gemma => {
                    [is_on("add_bos_token").unwrap_or(true), is_on("add_eos_token").unwrap_or(false)]
                }
                _ => [begin.is_some(), true],
            },
            // The pipelines that read Gemma's tokens pad on the right, whatever the files say.
            pads_left: is_left("padding_side") && kind != TokenizerKind::Gemma,
            kind,
            additional,
            truncates_left: is_left("truncation_side"),
            split_special: config.get("split_special_tokens").and_then(Value::as_bool).unwrap_or(false),
            added,
        })
    }

    /// Makes the tokenizer know the added and special tokens, so that it finds them inside prompts. A special token
    /// that it knows already keeps the flags it has.
    pub(super) fn register(&self, tokenizer: &mut Tokenizer, dir: &Path) -> Result<()> {
        let (begin, end) = self.kind.around();
        let mut special: Vec<(&str, &AddedToken)> = begin.zip(self.begin.as_ref()).into_iter().collect();
        special.extend([(end, &self.end), ("unk_token", &self.unk)]);
        for &(key, token) in special.iter().chain(&[("pad_token", &self.pad)]) {
            let declared = self.added.iter().any(|added| added.content == token.content);
            if !declared && tokenizer.token_to_id(&token.content).is_none() {
                return Err(self.unknown(dir, key, &token.content));
            }
        }
        let names: Vec<&str> = special.iter().map(|(_, token)| token.content.as_str()).collect();
        let declared = self.added.iter().cloned().map(|token| {
            let special = token.special || token.content == self.pad.content || names.contains(&&*token.content);
            token.special(special)
        });
        let all = declared
            .chain(special.iter().map(|(_, token)| (*token).clone()))
            .chain([self.pad.clone()])
            .chain(self.mask.iter().filter(|mask| tokenizer.token_to_id(&mask.content).is_some()).cloned())
            .chain(self.additional.iter().cloned());
        for token in all.collect::<Vec<_>>() {
            if !tokenizer.get_added_vocabulary().is_special_token(&token.content) {
                limits::add_token(tokenizer, token).map_err(|e| Error::model(dir, e.to_string(), ""))?;
            }
        }
        tokenizer.set_encode_special_tokens(self.split_special);
        Ok(())
    }

    /// True if a file names `content` as a special or an added token.
    pub(super) fn names(&self, content: &str) -> bool {
        let own = self.begin.iter().chain([&self.end, &self.unk, &self.pad]).chain(&self.mask);
        own.chain(&self.additional).chain(&self.added).any(|token| token.content == content)
    }

    /// The id of the padding token.
    pub(super) fn pad_id(&self, tokenizer: &Tokenizer, dir: &Path) -> Result<u32> {
        tokenizer.token_to_id(&self.pad.content).ok_or_else(|| self.unknown(dir, "pad_token", &self.pad.content))
    }

    /// The token before a prompt and the one behind it, where there are such, each with its id.
    ///
    /// # Errors
    /// [`Error::Model`] where the vocabulary does not have one.
    pub(super) fn around(&self, tokenizer: &Tokenizer, dir: &Path) -> Result<[Option<Placed>; 2]> {
        let pair = |key, content: &str| {
            let id = tokenizer.token_to_id(content);
            id.map(|id| (content.to_owned(), id)).ok_or_else(|| self.unknown(dir, key, content))
        };
        let (begin, end) = self.kind.around();
        let [puts_begin, puts_end] = self.puts;
        let begin = begin.zip(self.begin.as_ref()).filter(|_| puts_begin);
        let begin = begin.map(|(key, token)| pair(key, &token.content)).transpose()?;
        Ok([begin, puts_end.then(|| pair(end, &self.end.content)).transpose()?])
    }

    /// The error for a special token without an id.
    fn unknown(&self, dir: &Path, key: &str, content: &str) -> Error {
        let problem = format!("{key} is \"{content}\", which the vocabulary does not have");
        Error::model(dir, problem, "take all files of the tokenizer from the same model")
    }
}

/// The contents of all special tokens that a configuration names.
fn special_names(config: &Map<String, Value>) -> Vec<String> {
    const KEYS: [&str; 7] =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    let additional = config.get("additional_special_tokens").and_then(Value::as_array).into_iter().flatten();
    let content = |value: &Value| Some(value.as_str().or_else(|| value.get("content")?.as_str())?.to_owned());
    KEYS.iter().filter_map(|&key| config.get(key)).chain(additional).filter_map(content).collect()
}

/// Reads `added_tokens_decoder`, tokens by id.
fn added_tokens(path: &Path, decoder: &Value) -> Result<Vec<AddedToken>> {
    const KEY: &str = "added_tokens_decoder";
    let fail = |found: &dyn std::fmt::Display| {
        Error::model(path, format!("{KEY}: expected tokens by their ids, found {found}"), "fetch the file again")
    };
    let mut tokens = Vec::new();
    for (id, token) in decoder.as_object().ok_or_else(|| fail(decoder))? {
        let id: u32 = id.parse().map_err(|_| fail(&format!("\"{id}\"")))?;
        tokens.push((id, parse_token(path, KEY, token)?));
    }
    tokens.sort_by_key(|&(id, _)| id);
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

/// Reads a token written as a string or as an object with `content` and flags.
fn parse_token(path: &Path, key: &str, value: &Value) -> Result<AddedToken> {
    let flag = |name: &str, default: bool| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    match (value, value.get("content")) {
        (Value::String(content), _) => Ok(AddedToken::from(content, true)),
        (_, Some(Value::String(content))) => {
            let special = flag("special", false);
            Ok(AddedToken {
                content: content.clone(),
                special,
                normalized: flag("normalized", !special),
                lstrip: flag("lstrip", false),
                rstrip: flag("rstrip", false),
                single_word: flag("single_word", false),
            })
        }
        _ => {
            let problem = format!("{key}: expected a token, as text or as an object with a content, found {value}");
            Err(Error::model(path, problem, "fetch the file again"))
        }
    }
}

/// Reads `model_max_length`; nothing where it is absent or left open.
fn max_length(path: &Path, value: Option<&Value>) -> Result<Option<usize>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_f64() {
        Some(length) if length > MAX_LENGTH => Ok(None),
        Some(length) if length >= 1.0 && length.fract() == 0.0 => Ok(Some(length as usize)),
        _ => {
            let problem = format!("model_max_length: expected a number of tokens, found {value}");
            Err(Error::model(path, problem, "77 is the length of CLIP's text encoders"))
        }
    }
}
