//! The text encoders whose outputs a denoiser reads.

mod encoder;
mod length;
mod reading;
mod remarks;
mod states;
mod text_part;
mod textual_inversion;

use std::sync::Arc;

use super::sources::ModelSources;
use crate::bundle::{Bundle, Component, ComponentKind, DenoiserSignature, Role, TextEncoderSignature};
use crate::error::{Error, Result};
use crate::spec::TextualInversionSpec;
use crate::task::{PromptReading, Prompting};
use crate::tensor::{Dim, TensorInfo};
use crate::text::{Chunks, EncoderOutputs, TextualInversion, require_embedded, truncation_warnings};
pub(super) use encoder::{EncoderRequest, PreparedEncoder};
use reading::Reading;
use text_part::{OpenedEncoder, TextPartPlanner, tokenizer_dir};

pub use text_part::TextPart;
pub use textual_inversion::AddedTokens;

/// The encoders and settings that turn prompts into prompt embeddings.
#[derive(Debug, Clone)]
pub struct TextPlan {
    /// The text encoders, in the model's order.
    pub encoders: Vec<TextPart>,
    /// True if an absent negative prompt is zeros rather than the encoded empty text: diffusers'
    /// `force_zeros_for_empty_prompt`.
    pub zeros_for_no_prompt: bool,
    /// Words of a user's own.
    pub inversions: Vec<Arc<TextualInversion>>,
    /// Zeros behind all tokens, `[tokens, width]`, where the model runs without its last encoder.
    pub blank: Option<[usize; 2]>,
}

impl TextPlan {
    pub(super) fn new(
        (bundle, sources): (&Bundle, &ModelSources),
        denoiser: &DenoiserSignature,
        prompting: &Prompting,
        embeddings: &[TextualInversionSpec],
        max_sequence_length: Option<usize>,
        wanted_for: &str,
    ) -> Result<Self> {
        let components = text_encoders(bundle, wanted_for)?;
        let family = Reading::of(bundle)?;
        let length = max_sequence_length.or(family.tokens);
        let reading = &prompting.reading;
        let inversions =
            embeddings.iter().map(|embedding| sources.inversion(&embedding.path, embedding.token.as_deref()));
        let inversions = inversions.collect::<Result<Vec<_>>>()?;
        let opened = open_encoders((bundle, sources), &components, reading, wanted_for)?;
        let planner = TextPartPlanner {
            bundle,
            sources,
            reading,
            family: &family,
            length,
            inversions: &inversions,
            clips: opened.iter().filter(|(.., tokenizer)| tokenizer.kind().is_pooled()).count(),
            wanted_for,
        };
        let encoders = opened.into_iter().map(|opened| planner.plan(opened)).collect::<Result<Vec<_>>>()?;
        family.check_instruction(reading)?;
        let is_free = encoders.iter().any(|text| !text.tokenizer.kind().is_pooled());
        let length = reading.max_sequence_length.or(length);
        let blank = if is_free { None } else { family.blank(bundle, denoiser, length)? };
        if reading.max_sequence_length.is_some() && !is_free && blank.is_none() {
            return Err(Error::input(
                "max_sequence_length",
                "is given, and none of the model's text encoders is T5's",
                "leave the key out",
            ));
        }
        let zeros_for_no_prompt = zeros_for_no_prompt(bundle, denoiser, &encoders);
        let plan = Self { zeros_for_no_prompt, encoders, inversions, blank };
        plan.check(denoiser, bundle)?;
        Ok(plan)
    }

    /// The number of tokens that T5 reads, or that zeros stand for in its place, unless a graph is fixed to it; `None` for a
    /// model without it.
    pub(super) fn t5_length(&self) -> Option<usize> {
        let t5 = self.encoders.iter().find(|text| !text.tokenizer.kind().is_pooled());
        let free = t5.filter(|text| text.part.signature.sequence_length.is_none());
        let length = free.map(|text| text.tokenizer.max_length());
        length.or(self.blank.filter(|_| t5.is_none()).map(|[tokens, _]| tokens))
    }

    /// The encoders of each group.
    fn groups(&self) -> Vec<&[TextPart]> {
        self.encoders.chunk_by(|a, b| a.group == b.group).collect()
    }

    /// The number of tokens that every prompt becomes; `None` if long prompts become more.
    pub(super) fn tokens(&self) -> Option<usize> {
        let is_longer = |text: &TextPart| text.style.is_chunked && text.taken.tokens.is_some();
        (!self.encoders.iter().any(is_longer)).then(|| self.tokens_of_a_chunk())
    }

    /// The number of tokens that a prompt read in one chunk becomes, the zeros of an absent encoder among them.
    fn tokens_of_a_chunk(&self) -> usize {
        let of_group = |group: &[TextPart]| {
            let (text, states) = group.iter().find_map(|text| Some((text, text.taken.tokens.as_ref()?)))?;
            // A pooled vector, `[n, width]`, is one token.
            Some(if states.shape.len() == 2 { 1 } else { text.tokenizer.max_length() })
        };
        let groups: usize = self.groups().into_iter().filter_map(of_group).sum();
        groups + self.blank.map_or(0, |[tokens, _]| tokens)
    }

    /// Requires that the encoders fit each other and give what the denoiser takes.
    fn check(&self, denoiser: &DenoiserSignature, bundle: &Bundle) -> Result<()> {
        for group in self.groups() {
            let lengths: Vec<usize> = group.iter().map(|text| text.tokenizer.max_length()).collect();
            if lengths.iter().any(|&length| length != lengths[0]) {
                return Err(Error::model(
                    &bundle.dir,
                    format!("its tokenizers give {lengths:?} tokens, and the denoiser wants as many of each"),
                    "set the same model_max_length in each tokenizer_config.json",
                ));
            }
        }
        let path = &bundle.denoiser()?.graph.path;
        if !denoiser.takes(Role::ContextMask) && self.encoders.iter().any(|text| text.style.is_masked) {
            return Err(Error::model(
                path,
                format!(
                    "the model is of the family {}, and this graph takes no mask over its tokens (encoder_attention_mask)",
                    bundle.family()?.name()
                ),
                "export it with one, as scripts/export.py does; without, other images would be drawn",
            ));
        }
        let pooled = width_of(&self.encoders, |taken| &taken.pooled);
        if let Some(info) = denoiser.input(Role::TextEmbeds).filter(|_| pooled == Some(0)) {
            return Err(Error::model(
                path,
                format!("input {} wants the text as one vector, and no text encoder gives one", info.name),
                "export the second text encoder with its projection (output text_embeds)",
            ));
        }
        let of_length = self.encoders.iter().any(|text| !text.tokenizer.kind().is_pooled()) || self.blank.is_some();
        let by_token = [Role::Context, Role::ContextMask].into_iter().filter_map(|role| denoiser.input(role));
        let mut lengths = by_token.filter_map(|info| Some((info, info.shape.get(1)?.fixed()?)));
        let tokens = self.tokens_of_a_chunk();
        if let Some((info, length)) = lengths.find(|&(_, length)| of_length && length != tokens) {
            return Err(Error::model(
                path,
                format!("input {} takes exactly {length} tokens, and the text encoders give {tokens}", info.name),
                "set max_sequence_length, the number of T5's among them",
            ));
        }
        for (wanted, given, what) in [
            (denoiser.input(Role::Context).map(|info| (info, 2)), self.width(), "tokens"),
            (denoiser.input(Role::TextEmbeds).map(|info| (info, 1)), pooled, "a vector"),
        ] {
            let Some((info, axis)) = wanted else { continue };
            let (Some(wanted), Some(given)) = (info.shape.get(axis).and_then(Dim::fixed), given) else { continue };
            if wanted != given {
                return Err(Error::model(
                    path,
                    format!("input {} takes {what} of width {wanted}, and the text encoders give {given}", info.name),
                    match bundle.missing.first() {
                        Some(missing) => format!("the directory lacks {missing}"),
                        None => "denoiser and text encoders are not of one model".to_owned(),
                    },
                ));
            }
        }
        Ok(())
    }

    /// The width of the tokens, that of the widest group, where all are known.
    fn width(&self) -> Option<usize> {
        let widths = self.groups().into_iter().map(|group| width_of(group, |taken| &taken.tokens));
        widths.chain(self.blank.map(|[_, width]| Some(width))).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Requires that every prompt becomes ids that the text encoders know, and tells of those that are too
    /// long for them.
    pub(super) fn check_prompts(&self, prompting: &Prompting, denoiser: &DenoiserSignature) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        if let Some(number) = prompting.encoders().filter(|&number| number > self.encoders.len()) {
            let is_negative = prompting.later.get(number - 2).is_some_and(|later| later.prompts.is_empty());
            return Err(Error::input(
                format!("{}prompt_{number}", if is_negative { "negative_" } else { "" }),
                format!("is what text encoder {number} is told, and the model has {}", self.encoders.len()),
                "leave it out",
            ));
        }
        let fixed = denoiser.input(Role::Context).and_then(|info| Some((info, info.shape.get(1)?.fixed()?)));
        let counts = [prompting.prompts.len(), prompting.negative_prompts.len()];
        let prompts = counts
            .into_iter()
            .zip([false, true])
            .flat_map(|(count, is_negative)| (0..count).map(move |prompt| prompting.text(prompt, is_negative)));
        for prompt in prompts {
            let mut of_prompt = Vec::with_capacity(self.encoders.len());
            for (at, text) in self.encoders.iter().enumerate() {
                let read = match text.instruction.as_ref().filter(|_| !prompt.is_negative) {
                    Some(instruction) => instruction.chunks(prompt.for_encoder(at), text.style)?,
                    None => Chunks::new(prompt.for_encoder(at), &text.tokenizer, text.style)?,
                };
                require_embedded(&read, &text.part.signature, &text.part.graph.path)?;
                of_prompt.push(read.warning);
                if let (Some((info, length)), 2..) = (fixed, read.chunks.len()) {
                    return Err(Error::input(
                        "long_prompts",
                        format!(
                            "a prompt is read in {} chunks, and input {} of the denoiser takes exactly {length} tokens",
                            read.chunks.len(),
                            info.name
                        ),
                        "shorten the prompt, or export the denoiser with a free number of tokens",
                    ));
                }
            }
            for warning in truncation_warnings(&prompt, of_prompt) {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        Ok(warnings)
    }
}

/// The model's text encoders.
///
/// # Errors
/// [`Error::Model`] if there is none.
fn text_encoders<'b>(bundle: &'b Bundle, wanted_for: &str) -> Result<Vec<&'b Component>> {
    let components: Vec<&Component> = bundle.text_encoders().collect();
    match components.is_empty() {
        false => Ok(components),
        true => Err(Error::model(
            &bundle.dir,
            format!("{wanted_for} needs {}, and the directory has none", ComponentKind::TextEncoder),
            "choose [task.unconditional], or export the text encoder too",
        )),
    }
}

/// The text encoders with their contracts and tokenizers.
fn open_encoders<'c>(
    (bundle, sources): (&Bundle, &ModelSources),
    components: &[&'c Component],
    reading: &PromptReading,
    wanted_for: &str,
) -> Result<Vec<OpenedEncoder<'c>>> {
    let opened = components.iter().map(|&component| {
        let signature = TextEncoderSignature::resolve(component)?;
        let dir = tokenizer_dir(bundle, component, wanted_for)?;
        let tokenizer = sources.tokenizer(dir, reading.text_cleaning)?;
        signature.embedding_rows.map_or(Ok(()), |rows| tokenizer.check_vocabulary(rows))?;
        Ok((component, signature, tokenizer))
    });
    let opened = opened.collect::<Result<Vec<_>>>()?;
    if reading.text_cleaning.is_some() && opened.iter().all(|(.., tokenizer)| tokenizer.cleaning().is_none()) {
        return Err(Error::input(
            "text_cleaning",
            "is given, and none of the model's tokenizers is CLIP's",
            "leave the key out",
        ));
    }
    Ok(opened)
}

/// An exporter that writes a pooled vector's width as the tokens' is not to be believed, so names are left out.
fn last_axis(info: &TensorInfo) -> Option<usize> {
    info.shape.last().and_then(Dim::fixed)
}

/// The widths of one output of some encoders added up, where all of them are known.
fn width_of(encoders: &[TextPart], output: fn(&EncoderOutputs) -> &Option<TensorInfo>) -> Option<usize> {
    encoders.iter().filter_map(|text| output(&text.taken).as_ref()).map(last_axis).sum()
}

/// True if a prompt that is not given is zeros: what model_index.json says of it, or else the default of the classes of
/// Stable Diffusion XL, if it names one. Without a class, zeros belong to Stable Diffusion XL but for its refiner, known by
/// its five `time_ids`, and to models that read a prompt as one vector (retrieval-augmented diffusion).
fn zeros_for_no_prompt(bundle: &Bundle, denoiser: &DenoiserSignature, encoders: &[TextPart]) -> bool {
    let stated = bundle.forces_zeros_for_empty_prompt();
    let is_vector = |text: &TextPart| text.taken.tokens.as_ref().is_some_and(|info| info.shape.len() == 2);
    let is_xl_base = denoiser.time_ids_width().is_some_and(|width| width != 5);
    stated.unwrap_or(is_xl_base || encoders.iter().any(is_vector))
}
