//! The operators under the names that graphs have for them.
//!
//! | operator | inputs | attributes | output |
//! |---|---|---|---|
//! | `Product` | left `[batch, …, depth]`, packed weights, bias, added `[batch, columns]`, gate `[batch, columns]`, residual | `columns`, `kernel`, `stride`, `offset`, `upsample`, `tile`, `pixels`, `activation`, `gated` | `[batch, …, columns]` |
//! | `Int8Product` | the same, with weights in int8 | `columns`, `activation`, `gated` | the same |
//! | `GroupNorm` | image, image or nothing, scale, shift | `groups`, `epsilon`, `activation`, `border` | the image |
//! | `RowNorm` | rows `[batch, …, width]`, scale, shift | `epsilon`, `centers` | as the rows |
//! | `HeadNorm` | rows `[batch, rows, heads, width]`, more rows or nothing, the scale of each, cosines, sines | `normalizes`, `epsilon`, `pairs`, `by_pair` | `[batch, rows of both, heads · width]` |
//! | `Attention` | queries, keys, values `[batch, rows, heads · width]`, mask `[batch or 1, heads or 1, 1, keys]` | `heads`, `scale` | as the queries |
//! | `Operand` | rows or an image | `border`, `width` | the same in the operands' type |
//!
//! The types in a name are those of what is multiplied, or normalized by groups, and of the output; all else is float32.
//! Images are `[batch, height, width, channels]`. A `Product` whose `kernel` is 3 reads an image with a border of one pixel;
//! `offset` is the first pixel of the first window, `upsample` doubles the image before, `tile` is the side of the tiles of
//! [minimal filtering](super::Filtering), or 0; `pixels` are those side by side that
//! [`ImageConvolution`](super::ImageConvolution) computes as columns of one panel. `gated` products have half of
//! their columns. `width` of an `Operand` pads the last axis with zeros.

use super::functions::Activation;

/// The operators' domain.
pub const DOMAIN: &str = "ldm_ort";

/// A type of operands, as it is in the name of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperandType {
    /// `float32`
    Float32,
    /// `bf16`
    Bf16,
}

impl OperandType {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bf16 => "bf16",
        }
    }
}

/// An operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnOperator {
    /// A matrix product or a convolution.
    Product,
    /// A matrix product in int8.
    Int8Product,
    /// Group normalization.
    GroupNorm,
    /// Normalization of rows.
    RowNorm,
    /// Normalization of heads and rotary embedding.
    HeadNorm,
    /// Attention.
    Attention,
    /// Rounding to the operands' type.
    Operand,
}

impl OwnOperator {
    /// Its name for operands and results of these types. ONNX Runtime chooses among operators of one name by their types
    /// only where the types are those of one pattern, which these are not.
    pub fn name(self, operands: OperandType, results: OperandType) -> String {
        let operator = match self {
            Self::Product => "Product",
            Self::Int8Product => "Int8Product",
            Self::GroupNorm => "GroupNorm",
            Self::RowNorm => "RowNorm",
            Self::HeadNorm => "HeadNorm",
            Self::Attention => "Attention",
            Self::Operand => "Operand",
        };
        format!("{operator}_{}_{}", operands.name(), results.name())
    }
}

impl Activation {
    /// Its name in an attribute.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::QuickGelu => "quick_gelu",
        }
    }

    /// The activation of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Identity, Self::Silu, Self::Gelu, Self::GeluTanh, Self::QuickGelu].into_iter().find(|a| a.name() == name)
    }
}
