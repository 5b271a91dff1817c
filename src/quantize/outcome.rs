//! Progress and results of quantization.

use std::path::PathBuf;

use serde::Serialize;

use crate::bundle::ComponentKind;

/// The result for one graph.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct QuantizedGraph {
    /// The component, such as `unet`.
    pub component: &'static str,
    /// The graph's file, relative to the model directory.
    pub graph: PathBuf,
    /// The size of the graph and its weights before, in bytes.
    pub bytes_before: u64,
    /// The same after.
    pub bytes_after: u64,
    /// The number of quantized tensors.
    pub tensors: usize,
    /// The number of large float32 tensors that stay as they are because of the nodes that read them.
    pub unknown: usize,
    /// The largest error of a weight.
    pub largest_error: f64,
    /// The errors of all quantized weights over the weights themselves, each the root of the sum of squares.
    pub relative_error: f64,
    /// Tensors that stay float32 because of their values.
    pub skipped: Vec<SkippedTensor>,
    /// The number of nodes that compute in half precision.
    pub half_nodes: usize,
    /// The nodes that compute in float32 in a graph with half-precision activations, by the reason.
    pub float32_nodes: Vec<Float32Nodes>,
}

/// Nodes that compute in float32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Float32Nodes {
    /// The reason.
    pub reason: &'static str,
    /// Their number.
    pub nodes: usize,
}

/// A tensor that stays float32.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SkippedTensor {
    /// Its name.
    pub tensor: String,
    /// The reason.
    pub reason: String,
}

/// The progress of writing graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantizeProgress {
    /// The current component.
    pub component: ComponentKind,
    /// The bytes of its weights read so far.
    pub done: u64,
    /// The bytes of its weights in total.
    pub total: u64,
}
