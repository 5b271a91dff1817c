//! All the text encoders of a model, read as one.

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};

use super::encoder::{Asked, Encoded, TextEncoder};
use crate::error::{Error, Result};
use crate::session::Cancel;

/// What a model's text encoders make of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// Tokens to attend to, `[tokens, width]` float32.
    pub tokens: ArrayD<f32>,
    /// The text as one vector, `[width]`, where the denoiser takes one.
    pub pooled: Option<ArrayD<f32>>,
    /// What was cut off, where the prompt is longer than an encoder reads.
    pub warnings: Vec<String>,
}

impl Embedding {
    /// The embedding of nothing: zeros of the same shapes.
    pub fn zeros(&self) -> Self {
        let zeros = |a: &ArrayD<f32>| ArrayD::zeros(a.raw_dim());
        Self { tokens: zeros(&self.tokens), pooled: self.pooled.as_ref().map(zeros), warnings: Vec::new() }
    }
}

/// A model's text encoders, in its order.
///
/// Encoders of one group stand side by side: their states are joined along the width. The groups follow each other
/// along the tokens, the narrower ones filled up with zeros, and behind them what stands for an encoder that is not
/// there. One vector is made of all that are pooled.
pub struct TextEncoders {
    encoders: Vec<(usize, TextEncoder)>,
    /// `[tokens, width]` of zeros.
    blank: Option<[usize; 2]>,
    /// Prompts met before: several pictures of one prompt, or the empty negative prompt of every request.
    known: HashMap<(String, Asked), Arc<Embedding>>,
}

/// Prompts remembered before all are forgotten, which bounds the memory of a long-lived pipeline.
const REMEMBERED: usize = 256;

impl TextEncoders {
    /// Joins encoders, each with its group. `blank` is how many tokens of zeros stand behind theirs, and how wide:
    /// `[tokens, width]`.
    pub fn new(encoders: Vec<(usize, TextEncoder)>, blank: Option<[usize; 2]>) -> Self {
        Self { encoders, blank, known: HashMap::new() }
    }

    /// How many chunks a prompt is read in, by the encoder that needs the most; 1 unless long prompts are read so.
    ///
    /// # Errors
    /// [`Error::Model`] where a tokenizer gives ids that its graph's embedding does not hold.
    pub fn chunks(&self, prompt: &str) -> Result<usize> {
        let counts = self.encoders.iter().map(|(_, encoder)| Ok(encoder.chunks(prompt)?.chunks.len()));
        Ok(counts.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(1))
    }

    /// What a prompt met before became.
    pub fn known(&self, prompt: &str, asked: Asked) -> Option<Arc<Embedding>> {
        self.known.get(&(prompt.to_owned(), asked)).cloned()
    }

    /// Encodes one prompt in as many chunks as [`TextEncoders::chunks`] gives for it, or more.
    ///
    /// # Errors
    /// [`Error::Model`] where a tokenizer gives ids that its graph's embedding does not hold or the encoders' outputs
    /// do not fit together, and whatever the graphs fail with.
    pub fn encode(&mut self, prompt: &str, asked: Asked, cancel: &Cancel) -> Result<Arc<Embedding>> {
        if let Some(known) = self.known(prompt, asked) {
            return Ok(known);
        }
        let mut encoded = Vec::with_capacity(self.encoders.len());
        for (group, encoder) in &mut self.encoders {
            encoded.push((*group, encoder.encode(prompt, asked, cancel)?));
        }
        let embedding = Arc::new(join(encoded, self.blank)?);
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert((prompt.to_owned(), asked), Arc::clone(&embedding));
        Ok(embedding)
    }
}

fn join(encoded: Vec<(usize, Encoded)>, blank: Option<[usize; 2]>) -> Result<Embedding> {
    let misfit = |e: ndarray::ShapeError| Error::input("prompt", format!("the text encoders do not agree: {e}"), "");
    let mut groups: Vec<(usize, Vec<ArrayD<f32>>)> = Vec::new();
    let mut vectors = Vec::new();
    let mut warnings = Vec::new();
    for (group, Encoded { tokens, pooled, warning }) in encoded {
        vectors.extend(pooled);
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
    Ok(Embedding { tokens: along(0, &groups)?, pooled, warnings: cut_off(warnings) })
}

/// What is to be told of a prompt that did not fit all of its encoders, in their order: nothing where the last of them
/// read all of it, as T5 reads what is too long for CLIP.
pub fn cut_off(warnings: Vec<Option<String>>) -> Vec<String> {
    if warnings.last().is_some_and(Option::is_none) {
        return Vec::new();
    }
    let mut told: Vec<String> = warnings.into_iter().flatten().collect();
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
        let cut = |words: &[Option<&str>]| cut_off(words.iter().map(|word| word.map(str::to_owned)).collect());
        assert_eq!(cut(&[Some("77"), Some("77"), None]), [""; 0]);
        assert_eq!(cut(&[Some("77"), Some("77"), Some("256")]), ["77", "256"]);
        assert_eq!(cut(&[None, Some("77")]), ["77"]);
        assert_eq!(cut(&[]), [""; 0]);
    }
}
