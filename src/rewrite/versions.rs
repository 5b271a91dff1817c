//! Versions of graphs.

use crate::bundle::GraphFile;

/// Returns true if a graph has a version that the passes support.
pub fn is_known(graph: &GraphFile) -> bool {
    /// From this format version on, a stored tensor need not be an input too.
    const STORED_APART: i64 = 4;
    /// From this operator set version on, `Resize` and similar operators have the supported form.
    const OPERATORS: i64 = 11;
    graph.ir_version >= STORED_APART && graph.opsets.get("").is_some_and(|&version| version >= OPERATORS)
}
