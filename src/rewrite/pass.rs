//! The kinds of rewrites.

use crate::kernels::OperandType;

/// A kind of rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// Decomposed attention, fused into one `com.microsoft.MultiHeadAttention`.
    Attention,
    /// Nearest-neighbor upsampling by two followed by a convolution, as four smaller convolutions of the small image
    /// with interleaved results.
    Subpixel,
    /// 3×3 convolutions of many channels by minimal filtering, with a quarter of the multiplications. Runs after
    /// [`Pass::Subpixel`], which saves as many where it applies.
    ///
    /// Exact except for rounding, which is about five times that of a plain convolution.
    Winograd,
    /// Gated feed-forward layers with separate products for the two halves; with many tokens, some hundreds of tokens
    /// at a time.
    FeedForward,
    /// Operators of [`kernels`](crate::kernels) with operands of this type. Runs after the graph is folded, and takes the
    /// place of ONNX Runtime's further optimizations.
    Operators(OperandType),
    /// Dynamic activation shapes after optimization, so that ONNX Runtime frees memory: about half of an evaluation's
    /// activations, for up to a few percent of its time.
    DynamicShapes,
    /// Adds the tensor that a UNet's deep layers pass to its shallow ones at the branch of this number ([`branches`](super::branches))
    /// as an output.
    DeepOutput(usize),
    /// Keeps only a UNet's shallow layers: that tensor is an input, and everything needed only to compute it is
    /// removed.
    Shallow(usize),
}

impl Pass {
    /// Returns true if the pass changes the graph's inputs or outputs.
    pub fn cuts(self) -> bool {
        matches!(self, Self::DeepOutput(_) | Self::Shallow(_))
    }

    /// Returns the type of the operands of our own operators, if it puts those in.
    pub(crate) fn operands(self) -> Option<OperandType> {
        if let Self::Operators(operands) = self { Some(operands) } else { None }
    }

    /// Returns the branch at which only the shallow layers remain.
    pub(crate) fn shallow_branch(self) -> Option<usize> {
        if let Self::Shallow(branch) = self { Some(branch) } else { None }
    }
}
