//! The kinds of rewrites.

use half::bf16;

use crate::kernels::{Filtering, OperandType, PanelShape};

/// The settings of operators of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperatorChoice {
    /// The type of what products multiply.
    pub operands: OperandType,
    /// True if linear layers multiply int8 instead.
    pub linear_in_int8: bool,
    /// The tiles of 3×3 convolutions by minimal filtering; `None` for none. Those of few channels or pixels take smaller tiles
    /// or none.
    pub filtering: Option<Filtering>,
    /// The same for those of up to 256 channels, with which a VAE begins and ends.
    pub narrow_filtering: Option<Filtering>,
}

impl OperatorChoice {
    /// The name of [`OperatorChoice::precision`] in which all products multiply float32.
    pub const FLOAT32: &str = "float32";

    /// The name of the lowest precision of a product.
    pub fn precision(self) -> &'static str {
        match self.operands {
            _ if self.linear_in_int8 => "int8",
            OperandType::Bf16 => "bf16",
            OperandType::Float32 => Self::FLOAT32,
        }
    }

    /// The type in which a product multiplies of which columns or depth are `narrow`, the fewer of both. Products of very few
    /// channels, which are the first and the last of a model, stay in float32: there is little to gain, and their rounding
    /// is in every number of the result.
    pub(crate) fn operands_of(self, narrow: usize) -> OperandType {
        const FEW: usize = 32;
        if narrow < FEW { OperandType::Float32 } else { self.operands }
    }

    /// True if such a linear layer multiplies int8. The first and the last of a transformer have 64 channels of latents.
    pub(crate) fn is_int8(self, narrow: usize) -> bool {
        const FEW: usize = 96;
        self.linear_in_int8 && narrow >= FEW
    }

    /// The bytes of the packed weights of a product.
    pub(crate) fn packed_bytes(self, weights: PanelShape, is_linear: bool) -> u64 {
        let narrow = weights.columns.min(weights.depth);
        let bytes = match self.operands_of(narrow) {
            _ if is_linear && self.is_int8(narrow) => weights.packed_len::<u8>(),
            OperandType::Bf16 => 2 * weights.packed_len::<bf16>(),
            OperandType::Float32 => 4 * weights.packed_len::<f32>(),
        };
        bytes as u64
    }

    /// The bytes of the left operand of a linear layer, if it is converted for the product.
    pub(crate) fn converted_bytes(self, rows: usize, weights: PanelShape) -> u64 {
        let is_converted = self.is_int8(weights.columns.min(weights.depth));
        if is_converted { rows.saturating_mul(weights.padded_depth::<u8>()) as u64 } else { 0 }
    }

    /// Operators that filter all convolutions alike.
    pub fn new(operands: OperandType, filtering: Option<Filtering>) -> Self {
        Self { operands, linear_in_int8: false, filtering, narrow_filtering: filtering }
    }

    /// The tiles of a 3×3 convolution with windows side by side, of which the result has `pixels` in all images.
    ///
    /// Weights are transformed as the convolution runs, which pays from some tiles on, and more weights from more of them;
    /// with few channels the transforms of windows take longer than the products.
    pub(crate) fn filtering_of(
        self,
        columns: usize,
        depth: usize,
        pixels: usize,
        upsamples: bool,
    ) -> Option<Filtering> {
        const FEW_CHANNELS: usize = 32;
        const NARROW: usize = 256;
        /// Pixels of all images.
        const FEW_PIXELS: usize = 64;
        const MANY_PIXELS: usize = 256;
        let is_few = columns.min(depth) < FEW_CHANNELS || pixels < FEW_PIXELS;
        let filtering = if columns <= NARROW { self.narrow_filtering } else { self.filtering };
        let largest = filtering.filter(|_| !is_few)?;
        match upsamples {
            // As many products as with large tiles.
            true => (pixels >= MANY_PIXELS).then_some(Filtering::Doubled),
            false => Some(if pixels < MANY_PIXELS { Filtering::Two } else { largest }),
        }
    }
}

/// A kind of rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// Decomposed attention, fused into one `com.microsoft.MultiHeadAttention`.
    Attention,
    /// The same, and attention with a mask of keys, for operators of our own.
    MaskedAttention,
    /// Nearest-neighbor upsampling by two followed by a convolution, as four smaller convolutions of the small image
    /// with interleaved results.
    Subpixel,
    /// 3×3 convolutions of many channels by minimal filtering, with a quarter of the multiplications. Runs after
    /// [`Pass::Subpixel`], which saves as many where it applies.
    ///
    /// Exact except for rounding, which is three to five times that of a plain convolution.
    Winograd,
    /// Gated feed-forward layers with separate products for the two halves; with many tokens, some hundreds of tokens
    /// at a time.
    FeedForward,
    /// Convolutions that ONNX Runtime's WebGPU provider computes wrongly, with their input channels padded with zeros
    /// (docs/known-issues.md).
    ChannelPadding,
    /// Attention masks in a form that OpenVINO does not merge with what is added to them (docs/known-issues.md).
    MaskBias,
    /// Sines and cosines of float64 angles in float32 (docs/known-issues.md).
    Angles,
    /// Free axes with names of their own, so that no two of different lengths have one name (docs/known-issues.md).
    AxisNames,
    /// Arithmetic, inputs and outputs of a graph in half precision or bfloat16 in float32, with the same weights: for VAEs whose
    /// activations leave the range of half precision, and providers without operators in that type. Runs before all others.
    Float32,
    /// Operators of [`kernels`](crate::kernels). Runs after the graph is folded, and takes the place of ONNX Runtime's
    /// further optimizations.
    Operators(OperatorChoice),
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

    /// Returns true if a graph needs the pass to run at all, and not only to run faster: it is done without the graph cache
    /// too.
    pub fn is_required(self) -> bool {
        let is_cure = matches!(self, Self::ChannelPadding | Self::MaskBias | Self::Angles | Self::AxisNames);
        self.cuts() || is_cure || self == Self::Float32
    }

    /// Returns true for a form of convolutions or feed-forward layers that operators of our own have their own ways for.
    pub(crate) fn is_instead_of_operators(self) -> bool {
        matches!(self, Self::Subpixel | Self::Winograd | Self::FeedForward)
    }

    /// Returns how operators of our own compute, if it puts those in.
    pub(crate) fn operators(self) -> Option<OperatorChoice> {
        if let Self::Operators(choice) = self { Some(choice) } else { None }
    }

    /// Returns true for operators of our own whose products multiply something else than float32.
    pub(crate) fn narrows(self) -> bool {
        self.operators().is_some_and(|choice| choice.precision() != OperatorChoice::FLOAT32)
    }

    /// Returns the branch at which only the shallow layers remain.
    pub(crate) fn shallow_branch(self) -> Option<usize> {
        if let Self::Shallow(branch) = self { Some(branch) } else { None }
    }
}
