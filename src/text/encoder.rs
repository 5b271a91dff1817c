//! A text encoder's ONNX graph and its tokenizer.

use std::path::Path;
use std::sync::Arc;

use ndarray::{Array2, ArrayD, Axis, IxDyn};

use super::tokenizer::{Encoding, Tokenizer};
use crate::bundle::TextEncoderContract;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tensor::{TensorInfo, TensorView, require_finite, switch};

/// Which of a text encoder's outputs are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// What becomes tokens to attend to: states `[n, tokens, width]`, or a vector `[n, width]` that is one token.
    pub tokens: Option<TensorInfo>,
    /// The text as one vector, `[n, width]`.
    pub pooled: Option<TensorInfo>,
}

/// What one text encoder makes of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Encoded {
    /// `[tokens, width]`
    pub tokens: Option<ArrayD<f32>>,
    /// `[width]`
    pub pooled: Option<ArrayD<f32>>,
    pub warning: Option<String>,
}

/// A tokenizer and the graph that turns its ids into tokens to attend to.
pub struct TextEncoder {
    tokenizer: Arc<Tokenizer>,
    session: Session,
    contract: TextEncoderContract,
    taken: Taken,
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

impl TextEncoder {
    /// Joins an open graph with its tokenizer.
    ///
    /// # Errors
    /// [`Error::Model`] where the graph's fixed sequence length is not the tokenizer's.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        session: Session,
        contract: TextEncoderContract,
        taken: Taken,
    ) -> Result<Self> {
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
        Ok(Self { tokenizer, session, contract, taken })
    }

    /// Encodes one prompt.
    pub(super) fn encode(&mut self, prompt: &str, cancel: &Cancel) -> Result<Encoded> {
        let encoding = self.tokenizer.encode(prompt)?;
        require_embedded(&encoding, &self.contract, self.session.path())?;
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
        let wanted: Vec<&TensorInfo> = [&self.taken.tokens, &self.taken.pooled].into_iter().flatten().collect();
        let names: Vec<&str> = wanted.iter().map(|info| info.name.as_str()).collect();
        let outputs = self.session.run(&inputs, &names, cancel)?;
        let mut outputs = outputs.into_iter().zip(wanted);
        let mut next = |is_wanted: bool| -> Result<Option<ArrayD<f32>>> {
            let Some((output, info)) = is_wanted.then(|| outputs.next()).flatten() else { return Ok(None) };
            if output.ndim() < 2 || output.ndim() > 3 || output.shape()[0] != rows {
                return Err(Error::model(
                    self.session.path(),
                    format!("output {} should have {rows} rows and is {:?}", info.name, output.shape()),
                    "export the text encoder with scripts/export.py",
                ));
            }
            require_finite(output.as_slice().unwrap_or_default(), "the text encoder's output", 0, 0)?;
            Ok(Some(output.index_axis_move(Axis(0), 0)))
        };
        let tokens = next(self.taken.tokens.is_some())?;
        let pooled = next(self.taken.pooled.is_some())?;
        let tokens = tokens.map(|t| if t.ndim() == 1 { t.insert_axis(Axis(0)) } else { t });
        Ok(Encoded { tokens, pooled, warning: encoding.warning() })
    }
}
