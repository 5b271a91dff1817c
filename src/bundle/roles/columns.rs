//! The values in the columns of the role table.

use crate::tensor::TensorInfo;

/// The element types that a role's input may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementTypes {
    Float,
    Integer,
    Number,
    NumberOrBool,
}

/// The meaning of an axis, for which a request has a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputAxis {
    /// A row for each image in each branch of the guidance.
    Rows,
    Channels,
    /// Height in latents.
    Height,
    /// Width in latents.
    Width,
    PixelHeight,
    PixelWidth,
    /// Tokens attended to, or of a text encoder.
    Tokens,
    /// Tokens of a packed sample.
    ImageTokens,
    /// Values of a vector.
    Features,
    /// This many values.
    Values(usize),
}

/// The part of the engine that gives the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filler {
    /// The denoising loop.
    Loop,
    /// The prompt, the class embedder or a `[[condition]]`.
    Tokens,
    /// The prompt.
    Prompt,
    /// The size of the image, or sizes that the task states beside its prompt.
    Size,
    /// The guidance scale of a task with a prompt.
    GuidanceScale,
    /// The class, or the noise level.
    Class,
    /// A `[[control]]` table.
    Control,
    Tokenizer,
    Vae,
}

impl ElementTypes {
    pub(super) fn hold(self, info: &TensorInfo) -> bool {
        let dtype = info.dtype;
        match self {
            Self::Float => dtype.is_float(),
            Self::Integer => dtype.is_integer(),
            Self::Number => dtype.is_float() || dtype.is_integer(),
            Self::NumberOrBool => dtype.is_float() || dtype.is_integer() || dtype == crate::tensor::DType::Bool,
        }
    }

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Integer => "int32 or int64",
            Self::Number => "a number",
            Self::NumberOrBool => "a number or a bool",
        }
    }
}

impl std::fmt::Display for InputAxis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rows => "n",
            Self::Channels => "c",
            Self::Height => "h",
            Self::Width => "w",
            Self::PixelHeight => "h · f",
            Self::PixelWidth => "w · f",
            Self::Tokens | Self::ImageTokens => "tokens",
            Self::Features => "width",
            Self::Values(length) => return write!(f, "{length}"),
        })
    }
}
