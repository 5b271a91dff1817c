//! All the text encoders of a model, read as one.

use std::sync::Arc;

use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};

use super::encoder::{Asked, Encoded, TextEncoder};
use super::encodings::{Encodings, Text};
use super::prompt_embedding::PromptEmbedding;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};

/// A model's text encoders, in its order.
///
/// Encoders of one group stand side by side: their states are joined along the width. The groups follow each other
/// along the tokens, the narrower ones filled up with zeros, and behind them what stands for an encoder that is not
/// there. One vector is made of all that are pooled.
pub struct TextEncoders {
    encoders: Vec<(usize, TextEncoder)>,
    /// `[tokens, width]` of zeros.
    blank: Option<[usize; 2]>,
    known: Encodings,
}

impl TextEncoders {
    /// Joins encoders, each with its group; with none they are closed, and only what is known is told. `blank` is how many
    /// tokens of zeros stand behind theirs, and how wide: `[tokens, width]`. `known` is what the same encoders made
    /// before.
    pub fn new(encoders: Vec<(usize, TextEncoder)>, blank: Option<[usize; 2]>, known: Encodings) -> Self {
        Self { encoders, blank, known }
    }

    /// Gives back the open graphs, in the order of the encoders.
    pub fn into_sessions(self) -> Vec<Session> {
        self.encoders.into_iter().map(|(_, encoder)| encoder.into_session()).collect()
    }

    /// Whether texts that are not known can be encoded.
    pub fn is_open(&self) -> bool {
        !self.encoders.is_empty()
    }

    /// Encodes what one image is told, each text in as many chunks as the longest of them needs: all that an image is
    /// told has the same length, and nothing that another image is told changes it. What was cut off a text is told to
    /// `warn` when it is encoded, and not again while it is known.
    ///
    /// # Errors
    /// [`Error::Model`] where a tokenizer gives ids that its graph's embedding does not hold or the encoders' outputs
    /// do not fit together, and whatever the graphs fail with.
    pub fn encode(
        &mut self,
        together: &[Text],
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

    /// How many chunks a text is read in, by the encoder that needs the most; 1 unless long prompts are read so.
    fn chunks(&self, text: &Text) -> Result<usize> {
        if let Some(known) = self.known.chunks(text) {
            return Ok(known);
        }
        self.require_open()?;
        let encoders = self.encoders.iter().enumerate();
        let counts = encoders.map(|(at, (_, encoder))| Ok(encoder.chunks(text.of(at), text.is_negative)?.chunks.len()));
        let chunks = counts.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(1);
        self.known.read(text, chunks);
        Ok(chunks)
    }

    fn encode_one(
        &mut self,
        text: &Text,
        chunks: usize,
        cancel: &Cancel,
        warn: &mut dyn FnMut(String),
    ) -> Result<Arc<PromptEmbedding>> {
        self.require_open()?;
        let asked = Asked { chunks, is_negative: text.is_negative };
        let mut encoded = Vec::with_capacity(self.encoders.len());
        for (at, (group, encoder)) in self.encoders.iter_mut().enumerate() {
            encoded.push((*group, encoder.encode(text.of(at), asked, cancel)?));
        }
        let embedding = Arc::new(join(text, encoded, self.blank)?);
        embedding.warnings.iter().for_each(|warning| warn(warning.clone()));
        self.known.keep(text, chunks, &embedding);
        Ok(embedding)
    }

    fn require_open(&self) -> Result<()> {
        match self.is_open() {
            true => Ok(()),
            false => Err(Error::internal("prompt", "the text encoders are closed")),
        }
    }
}

fn join(text: &Text, encoded: Vec<(usize, Encoded)>, blank: Option<[usize; 2]>) -> Result<PromptEmbedding> {
    let misfit = |e: ndarray::ShapeError| Error::input("prompt", format!("the text encoders do not agree: {e}"), "");
    let mut groups: Vec<(usize, Vec<ArrayD<f32>>)> = Vec::new();
    let mut vectors = Vec::new();
    let mut warnings = Vec::new();
    let mut masks = Vec::new();
    for (group, Encoded { tokens, pooled, mask, warning }) in encoded {
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
    // Who tells padding apart has one encoder (`plan::TextPlan`).
    Ok(PromptEmbedding { tokens: along(0, &groups)?, pooled, mask: masks.pop(), warnings: cut_off(text, warnings) })
}

/// What is to be told of a text that did not fit all of its encoders, in their order: nothing where the last of them is told
/// the same and read all of it, as T5 reads what is too long for CLIP.
pub fn cut_off(text: &Text, warnings: Vec<Option<String>>) -> Vec<String> {
    let last = warnings.len().saturating_sub(1);
    let is_read = warnings.last().is_some_and(Option::is_none);
    let cut = warnings.into_iter().enumerate().filter(|(at, _)| !(is_read && text.of(*at) == text.of(last)));
    let mut told: Vec<String> = cut.filter_map(|(_, warning)| warning).collect();
    told.dedup();
    told
}

/// Fills every token up to `width` with zeros.
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
        let text = |later: &[Option<&str>]| Text { text: "a".to_owned(), later: own(later), is_negative: false };
        let cut = |words: &[Option<&str>]| cut_off(&text(&[]), own(words));
        assert_eq!(cut(&[Some("77"), Some("77"), None]), [""; 0]);
        assert_eq!(cut(&[Some("77"), Some("77"), Some("256")]), ["77", "256"]);
        assert_eq!(cut(&[None, Some("77")]), ["77"]);
        assert_eq!(cut(&[]), [""; 0]);
        let apart = cut_off(&text(&[None, Some("b")]), own(&[Some("77"), Some("77"), None]));
        assert_eq!(apart, ["77"], "the last one is told something else");
    }
}
