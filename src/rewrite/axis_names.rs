//! Gives each free axis of an input a name of its own.
//!
//! Exporters call axes of different lengths by one name, such as the heights of latents, of residuals and of images. ONNX
//! Runtime fixes axes by their names alone. It takes axes of one name to be of one length when it reuses buffers, and its
//! WebGPU provider then fails as it runs (docs/known-issues.md).

use super::edits::{Declarations, Edits};
use super::indexed_graph::IndexedGraph;
use crate::bundle::proto::{Dimension, ValueInfoProto};

/// The name of an input's axis that is free and shares no name.
pub fn axis_name(input: &str, at: usize) -> String {
    format!("{input}/{at}")
}

/// Renames the free axes of the inputs but those of the lengths `axes`, which ONNX Runtime fixes by their names, and
/// removes the names of all others. Returns the number of axes renamed; with none, nothing changes.
pub fn rewrite(source: &IndexedGraph<'_>, axes: &[(String, usize)], edits: &mut Edits) -> usize {
    let Declarations { mut inputs, mut outputs } = edits.declarations(source);
    if inputs.iter_mut().chain(&mut outputs).any(|info| dimensions(info).is_none()) {
        return 0;
    }
    let mut renamed = 0;
    for info in &mut inputs {
        let name = info.name.clone();
        for (at, dimension) in dimensions(info).into_iter().flatten().enumerate() {
            let is_fixed = axes.iter().any(|(own, _)| *own == dimension.dim_param);
            if dimension.dim_value <= 0 && !is_fixed {
                dimension.dim_param = axis_name(&name, at);
                renamed += 1;
            }
        }
    }
    if renamed > 0 {
        outputs.iter_mut().filter_map(dimensions).flatten().for_each(|dimension| dimension.dim_param.clear());
        edits.declare(Declarations { inputs, outputs });
    }
    renamed
}

/// The axes of a tensor; `None` for a value that is no tensor, or one of an unknown rank.
fn dimensions(info: &mut ValueInfoProto) -> Option<&mut Vec<Dimension>> {
    Some(&mut info.r#type.as_mut()?.tensor_type.as_mut()?.shape.as_mut()?.dim)
}
