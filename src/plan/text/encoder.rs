//! A text encoder's tokenizer and signature as a request needs them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{AddedTokens, length};
use crate::bundle::{Component, ComponentKind, TextEncoderSignature};
use crate::error::{Error, Result};
use crate::text::tokenizer::{Cleaning, Tokenizer};
use crate::text::{Instruction, TextualInversion};

/// The settings that decide a text encoder's tokenizer and signature.
#[derive(Debug, PartialEq)]
pub(in crate::plan) struct EncoderRequest {
    pub kind: ComponentKind,
    pub graph: PathBuf,
    pub roles: BTreeMap<String, String>,
    /// The tokenizer's directory.
    pub tokenizer: PathBuf,
    pub cleaning: Option<Cleaning>,
    /// For encoders without a length of their own: `max_sequence_length`, and the number of tokens that they read otherwise.
    pub length: [Option<usize>; 2],
    /// The text before every prompt but a negative one.
    pub instruction: Option<String>,
    /// The textual inversions: their paths and their tokens.
    pub words: Vec<(PathBuf, String)>,
    /// The number of text encoders with a length of their own.
    pub clips: usize,
}

/// A text encoder's tokenizer, set to its length and to the tokens of textual inversions.
#[derive(Debug, Clone)]
pub(in crate::plan) struct PreparedEncoder {
    pub signature: TextEncoderSignature,
    pub tokenizer: Arc<Tokenizer>,
    pub instruction: Option<Instruction>,
    pub added_tokens: Option<Arc<AddedTokens>>,
}

impl PreparedEncoder {
    /// Sets a tokenizer to the length of its text encoder. Textual inversions are matters of CLIP's.
    pub fn new(
        request: &EncoderRequest,
        component: &Component,
        mut signature: TextEncoderSignature,
        tokenizer: Tokenizer,
        inversions: &[Arc<TextualInversion>],
    ) -> Result<Self> {
        let (added_tokens, tokenizer) = match tokenizer.kind().is_pooled() {
            false => (None, of_length(tokenizer, component, &signature, request.length)?),
            true => {
                let tokenizer = length::of_encoder(tokenizer, component, &signature)?;
                AddedTokens::new(inversions, component, request.clips, &mut signature, tokenizer)?
            }
        };
        let instruction = request.instruction.as_ref().map(|text| instruction(text, component, &signature, &tokenizer));
        let instruction = instruction.transpose()?;
        Ok(Self { signature, tokenizer: Arc::new(tokenizer), instruction, added_tokens: added_tokens.map(Arc::new) })
    }
}

/// The tokenizer of an encoder without a length of its own, set to as many tokens as that is to read.
fn of_length(
    tokenizer: Tokenizer,
    component: &Component,
    signature: &TextEncoderSignature,
    [asked, default]: [Option<usize>; 2],
) -> Result<Tokenizer> {
    if let (Some(asked), Some(fixed)) = (asked, signature.sequence_length)
        && asked != fixed
    {
        return Err(Error::input(
            "max_sequence_length",
            format!(
                "{asked} is asked for, and {} of {} takes {fixed} tokens",
                signature.input_ids.name, component.kind
            ),
            "leave the key out, or export the text encoder with a free number of tokens",
        ));
    }
    match asked.or(signature.sequence_length).or(default) {
        Some(length) => tokenizer.with_max_length(length),
        None => Ok(tokenizer),
    }
}

/// The text that an encoder reads before every prompt but a negative one.
///
/// # Errors
/// [`Error::Model`] for an encoder fixed to a number of tokens, which prompts and negative prompts differ in.
fn instruction(
    text: &str,
    component: &Component,
    signature: &TextEncoderSignature,
    tokenizer: &Tokenizer,
) -> Result<Instruction> {
    let instruction = Instruction::new(text.to_owned(), tokenizer)?;
    match signature.sequence_length {
        None => Ok(instruction),
        Some(fixed) => Err(Error::model(
            &component.graph.path,
            format!(
                "input {} takes exactly {fixed} tokens, and a prompt with the model's instruction has {}",
                signature.input_ids.name,
                instruction.tokens()
            ),
            "export the text encoder with a free number of tokens, or set complex_human_instruction = \"\"",
        )),
    }
}
