//! Graphs that encode conditions other than a prompt for a denoiser.

mod condition;
pub mod layout;

use ndarray::{ArrayD, Axis, Slice, concatenate};

pub use condition::{ConditionSource, ConditionSpec, Conditioning, Graph, LayoutBox};

use crate::bundle::ConditionerSignature;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tensor::{Tensor, TensorView};

/// An embedder: encodes classes, boxes or a label map as tokens or channels.
pub struct Conditioner {
    session: Session,
    signature: ConditionerSignature,
}

impl Conditioner {
    /// Joins an open graph with the roles of its input and its output.
    pub fn new(session: Session, signature: ConditionerSignature) -> Self {
        Self { session, signature }
    }

    /// Returns the open graph.
    pub fn into_session(self) -> Session {
        self.session
    }

    /// Runs the graph on the rows of `input`. Returns as many rows of tokens `[rows, tokens, width]` or of channels
    /// `[rows, c, h, w]`; one vector per row counts as one token.
    ///
    /// # Errors
    /// [`Error::Model`] if the output does not have one row per input row, [`Error::NonFinite`], and all errors of the
    /// graph.
    pub fn run(&mut self, input: &Tensor, cancel: &Cancel) -> Result<ArrayD<f32>> {
        let rows = input.shape().first().copied().unwrap_or(1);
        let chunk = self.signature.batch.unwrap_or(rows).max(1);
        let mut parts = Vec::new();
        for start in (0..rows).step_by(chunk) {
            // A graph with a fixed batch always receives a full one; the results of padding rows are dropped.
            let picks: Vec<usize> = (start..start + chunk).map(|row| row.min(rows - 1)).collect();
            let part = match input {
                Tensor::F32(all) => Tensor::F32(all.select(Axis(0), &picks)),
                Tensor::I64(all) => Tensor::I64(all.select(Axis(0), &picks)),
                Tensor::Bool(all) => Tensor::Bool(all.select(Axis(0), &picks)),
            };
            let inputs = [(self.signature.input.name.as_str(), TensorView::from(&part))];
            parts.extend(self.session.run(&inputs, &[&self.signature.output.name], cancel)?);
        }
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        let all = concatenate(Axis(0), &views).ok().filter(|all| all.ndim() >= 2 && all.shape()[0] >= rows);
        let mut all = all.ok_or_else(|| {
            let problem = format!(
                "output {} does not have one row for each of the {rows} input rows",
                self.signature.output.name
            );
            Error::model(self.session.path(), problem, "export the graph with scripts/export.py")
        })?;
        all.slice_axis_inplace(Axis(0), Slice::from(..rows));
        let all = all.as_standard_layout().into_owned();
        self.session.require_finite(all.as_slice().unwrap_or_default(), &self.signature.output.name, 0, 0)?;
        Ok(if all.ndim() == 2 { all.insert_axis(Axis(1)) } else { all })
    }
}
