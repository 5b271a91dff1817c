//! A text encoder as a plan has it.

use std::path::Path;
use std::sync::Arc;

use super::AddedTokens;
use super::encoder::{EncoderRequest, PreparedEncoder};
use super::reading::{EncoderPlace, Reading};
use crate::bundle::{Bundle, Component, TextEncoderSignature};
use crate::error::{Error, Result};
use crate::plan::part::{Part, part};
use crate::plan::sources::ModelSources;
use crate::task::{LongPrompts, PromptReading, PromptWeighting};
use crate::tensor::TensorInfo;
use crate::text::tokenizer::Tokenizer;
use crate::text::{EncoderOutputs, Instruction, PromptStyle, TextualInversion};

/// A text encoder and its tokenizer.
#[derive(Debug, Clone)]
pub struct TextPart {
    /// The graph.
    pub part: Part<TextEncoderSignature>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The outputs that are used.
    pub taken: EncoderOutputs,
    /// The outputs that are used for a negative prompt, if others.
    pub negative: Option<EncoderOutputs>,
    /// The way it reads prompts.
    pub style: PromptStyle,
    /// The text before every prompt but a negative one.
    pub instruction: Option<Instruction>,
    /// The vectors of words of a user's own that its graph is opened with, where there are some.
    pub added_tokens: Option<Arc<AddedTokens>>,
    /// The group that its tokens belong to; see [`crate::text::TextEncoders`].
    pub group: usize,
}

/// A text encoder with its contract and its tokenizer as it is stored.
pub(super) type OpenedEncoder<'c> = (&'c Component, TextEncoderSignature, Arc<Tokenizer>);

/// Plans the text encoders of a model one by one.
pub(super) struct TextPartPlanner<'a> {
    pub bundle: &'a Bundle,
    pub sources: &'a ModelSources,
    pub reading: &'a PromptReading,
    pub family: &'a Reading,
    /// The tokens that encoders without a length of their own read, unless the request has a number.
    pub length: Option<usize>,
    pub inversions: &'a [Arc<TextualInversion>],
    /// The number of text encoders with a length of their own.
    pub clips: usize,
    pub wanted_for: &'a str,
}

impl TextPartPlanner<'_> {
    pub(super) fn plan(&self, (component, signature, tokenizer): OpenedEncoder<'_>) -> Result<TextPart> {
        let &Self { reading, family, inversions, wanted_for, .. } = self;
        let place = EncoderPlace { kind: tokenizer.kind(), is_last: self.is_last(component) };
        let is_pooled = place.kind.is_pooled();
        let request = EncoderRequest {
            kind: component.kind,
            graph: component.graph.path.clone(),
            roles: component.roles.clone(),
            tokenizer: tokenizer_dir(self.bundle, component, wanted_for)?.to_path_buf(),
            cleaning: reading.text_cleaning,
            length: [reading.max_sequence_length, self.length].map(|length| length.filter(|_| !is_pooled)),
            instruction: family.instruction(reading),
            words: inversions.iter().map(|own| (own.path.clone(), own.token.clone())).collect(),
            clips: self.clips,
        };
        let prepared = self.sources.encoder(request, |request| {
            PreparedEncoder::new(request, component, signature, Tokenizer::clone(&tokenizer), inversions)
        })?;
        let PreparedEncoder { signature, tokenizer, instruction, added_tokens } = PreparedEncoder::clone(&prepared);
        let whole = family.whole(component, &signature, place)?;
        readable(component, whole.tokens.as_ref(), reading, wanted_for)?;
        let skipping = match reading.clip_skip.filter(|_| is_pooled) {
            Some(skip) => Some(family.skipping(component, &signature, skip, &whole, wanted_for)?),
            None => None,
        };
        Ok(TextPart {
            tokenizer,
            instruction,
            added_tokens,
            negative: skipping.as_ref().map(|_| whole.clone()),
            taken: skipping.unwrap_or(whole),
            style: PromptStyle {
                has_weights: reading.weights == PromptWeighting::A1111,
                // T5 has no length of its own, and is told how much it reads.
                is_chunked: reading.long_prompts == LongPrompts::Chunk && is_pooled,
                is_masked: family.is_masked(),
            },
            part: part(component, signature),
            group: family.group(place.kind),
        })
    }

    fn is_last(&self, component: &Component) -> bool {
        self.bundle.text_encoders().last().is_some_and(|last| last.kind == component.kind)
    }
}

/// Requires that weights and chunks have a sense for what an encoder gives.
fn readable(
    component: &Component,
    tokens: Option<&TensorInfo>,
    reading: &PromptReading,
    wanted_for: &str,
) -> Result<()> {
    let key = match reading {
        PromptReading { weights: PromptWeighting::A1111, .. } => "prompt_weighting",
        PromptReading { long_prompts: LongPrompts::Chunk, .. } => "long_prompts",
        _ => return Ok(()),
    };
    if tokens.is_none_or(|info| info.shape.len() != 2) {
        return Ok(());
    }
    Err(Error::model(
        &component.graph.path,
        format!("{wanted_for} has {key}, and {} makes one vector of a whole text", component.kind),
        format!("leave {key} out"),
    ))
}

/// The directory of a text encoder's tokenizer.
///
/// # Errors
/// [`Error::Model`] if it has none.
pub(super) fn tokenizer_dir<'b>(bundle: &'b Bundle, component: &Component, wanted_for: &str) -> Result<&'b Path> {
    bundle.tokenizer(component.kind).ok_or_else(|| {
        let number = component.kind.text_encoder_number().filter(|&n| n > 1);
        let name = number.map_or("tokenizer".to_owned(), |n| format!("tokenizer_{n}"));
        Error::model(
            bundle.dir.join(&name),
            format!("{wanted_for} needs a tokenizer: tokenizer.json, vocab.json and merges.txt, or vocab.txt"),
            format!("copy the {name}/ folder of the checkpoint that was exported"),
        )
    })
}
