//! The inputs and outputs of a model, and their types in Triton.

use std::ffi::CStr;

/// The content of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A JSON request.
    Request,
    /// A text; several of them are a list.
    Text,
    /// A text.
    Name,
    Integer,
    Number,
    /// One or several numbers.
    Numbers,
    /// An encoded image, or RGB or grey pixels.
    Image(&'static CStr),
}

/// An input of a model.
pub(crate) struct Input {
    pub name: &'static str,
    pub content: Content,
    /// The flat field of the request.
    pub field: &'static str,
    /// True if only a decoupled model has it.
    pub is_decoupled: bool,
}

const fn input(name: &'static str, content: Content, field: &'static str) -> Input {
    Input { name, content, field, is_decoupled: false }
}

/// All inputs.
pub(crate) const INPUTS: &[Input] = &[
    input("REQUEST", Content::Request, ""),
    input("PROMPT", Content::Text, "prompt"),
    input("NEGATIVE_PROMPT", Content::Text, "negative_prompt"),
    input("SEED", Content::Integer, "seed"),
    input("STEPS", Content::Integer, "steps"),
    input("GUIDANCE_SCALE", Content::Number, "guidance_scale"),
    input("WIDTH", Content::Integer, "width"),
    input("HEIGHT", Content::Integer, "height"),
    input("IMAGES", Content::Integer, "images"),
    input("SCHEDULER", Content::Name, "scheduler"),
    input("STRENGTH", Content::Number, "strength"),
    input("LORAS", Content::Numbers, "loras"),
    input("IMAGE", Content::Image(c"image"), "image"),
    input("MASK", Content::Image(c"mask"), "mask"),
    input("CONTROL_IMAGE", Content::Image(c"control.0.image"), "control"),
    Input { name: "PREVIEW", content: Content::Integer, field: "preview", is_decoupled: true },
];

const INTEGERS: &[&str] = &["INT32", "INT64", "UINT64", "UINT32", "UINT16", "UINT8", "INT16", "INT8"];
const NUMBERS: &[&str] = &["FP32", "FP64", "INT32", "INT64", "UINT64", "UINT32", "UINT16", "UINT8", "INT16", "INT8"];

impl Input {
    /// Finds an input.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        INPUTS.iter().find(|input| input.name == name)
    }

    /// The data types that a configuration may give it, the usual one first.
    pub(crate) fn types(&self) -> &'static [&'static str] {
        match (self.content, self.name) {
            (Content::Request | Content::Text | Content::Name, _) => &["STRING"],
            (Content::Integer, "SEED") => &["UINT64", "INT64", "UINT32", "INT32"],
            (Content::Integer, _) => INTEGERS,
            (Content::Number | Content::Numbers, _) => NUMBERS,
            (Content::Image(_), _) => &["STRING", "UINT8"],
        }
    }

    /// The dimensions that a completed configuration gives it.
    pub(crate) fn dimensions(&self, is_batched: bool) -> i64 {
        match self.content {
            Content::Text if !is_batched => -1,
            Content::Numbers => -1,
            _ => 1,
        }
    }
}

/// An output of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// RGB pixels.
    Image,
    /// An encoded image with its record.
    Encoded,
    /// The seed of the image.
    Seed,
    /// The record of how the image was made, as JSON.
    Record,
    /// The event of a response of a decoupled model, as JSON.
    Event,
}

/// All outputs.
pub(crate) const OUTPUTS: &[Output] = &[Output::Image, Output::Encoded, Output::Seed, Output::Record, Output::Event];

impl Output {
    pub(crate) fn find(name: &str) -> Option<Self> {
        OUTPUTS.iter().copied().find(|output| output.name().to_str() == Ok(name))
    }

    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Self::Image => c"IMAGE",
            Self::Encoded => c"ENCODED",
            Self::Seed => c"SEED",
            Self::Record => c"RECORD",
            Self::Event => c"EVENT",
        }
    }

    /// Its data type in a configuration.
    pub(crate) fn data_type(self) -> &'static str {
        match self {
            Self::Image => "UINT8",
            Self::Seed => "UINT64",
            Self::Encoded | Self::Record | Self::Event => "STRING",
        }
    }

    /// True if only a decoupled model has it.
    pub(crate) fn is_decoupled(self) -> bool {
        self == Self::Event
    }

    /// The dimensions that a completed configuration gives it.
    pub(crate) fn dimensions(self, is_batched: bool, is_decoupled: bool) -> &'static [i64] {
        match self {
            Self::Image => &[-1, -1, 3],
            _ if is_batched || is_decoupled => &[1],
            _ => &[-1],
        }
    }
}
