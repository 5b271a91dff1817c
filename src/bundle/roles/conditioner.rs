//! What a graph for conditions takes and gives.

use super::{Unassigned, fixed_batch, is_number, table};
use crate::bundle::component::Component;
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;

/// The roles of the one input and the one output of an embedder.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionerSignature {
    /// What is to be shown: classes `[n]`, tokens `[n, tokens]` or a map `[n, labels, h, w]`.
    pub input: TensorInfo,
    /// What the denoiser is told: tokens `[n, tokens, width]`, a vector `[n, width]`, or channels `[n, c, h, w]`.
    pub output: TensorInfo,
    /// Rows of the table that the input indexes, where it indexes one.
    pub rows: Option<usize>,
    /// The batch the graph is fixed to, where it is.
    pub batch: Option<usize>,
}

impl ConditionerSignature {
    /// Finds the input and the output.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] with a table of names, types and shapes, where there is not one of each.
    pub fn resolve(component: &Component) -> Result<Self> {
        let graph = &component.graph;
        let mut inputs = Unassigned::new(component);
        let Some(input) = inputs.only(is_number) else {
            return Err(inputs.lacks("condition", "a number or a tensor of them"));
        };
        inputs.finish()?;
        let [output] = graph.outputs.as_slice() else {
            return Err(Error::model(
                &graph.path,
                format!("{} should give one output; its outputs are{}", component.kind, table(&graph.outputs)),
                "export it with scripts/export.py",
            ));
        };
        Ok(Self {
            rows: graph.table_rows.get(&input.name).copied(),
            batch: fixed_batch(component, [&input])?,
            input,
            output: output.clone(),
        })
    }

    /// The input and the output with the word for their role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        vec![(&self.input, "condition".to_owned()), (&self.output, "embedded condition".to_owned())]
    }
}
