//! Combines all text encoders of a model.

use std::sync::Arc;

use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};

use super::encoder::{EncodeOptions, EncodedPrompt, TextEncoder};
use super::prompt_cache::{PromptCache, PromptText};
use super::prompt_embedding::PromptEmbedding;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};

/// A model's text encoders, in its order.
///
/// The states of encoders in the same group are concatenated along the width. The groups are concatenated along the
/// tokens, narrower ones padded with zeros, followed by zeros for a missing encoder. The pooled embeddings of all are
/// concatenated.
pub struct TextEncoders {
    encoders: Vec<(usize, TextEncoder)>,
    /// The shape of the zeros `[tokens, width]`.
    blank: Option<[usize; 2]>,
    known: PromptCache,
}

impl TextEncoders {
    /// Combines encoders, each with its group. Without any they are unloaded, and only cached texts are available.
    /// `blank` is the shape `[tokens, width]` of the zeros after their tokens. `known` is the cache of the same
    /// encoders.
    pub fn new(encoders: Vec<(usize, TextEncoder)>, blank: Option<[usize; 2]>, known: PromptCache) -> Self {
        Self { encoders, blank, known }
    }

    /// Returns the open graphs, in the order of the encoders.
    pub fn into_sessions(self) -> Vec<Session> {
        self.encoders.into_iter().map(|(_, encoder)| encoder.into_session()).collect()
    }

    /// Returns true if texts that are not cached can be encoded.
    pub fn is_open(&self) -> bool {
        !self.encoders.is_empty()
    }

    /// Encodes the texts of one image, each in as many chunks as the longest needs: all texts of an image have the same
    /// length, and other images' texts do not change it. A truncation is reported to `warn` when the text is encoded,
    /// and not while it is cached.
    ///
    /// # Errors
    /// [`Error::Model`] if a tokenizer gives ids that its graph's embedding does not have or the encoders' outputs do
    /// not fit together, and all errors of the graphs.
    pub fn encode(
        &mut self,
        together: &[PromptText],
        cancel: &Cancel,
        warn: &mut dyn FnMut(String),
    ) -> Result<Vec<Arc<PromptEmbedding>>> {
        let chunks = together.iter().map(|text| self.chunks(text)).collect::<Result<Vec<_>>>()?;
        let chunks = chunks.into_iter().max().unwrap_or(1);
        let mut made = Vec::with_capacity(together.len());
        for text in together {
            made.push(match self.known.get(text, chunks) {
                Some(known) => known,
                None => self.encode_one(text, chunks, cancel, warn)?,
            });
        }
        Ok(made)
    }

    /// Returns the number of chunks of a text: that of the encoder that needs the most, or 1 unless long prompts are
    /// chunked.
    fn chunks(&self, text: &PromptText) -> Result<usize> {
        if let Some(known) = self.known.chunks(text) {
            return Ok(known);
        }
        self.require_open()?;
        let encoders = self.encoders.iter().enumerate();
        let counts =
            encoders.map(|(at, (_, encoder))| Ok(encoder.chunks(text.for_encoder(at), text.is_negative)?.chunks.len()));
        let chunks = counts.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(1);
        self.known.read(text, chunks);
        Ok(chunks)
    }

    fn encode_one(
        &mut self,
        text: &PromptText,
        chunks: usize,
        cancel: &Cancel,
        warn: &mut dyn FnMut(String),
    ) -> Result<Arc<PromptEmbedding>> {
        self.require_open()?;
        let asked = EncodeOptions { chunks, is_negative: text.is_negative };
        let mut encoded = Vec::with_capacity(self.encoders.len());
        for (at, (group, encoder)) in self.encoders.iter_mut().enumerate() {
            encoded.push((*group, encoder.encode(text.for_encoder(at), asked, cancel)?));
        }
        let embedding = Arc::new(join(text, encoded, self.blank)?);
        embedding.warnings.iter().for_each(|warning| warn(warning.clone()));
        self.known.keep(text, chunks, &embedding);
        Ok(embedding)
    }

    fn require_open(&self) -> Result<()> {
        match self.is_open() {
            true => Ok(()),
            false => Err(Error::internal("prompt", "the text encoders are unloaded")),
        }
    }
}

fn join(text: &PromptText, encoded: Vec<(usize, EncodedPrompt)>, blank: Option<[usize; 2]>) -> Result<PromptEmbedding> {
    let misfit = |e: ndarray::ShapeError| {
        Error::input("prompt", format!("the text encoders' outputs do not fit together: {e}"), "")
    };
    let mut groups: Vec<(usize, Vec<ArrayD<f32>>)> = Vec::new();
    let mut vectors = Vec::new();
    let mut warnings = Vec::new();
    let mut masks = Vec::new();
    for (group, EncodedPrompt { tokens, pooled, mask, warning }) in encoded {
        vectors.extend(pooled);
        masks.extend(mask);
        warnings.push(warning);
        let Some(tokens) = tokens else { continue };
        match groups.last_mut().filter(|(last, _)| *last == group) {
            Some((_, members)) => members.push(tokens),
            None => groups.push((group, vec![tokens])),
        }
    }
    let along = |axis: usize, parts: &[ArrayD<f32>]| {
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        concatenate(Axis(axis), &views).map_err(misfit)
    };
    let mut groups = groups.iter().map(|(_, members)| along(1, members)).collect::<Result<Vec<_>>>()?;
    groups.extend(blank.map(|[tokens, width]| ArrayD::zeros(IxDyn(&[tokens, width]))));
    let width = groups.iter().map(|group| group.shape()[1]).max().unwrap_or(0);
    let groups: Vec<_> = groups.into_iter().map(|group| widened(group, width)).collect();
    let pooled = if vectors.is_empty() { None } else { Some(along(0, &vectors)?) };
    // A model that masks padding has one encoder (`plan::TextPlan`).
    Ok(PromptEmbedding {
        tokens: along(0, &groups)?,
        pooled,
        mask: masks.pop(),
        warnings: truncation_warnings(text, warnings),
    })
}

/// Returns the warnings about a truncated text, in the order of the encoders: none if the last of them gets the same
/// text and read all of it, as T5 reads prompts too long for CLIP.
pub fn truncation_warnings(text: &PromptText, warnings: Vec<Option<String>>) -> Vec<String> {
    let last = warnings.len().saturating_sub(1);
    let is_read = warnings.last().is_some_and(Option::is_none);
    let cut = warnings
        .into_iter()
        .enumerate()
        .filter(|(at, _)| !(is_read && text.for_encoder(*at) == text.for_encoder(last)));
    let mut told: Vec<String> = cut.filter_map(|(_, warning)| warning).collect();
    told.dedup();
    told
}

/// Pads every token with zeros up to `width`.
fn widened(tokens: ArrayD<f32>, width: usize) -> ArrayD<f32> {
    let (count, narrow) = (tokens.shape()[0], tokens.shape()[1]);
    if narrow == width {
        return tokens;
    }
    let mut wide = ArrayD::zeros(IxDyn(&[count, width]));
    wide.slice_axis_mut(Axis(1), Slice::from(..narrow)).assign(&tokens);
    wide
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_the_last_encoder_read_is_not_cut_off() {
        let own = |words: &[Option<&str>]| words.iter().map(|word| word.map(str::to_owned)).collect::<Vec<_>>();
        let text = |later: &[Option<&str>]| PromptText { text: "a".to_owned(), later: own(later), is_negative: false };
        let cut = |words: &[Option<&str>]| truncation_warnings(&text(&[]), own(words));
        assert_eq!(cut(&[Some("77"), Some("77"), None]), [""; 0]);
        assert_eq!(cut(&[Some("77"), Some("77"), Some("256")]), ["77", "256"]);
        assert_eq!(cut(&[None, Some("77")]), ["77"]);
        assert_eq!(cut(&[]), [""; 0]);
        let apart = truncation_warnings(&text(&[None, Some("b")]), own(&[Some("77"), Some("77"), None]));
        assert_eq!(apart, ["77"], "the last one is told something else");
    }
}
