//! A graph that is opened, with the roles of its inputs and outputs.

use crate::bundle::{Component, ComponentKind, GraphFile};
use crate::tensor::{ByteEdit, DType, TensorInfo};

/// A graph that will be opened, and what its inputs and outputs are for.
#[derive(Debug, Clone)]
pub struct Part<C> {
    /// The component.
    pub kind: ComponentKind,
    /// The graph.
    pub graph: GraphFile,
    /// The roles of its inputs and outputs.
    pub signature: C,
    /// Edits of the graph file's bytes, applied when it is opened.
    pub edits: Vec<ByteEdit>,
}

pub(super) fn part<C>(component: &Component, signature: C) -> Part<C> {
    Part { kind: component.kind, graph: component.graph.clone(), signature, edits: Vec::new() }
}

/// Makes the input for the timestep take times between whole ones, where the graph lets it.
pub(super) fn between_whole_times(graph: &GraphFile, timestep: &mut TensorInfo) -> Vec<ByteEdit> {
    let edit = graph.float_inputs.get(&timestep.name);
    if edit.is_some() {
        timestep.dtype = DType::F32;
    }
    edit.copied().into_iter().collect()
}
