//! Exact rewrites of a graph into a faster one: the same function in fewer or better operators.
//!
//! A rewrite checks a graph's computation, never its node names, and skips everything that it does not understand in
//! full. Shapes come from `facts`, which tracks dynamic lengths through the graph's own shape arithmetic as
//! polynomials. So exports with static and with dynamic shapes, of the older and of the newer exporter, look alike.
//!
//! A cut ([`branches`]) is different: it removes a part of a graph, or exposes an inner tensor.

mod angles;
mod attention;
mod axis_names;
mod channel_padding;
mod convolution;
mod cut;
mod dynamic_shapes;
pub(crate) mod edits;
mod facts;
mod feed_forward;
mod float32;
mod footprint;
pub(crate) mod indexed_graph;
mod length;
mod mask_bias;
mod node_order;
pub(crate) mod numbers;
mod operators;
mod pass;
mod subpixel;
mod versions;
mod winograd;

use edits::Edits;
pub(crate) use facts::TensorFacts;
use indexed_graph::IndexedGraph;

pub use axis_names::axis_name;
pub use cut::{SkipBranch, branches};
pub(crate) use dynamic_shapes::make_shapes_dynamic;
pub(crate) use float32::can_widen;
pub use footprint::{Footprint, footprint};
pub(crate) use node_order::hoist_dequantization;
pub use operators::{Coverage, WithOperators, with_operators};
pub use pass::{OperatorChoice, Pass};
use versions::is_known;

use crate::bundle::GraphFile;
use crate::error::Result;

/// A rewritten graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewritten {
    /// The new .onnx file. External tensors stay in the old files: give ONNX Runtime the old file's folder as
    /// `session.model_external_initializers_file_folder_path`.
    pub bytes: Vec<u8>,
    /// The number of places that each pass rewrote, including zero.
    pub report: Vec<(Pass, usize)>,
}

/// Rewrites a graph with each of `passes`; `None` if no pass applies. `axes` are lengths of the file's dynamic axes, by
/// name; they complete the declared shapes of a cut's inputs and outputs, determine the number of tokens, and keep their names.
///
/// External weights are read only if a pass computes new ones from them; the new ones are in `bytes`.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if a file cannot be read; [`Error::Model`](crate::Error::Model) if it changed since
/// `graph` was opened, if the new file would exceed 2 GiB, or if it cannot be cut there.
pub fn rewrite(graph: &GraphFile, passes: &[Pass], axes: &[(String, usize)]) -> Result<Option<Rewritten>> {
    let unknown = || match passes.iter().find(|pass| pass.cuts()) {
        Some(Pass::DeepOutput(branch) | Pass::Shallow(branch)) => Err(cut::no_such_branch(graph, *branch, 0)),
        _ => Ok(None),
    };
    if !is_known(graph) && !passes.contains(&Pass::Float32) {
        return unknown();
    }
    let (source, widened) = float32::open(graph, passes)?;
    if !source.is_sorted {
        return unknown();
    }
    let facts = TensorFacts::infer(&source);
    let mut edits = Edits::default();
    let mut report = Vec::with_capacity(passes.len());
    for &pass in passes {
        let sites = match pass {
            // Run after the graph is optimized.
            Pass::DynamicShapes | Pass::Operators(_) => 0,
            Pass::Attention | Pass::MaskedAttention => {
                let facts = TensorFacts::infer_with_axes(&source, axes);
                attention::rewrite(&source, &facts, pass == Pass::MaskedAttention, &mut edits)
            }
            Pass::Subpixel => subpixel::rewrite(&source, &facts, &mut edits),
            Pass::Winograd => winograd::rewrite(&source, &facts, &mut edits),
            // Done before all others.
            Pass::Float32 => widened,
            Pass::AxisNames => axis_names::rewrite(&source, axes, &mut edits),
            Pass::Angles => angles::rewrite(&source, &facts, &mut edits),
            Pass::MaskBias => mask_bias::rewrite(&source, &facts, &mut edits),
            Pass::ChannelPadding => channel_padding::rewrite(&source, &facts, &mut edits),
            Pass::FeedForward => {
                feed_forward::rewrite(&source, &TensorFacts::infer_with_axes(&source, axes), &mut edits)
            }
            Pass::DeepOutput(_) | Pass::Shallow(_) => cut::rewrite(&source, pass, axes, &mut edits).map(|()| 1)?,
        };
        report.push((pass, sites));
    }
    if edits.is_empty() && widened == 0 {
        return Ok(None);
    }
    Ok(Some(Rewritten { bytes: edits.write(&source)?, report }))
}

/// Returns the shape of a graph's output if its dynamic axes have the lengths `axes`, by name; `None` for a length that
/// is unknown without running the graph, and for an unknown shape.
///
/// # Errors
/// As [`rewrite`].
pub fn output_shape(graph: &GraphFile, name: &str, axes: &[(String, usize)]) -> Result<Option<Vec<Option<usize>>>> {
    let source = IndexedGraph::open(graph)?;
    if !source.is_sorted || !is_known(graph) {
        return Ok(None);
    }
    let facts = TensorFacts::infer_with_axes(&source, axes);
    let number = |length: &length::Length| length.number().and_then(|number| usize::try_from(number).ok());
    Ok(facts.shape(name).map(|shape| shape.iter().map(number).collect()))
}
