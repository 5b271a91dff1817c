//! The kinds of rewrites.

use crate::bundle::GraphFile;

/// A kind of rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// Attention written out as products and a softmax, as one `com.microsoft.MultiHeadAttention`.
    Attention,
    /// An image enlarged twofold by repeating its pixels and then convolved, as four smaller convolutions of the
    /// small image whose results are interleaved.
    Subpixel,
    /// Convolutions of 3×3 of many channels by minimal filtering, a quarter of the products. Comes behind
    /// [`Pass::Subpixel`], which cuts as many of those that it understands.
    ///
    /// Exact but for rounding, of which there is some five times as much as in a plain convolution.
    Winograd,
    /// Gated feed-forward layers as two products where one was cut apart, and where there are many tokens some hundreds of
    /// them at a time.
    FeedForward,
    /// Shapes of activations left open once the graph is optimized, so that ONNX Runtime gives memory back: about half of what
    /// an evaluation holds of its own, for up to a few hundredths of its time.
    DynamicShapes,
    /// The tensor that the deep layers of a UNet give to the shallow ones at the branch of this number ([`branches`](super::branches)) is an
    /// output too.
    HandOut(usize),
    /// The shallow layers of a UNet alone: that tensor is an input, and all that only its making needed is gone.
    Shallow(usize),
}

impl Pass {
    /// Whether the graph has other inputs or outputs for it.
    pub fn cuts(self) -> bool {
        matches!(self, Self::HandOut(_) | Self::Shallow(_))
    }

    /// The branch at which the shallow layers are left alone.
    pub(crate) fn outer_branch(self) -> Option<usize> {
        if let Self::Shallow(branch) = self { Some(branch) } else { None }
    }
}

/// Whether a graph is of a version that the passes know.
pub(super) fn is_known(graph: &GraphFile) -> bool {
    /// Since this version of the format a stored tensor need not be an input too.
    const STORED_APART: i64 = 4;
    /// Since this version of ONNX's operators `Resize` and its kin are what the passes know.
    const OPERATORS: i64 = 11;
    graph.ir_version >= STORED_APART && graph.opsets.get("").is_some_and(|&version| version >= OPERATORS)
}
