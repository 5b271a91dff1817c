//! The signature of a graph for a condition.

use super::tensor_forms::{describe, fixed_batch, is_number};
use super::unassigned::Unassigned;
use crate::bundle::component::Component;
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;

/// The one input and the one output of a graph for a condition.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionerSignature {
    /// The condition: classes `[n]`, tokens `[n, tokens]` or a map `[n, labels, h, w]`.
    pub input: TensorInfo,
    /// The embedded condition: tokens `[n, tokens, width]`, a vector `[n, width]`, or channels `[n, c, h, w]`.
    pub output: TensorInfo,
    /// Rows of the table that the input indexes, if it indexes one.
    pub rows: Option<usize>,
    /// The batch the graph is fixed to.
    pub batch: Option<usize>,
}

impl ConditionerSignature {
    /// Finds the input and the output.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] with a table of names, types and shapes if there is not one of each.
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
                format!("{} should give one output; its outputs are{}", component.kind, describe(&graph.outputs)),
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

    /// The input and the output with the description of their role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        vec![(&self.input, "condition".to_owned()), (&self.output, "embedded condition".to_owned())]
    }
}
