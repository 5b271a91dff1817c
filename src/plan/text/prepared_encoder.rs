//! A text encoder's tokenizer, set to its length and to the tokens of textual inversions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::length;
use super::textual_inversion::Learnt;
use crate::bundle::{Component, ComponentKind, TextEncoderContract};
use crate::error::Result;
use crate::text::Inversion;
use crate::text::tokenizer::{Cleaning, Tokenizer};

/// The settings that decide a text encoder's tokenizer and contract.
#[derive(Debug, PartialEq)]
pub(in crate::plan) struct EncoderRequest {
    pub(in crate::plan) kind: ComponentKind,
    pub(in crate::plan) graph: PathBuf,
    pub(in crate::plan) roles: BTreeMap<String, String>,
    /// The tokenizer's directory.
    pub(in crate::plan) tokenizer: PathBuf,
    pub(in crate::plan) cleaning: Option<Cleaning>,
    /// For T5: `max_sequence_length`, and the number of tokens that it reads otherwise.
    pub(in crate::plan) t5_length: [Option<usize>; 2],
    /// The textual inversions: their paths and their tokens.
    pub(in crate::plan) words: Vec<(PathBuf, String)>,
    /// The number of text encoders that are not T5's.
    pub(in crate::plan) clips: usize,
}

/// A text encoder's tokenizer, set to its length and to the tokens of textual inversions.
#[derive(Debug, Clone)]
pub(in crate::plan) struct PreparedEncoder {
    pub(in crate::plan) contract: TextEncoderContract,
    pub(in crate::plan) tokenizer: Arc<Tokenizer>,
    pub(in crate::plan) learnt: Option<Arc<Learnt>>,
}

impl PreparedEncoder {
    /// Sets a tokenizer to the length of its text encoder. Textual inversions are matters of CLIP's.
    pub(in crate::plan) fn new(
        request: &EncoderRequest,
        component: &Component,
        mut contract: TextEncoderContract,
        tokenizer: Tokenizer,
        inversions: &[Arc<Inversion>],
    ) -> Result<Self> {
        let (learnt, tokenizer) = match tokenizer.is_t5() {
            true => (None, length::of_t5(tokenizer, component, &contract, request.t5_length)?),
            false => {
                let tokenizer = length::of_encoder(tokenizer, component, &contract)?;
                Learnt::new(inversions, component, request.clips, &mut contract, tokenizer)?
            }
        };
        Ok(Self { contract, tokenizer: Arc::new(tokenizer), learnt: learnt.map(Arc::new) })
    }
}
