//! A text encoder's ONNX graph and its tokenizer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array2, ArrayD, Axis, IxDyn};

use super::tokenizer::{Encoding, Tokenizer};
use crate::bundle::TextEncoderContract;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tensor::{TensorView, require_finite, switch};

/// What a text encoder makes of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The last hidden state, `[tokens, width]` float32.
    pub hidden: ArrayD<f32>,
    /// What was cut off, where the prompt is longer than the model reads.
    pub warning: Option<String>,
}

/// A tokenizer and the graph that turns its ids into tokens to attend to.
pub struct TextEncoder {
    tokenizer: Arc<Tokenizer>,
    session: Session,
    contract: TextEncoderContract,
    /// Prompts met before: several pictures of one prompt, or the empty negative prompt of every request.
    known: HashMap<String, Arc<Embedding>>,
}

/// Requires that every id of a prompt is a row of the graph's embedding.
///
/// # Errors
/// [`Error::Model`] naming the graph, the first id beyond, and the number of rows.
pub fn require_embedded(encoding: &Encoding, contract: &TextEncoderContract, graph: &Path) -> Result<()> {
    let Some(rows) = contract.embedding_rows else { return Ok(()) };
    let Some(id) = encoding.ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= rows)) else {
        return Ok(());
    };
    Err(Error::model(
        graph,
        format!("the tokenizer gives token id {id}, and the graph's embedding has {rows} rows (ids 0 to {})", rows - 1),
        "the tokenizer belongs to another text encoder: copy the one this graph was exported with",
    ))
}

/// Prompts remembered before all are forgotten, which bounds the memory of a long-lived pipeline.
const REMEMBERED: usize = 256;

impl TextEncoder {
    /// Joins an open graph with its tokenizer.
    ///
    /// # Errors
    /// [`Error::Model`] where the graph's fixed sequence length is not the tokenizer's.
    pub fn new(tokenizer: Arc<Tokenizer>, session: Session, contract: TextEncoderContract) -> Result<Self> {
        if let Some(fixed) = contract.sequence_length.filter(|&n| n != tokenizer.max_length()) {
            return Err(Error::model(
                session.path(),
                format!(
                    "input {} takes exactly {fixed} tokens, and the tokenizer is set to {}",
                    contract.input_ids.name,
                    tokenizer.max_length()
                ),
                "set model_max_length in tokenizer_config.json to the graph's length",
            ));
        }
        Ok(Self { tokenizer, session, contract, known: HashMap::new() })
    }

    /// What a prompt met before became.
    pub fn known(&self, prompt: &str) -> Option<Arc<Embedding>> {
        self.known.get(prompt).cloned()
    }

    /// Encodes one prompt.
    ///
    /// # Errors
    /// [`Error::Model`] where the tokenizer gives ids that the graph's embedding does not hold, and whatever the
    /// graph fails with.
    pub fn encode(&mut self, prompt: &str, cancel: &Cancel) -> Result<Arc<Embedding>> {
        if let Some(known) = self.known(prompt) {
            return Ok(known);
        }
        let encoding = self.tokenizer.encode(prompt)?;
        require_embedded(&encoding, &self.contract, self.session.path())?;
        let embedding = Arc::new(self.run(encoding, cancel)?);
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(prompt.to_owned(), Arc::clone(&embedding));
        Ok(embedding)
    }

    fn run(&mut self, encoding: Encoding, cancel: &Cancel) -> Result<Embedding> {
        let rows = self.contract.batch.unwrap_or(1).max(1);
        let length = encoding.ids.len();
        let ids: Vec<i64> = encoding.ids.iter().copied().cycle().take(rows * length).collect();
        let ids = Array2::from_shape_vec((rows, length), ids)
            .map_err(|e| Error::input("prompt", e.to_string(), ""))?
            .into_dyn();
        let mask = ArrayD::<i64>::ones(IxDyn(&[rows, length]));
        let mut inputs = vec![(self.contract.input_ids.name.as_str(), TensorView::I64(ids.view()))];
        if let Some(info) = &self.contract.attention_mask {
            inputs.push((&info.name, TensorView::I64(mask.view())));
        }
        let switches: Vec<_> =
            self.contract.switches.iter().map(|s| (s.input.name.as_str(), switch(&s.input, s.value))).collect();
        for (name, value) in &switches {
            inputs.push((name, TensorView::Bool(value.view())));
        }
        let outputs = self.session.run(&inputs, &[&self.contract.last_hidden_state.name], cancel)?;
        let hidden = outputs.into_iter().next().filter(|h| h.ndim() == 3 && h.shape()[0] == rows).ok_or_else(|| {
            Error::model(
                self.session.path(),
                format!("output {} is not [{rows}, tokens, width]", self.contract.last_hidden_state.name),
                "",
            )
        })?;
        let hidden = hidden.index_axis_move(Axis(0), 0);
        if let Some(values) = hidden.as_slice() {
            require_finite(values, "the text encoder's output", 0, 0)?;
        }
        Ok(Embedding { hidden, warning: encoding.warning() })
    }
}
