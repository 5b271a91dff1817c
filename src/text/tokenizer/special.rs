//! Special and added tokens, lengths and sides, read from a tokenizer's configuration files with the precedence of
//! transformers' `from_pretrained`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::files::read_json;
use super::limits;
use crate::error::{Error, Result};
use crate::family::TokenizerKind;

/// The maximum length of a text encoder; transformers writes 1e30 for an unknown length.
const MAX_LENGTH: f64 = 100_000.0;

impl TokenizerKind {
    /// Returns the keys of the token before a prompt, if any, and of the one after it.
    fn around(self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Clip => (Some("bos_token"), "eos_token"),
            Self::Bert => (Some("cls_token"), "sep_token"),
            Self::T5 => (None, "eos_token"),
            Self::Gemma => (Some("bos_token"), "eos_token"),
        }
    }

    /// Returns the number of tokens that such text encoders were trained with, the default if the files have no usable
    /// number. That of the latent diffusion paper's BERT is CLIP's.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Clip | Self::Bert => 77,
            Self::T5 => 512,
            Self::Gemma => 300,
        }
    }

    /// Returns the default special token of a key.
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

/// The normalization of text before it is split into words: the keys of transformers' `BertTokenizer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BertNormalization {
    /// `do_lower_case = true`
    pub(super) lowercase: Option<bool>,
    /// `strip_accents`: as `do_lower_case`, if it is null.
    pub(super) strip_accents: Option<bool>,
    /// `tokenize_chinese_chars = true`: each is a separate word.
    pub(super) chinese: Option<bool>,
}

/// A special token and its id.
pub(super) type SpecialToken = (String, u32);

/// The settings in a tokenizer's configuration files.
#[derive(Debug)]
pub(super) struct TokenizerSettings {
    kind: TokenizerKind,
    pub(super) max_length: Option<usize>,
    /// The token before a prompt, if any.
    begin: Option<AddedToken>,
    /// The token after it.
    end: AddedToken,
    /// True if the first of them is put before a prompt, and the second behind it: of Gemma's, `add_bos_token = true` and
    /// `add_eos_token = false`.
    puts: [bool; 2],
    pub(super) unk: AddedToken,
    pad: AddedToken,
    /// BERT's token for a masked word.
    mask: Option<AddedToken>,
    pub(super) plain: BertNormalization,
    /// Further special tokens, such as those of textual inversion.
    additional: Vec<AddedToken>,
    /// Tokens with their flags in a file, by ascending id.
    added: Vec<AddedToken>,
    pub(super) pads_left: bool,
    pub(super) truncates_left: bool,
    split_special: bool,
}

impl TokenizerSettings {
    pub(super) fn read(dir: &Path, kind: TokenizerKind) -> Result<Self> {
        let config_path = dir.join("tokenizer_config.json");
        let mut config: Map<String, Value> = read_json(&config_path)?.unwrap_or_default();
        let added = read_added(dir, &config_path, &mut config)?;

        // CLIP's class adds the tokens of its three main keys before the general code does, with other flags.
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
            plain: BertNormalization {
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

    /// Adds the added and special tokens to the tokenizer, so that it finds them in prompts. An existing special token
    /// keeps its flags.
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

    /// Returns true if a file lists `content` as a special or an added token.
    pub(super) fn names(&self, content: &str) -> bool {
        let own = self.begin.iter().chain([&self.end, &self.unk, &self.pad]).chain(&self.mask);
        own.chain(&self.additional).chain(&self.added).any(|token| token.content == content)
    }

    /// Returns the id of the padding token.
    pub(super) fn pad_id(&self, tokenizer: &Tokenizer, dir: &Path) -> Result<u32> {
        tokenizer.token_to_id(&self.pad.content).ok_or_else(|| self.unknown(dir, "pad_token", &self.pad.content))
    }

    /// Returns the token before a prompt and the one after it, if any, each with its id.
    ///
    /// # Errors
    /// [`Error::Model`] if the vocabulary lacks one.
    pub(super) fn around(&self, tokenizer: &Tokenizer, dir: &Path) -> Result<[Option<SpecialToken>; 2]> {
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

    /// Returns the error for a special token without an id.
    fn unknown(&self, dir: &Path, key: &str, content: &str) -> Error {
        let problem = format!("{key} is \"{content}\", which the vocabulary lacks");
        Error::model(dir, problem, "use all tokenizer files of the same model")
    }
}

/// Returns the contents of all special tokens in a configuration.
fn special_names(config: &Map<String, Value>) -> Vec<String> {
    const KEYS: [&str; 7] =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    let additional = config.get("additional_special_tokens").and_then(Value::as_array).into_iter().flatten();
    let content = |value: &Value| Some(value.as_str().or_else(|| value.get("content")?.as_str())?.to_owned());
    KEYS.iter().filter_map(|&key| config.get(key)).chain(additional).filter_map(content).collect()
}

/// Reads the tokens added to a vocabulary. The main tokens of the older file special_tokens_map.json go into `config`.
fn read_added(dir: &Path, config_path: &Path, config: &mut Map<String, Value>) -> Result<Vec<AddedToken>> {
    if let Some(decoder) = config.get("added_tokens_decoder") {
        // If this key, written since transformers 4.34, is present, the two older files are ignored.
        return added_tokens(config_path, decoder);
    }
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
    let names = special_names(config);
    let added = |(content, _)| {
        let is_special = names.contains(&content);
        AddedToken::from(content, is_special)
    };
    Ok(ids.into_iter().map(added).collect())
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

/// Reads `model_max_length`; `None` if it is absent or left open.
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
