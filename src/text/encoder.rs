//! A text encoder's ONNX graph and its tokenizer.

use std::path::Path;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayD, Axis, concatenate};

use super::chunks::{Chunk, Chunks, Instruction, PromptStyle};
use super::tokenizer::Tokenizer;
use crate::bundle::{LayerNorm, TextEncoderSignature};
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tensor::{TensorInfo, TensorView, switch};

/// The selected outputs of a text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderOutputs {
    /// The prompt embeddings: states `[n, tokens, width]`, or a vector `[n, width]` that counts as one token.
    pub tokens: Option<TensorInfo>,
    /// The final layer norm to apply to those states, if the graph did not apply it.
    pub norm: Option<LayerNorm>,
    /// The pooled embedding, `[n, width]`.
    pub pooled: Option<TensorInfo>,
}

/// The options for encoding one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EncodeOptions {
    /// The number of chunks: at least as many as the prompt needs.
    pub chunks: usize,
    /// True for a negative prompt, for which no layers are skipped.
    pub is_negative: bool,
}

/// One text encoder's embeddings of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EncodedPrompt {
    /// `[tokens, width]`, the tokens of all chunks.
    pub tokens: Option<ArrayD<f32>>,
    /// `[width]`
    pub pooled: Option<ArrayD<f32>>,
    /// `[tokens]`: 1 for each token that is not padding and 0 for the others, if padding is masked.
    pub mask: Option<ArrayD<f32>>,
    pub warning: Option<String>,
}

/// The states of one chunk, `[tokens, width]`, and its pooled embedding, `[width]`.
type ChunkStates = (Option<ArrayD<f32>>, Option<ArrayD<f32>>);

/// A tokenizer, and the graph that encodes its ids as prompt embeddings.
pub struct TextEncoder {
    tokenizer: Arc<Tokenizer>,
    session: Session,
    signature: TextEncoderSignature,
    taken: EncoderOutputs,
    /// The outputs for a negative prompt, if they differ.
    negative: Option<EncoderOutputs>,
    style: PromptStyle,
    /// The text before every prompt but a negative one.
    instruction: Option<Instruction>,
}

/// Checks that every id of a prompt is a row of the graph's token embedding.
///
/// # Errors
/// [`Error::Model`] naming the graph, the first id beyond, and the number of rows.
pub fn require_embedded(chunks: &Chunks, signature: &TextEncoderSignature, graph: &Path) -> Result<()> {
    let Some(rows) = signature.embedding_rows else { return Ok(()) };
    let mut ids = chunks.chunks.iter().flat_map(|chunk| &chunk.ids);
    let Some(id) = ids.find(|&&id| usize::try_from(id).map_or(true, |id| id >= rows)) else {
        return Ok(());
    };
    Err(Error::model(
        graph,
        format!(
            "the tokenizer's token id {id} is out of range: the graph's embedding has {rows} rows (ids 0 to {})",
            rows - 1
        ),
        "the tokenizer belongs to another text encoder; copy the one this graph was exported with",
    ))
}

impl TextEncoder {
    /// Combines an open graph with its tokenizer. `negative` are the outputs for a negative prompt, if they differ from
    /// those for a prompt.
    ///
    /// # Errors
    /// [`Error::Model`] if the graph's fixed sequence length differs from the tokenizer's.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        session: Session,
        signature: TextEncoderSignature,
        taken: EncoderOutputs,
        negative: Option<EncoderOutputs>,
        style: PromptStyle,
    ) -> Result<Self> {
        if let Some(fixed) = signature.sequence_length.filter(|&n| n != tokenizer.max_length()) {
            return Err(Error::model(
                session.path(),
                format!(
                    "input {}: expected exactly {fixed} tokens, and the tokenizer gives {}",
                    signature.input_ids.name,
                    tokenizer.max_length()
                ),
                "set model_max_length in tokenizer_config.json to the graph's length",
            ));
        }
        Ok(Self { tokenizer, session, signature, taken, negative, style, instruction: None })
    }

    /// Puts an instruction before every prompt but a negative one.
    pub fn with_instruction(self, instruction: Option<Instruction>) -> Self {
        Self { instruction, ..self }
    }

    /// Gives back the open graph.
    pub fn into_session(self) -> Session {
        self.session
    }

    /// Returns the chunks of a prompt.
    pub(super) fn chunks(&self, prompt: &str, is_negative: bool) -> Result<Chunks> {
        let chunks = match self.instruction.as_ref().filter(|_| !is_negative) {
            Some(instruction) => instruction.chunks(prompt, self.style)?,
            None => Chunks::new(prompt, &self.tokenizer, self.style)?,
        };
        require_embedded(&chunks, &self.signature, self.session.path())?;
        Ok(chunks)
    }

    /// Encodes one prompt, padded with empty chunks; only one chunk if the encoder cannot read more.
    pub(super) fn encode(&mut self, prompt: &str, asked: EncodeOptions, cancel: &Cancel) -> Result<EncodedPrompt> {
        let Chunks { mut chunks, warning } = self.chunks(prompt, asked.is_negative)?;
        if self.style.is_chunked && chunks.len() < asked.chunks {
            let empty = self.chunks("", asked.is_negative)?.chunks;
            chunks.extend(empty.into_iter().cycle().take(asked.chunks - chunks.len()));
        }
        let taken = self.negative.as_ref().filter(|_| asked.is_negative).unwrap_or(&self.taken).clone();
        let mut tokens = Vec::with_capacity(chunks.len());
        let mut pooled = None;
        let mask = chunks.iter().flat_map(|chunk| self.mask(chunk)).map(|told| told as f32).collect::<Vec<_>>();
        let mask = self.style.is_masked.then(|| Array1::from(mask).into_dyn());
        for (at, chunk) in chunks.iter().enumerate() {
            let (states, vector) = self.encode_chunk(chunk, &taken, cancel)?;
            tokens.extend(states.map(|states| apply_weights(states, &chunk.weights)));
            if at == 0 {
                pooled = vector;
            }
        }
        let views: Vec<_> = tokens.iter().map(|states| states.view()).collect();
        let tokens = match views.is_empty() {
            true => None,
            false => Some(concatenate(Axis(0), &views).map_err(|e| Error::input("prompt", e.to_string(), ""))?),
        };
        let framed = |all: Option<ArrayD<f32>>| match self.instruction.as_ref().filter(|_| !asked.is_negative) {
            Some(instruction) => all.map(|all| instruction.frame(&all)),
            None => all,
        };
        Ok(EncodedPrompt { tokens: framed(tokens), pooled, mask: framed(mask), warning })
    }

    /// Returns 1 for each token that is attended to and 0 for the others, if padding is masked.
    fn mask(&self, chunk: &Chunk) -> Vec<i64> {
        let is_told = |at: usize| !self.style.is_masked || chunk.read.contains(&at);
        (0..chunk.ids.len()).map(|at| i64::from(is_told(at))).collect()
    }

    fn encode_chunk(&mut self, chunk: &Chunk, taken: &EncoderOutputs, cancel: &Cancel) -> Result<ChunkStates> {
        let rows = self.signature.batch.unwrap_or(1).max(1);
        let length = chunk.ids.len();
        let repeated = |row: &[i64]| -> Result<ArrayD<i64>> {
            let values = row.iter().copied().cycle().take(rows * length).collect();
            let rows = Array2::<i64>::from_shape_vec((rows, length), values);
            Ok(rows.map_err(|e| Error::input("prompt", e.to_string(), ""))?.into_dyn())
        };
        let (ids, mask) = (repeated(&chunk.ids)?, repeated(&self.mask(chunk))?);
        let mut inputs = vec![(self.signature.input_ids.name.as_str(), TensorView::I64(ids.view()))];
        if let Some(info) = &self.signature.attention_mask {
            inputs.push((&info.name, TensorView::I64(mask.view())));
        }
        let switches: Vec<_> =
            self.signature.switches.iter().map(|s| (s.input.name.as_str(), switch(&s.input, s.value))).collect();
        for (name, value) in &switches {
            inputs.push((name, TensorView::Bool(value.view())));
        }
        let wanted: Vec<&TensorInfo> = [&taken.tokens, &taken.pooled].into_iter().flatten().collect();
        let names: Vec<&str> = wanted.iter().map(|info| info.name.as_str()).collect();
        let outputs = self.session.run(&inputs, &names, cancel)?;
        let mut outputs = outputs.into_iter().zip(wanted);
        let mut next = |is_wanted: bool| -> Result<Option<ArrayD<f32>>> {
            let Some((output, info)) = is_wanted.then(|| outputs.next()).flatten() else { return Ok(None) };
            if output.ndim() < 2 || output.ndim() > 3 || output.shape()[0] != rows {
                return Err(Error::model(
                    self.session.path(),
                    format!("output {}: expected {rows} rows, found {:?}", info.name, output.shape()),
                    "export the text encoder with scripts/export.py",
                ));
            }
            self.session.require_finite(output.as_slice().unwrap_or_default(), &info.name, 0, 0)?;
            Ok(Some(output.index_axis_move(Axis(0), 0)))
        };
        let tokens = next(taken.tokens.is_some())?;
        let pooled = next(taken.pooled.is_some())?;
        let mut tokens = tokens.map(|t| if t.ndim() == 1 { t.insert_axis(Axis(0)) } else { t });
        if let (Some(states), Some(norm)) = (&mut tokens, &taken.norm) {
            states.as_slice_mut().into_iter().for_each(|states| norm.apply(states));
        }
        Ok((tokens, pooled))
    }
}

/// Multiplies each token's states `[tokens, width]` by its weight, then rescales all of them to restore their mean: the
/// mode that AUTOMATIC1111 calls "original" emphasis.
fn apply_weights(mut states: ArrayD<f32>, weights: &[f32]) -> ArrayD<f32> {
    if weights.iter().all(|&weight| weight == 1.0) {
        return states;
    }
    let sum = |states: &ArrayD<f32>| states.iter().map(|&v| f64::from(v)).sum::<f64>();
    let before = sum(&states);
    states.outer_iter_mut().zip(weights).for_each(|(mut state, &weight)| state *= weight);
    let by = before / sum(&states);
    if by.is_finite() {
        states *= by as f32;
    }
    states
}
