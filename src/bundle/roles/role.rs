//! The columns of the role table.

use std::collections::BTreeMap;

use super::table::Role;
use crate::bundle::component::ComponentKind;
use crate::tensor::{Dim, TensorInfo};

/// A row of the table: everything about a role but the values that fill it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoleRow {
    pub role: Role,
    /// The word for it in `[model.NAME] inputs`.
    pub word: &'static str,
    /// The names that exporters give such an input, the usual one first; the word is one of them.
    pub names: &'static [&'static str],
    /// The description that `ldm-ort inspect` prints.
    pub description: &'static str,
    /// The graphs whose inputs may be given the role by its word.
    pub graphs: &'static [ComponentKind],
    pub elements: ElementTypes,
    pub axes: &'static [InputAxis],
    /// The axes beside a packed sample, if they are others.
    pub packed_axes: &'static [InputAxis],
    /// The number of leading axes that a graph may leave out.
    pub optional_axes: usize,
    /// The role without which this one is not filled.
    pub needs: Option<Role>,
    /// Recognizes an input by its shape if no name does; `None` if names alone do.
    pub by_shape: Option<ByShape>,
    /// True if the value is the same for all rows of a batch; else the input has a row for each image in each branch of
    /// the guidance.
    pub is_shared: bool,
    pub filler: Filler,
    /// The constant that fills the input if the task and the conditions have no value for it; `None` if it is required.
    pub default: Option<f32>,
    /// The hint of the error about an input that has one of the names, but not the form.
    pub hint: Option<&'static str>,
}

/// Recognizes the input of a role among those that have its form; receives the roles found so far.
pub(super) type ByShape = fn(&TensorInfo, &BTreeMap<Role, TensorInfo>) -> bool;

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

impl RoleRow {
    /// The axes of the input, the leading optional ones included.
    pub fn axes(&self, is_packed: bool) -> &'static [InputAxis] {
        if is_packed && !self.packed_axes.is_empty() { self.packed_axes } else { self.axes }
    }

    /// True if an input has the form of this role.
    pub fn fits(&self, info: &TensorInfo, is_packed: bool) -> bool {
        let axes = self.axes(is_packed);
        let ranks = axes.len() - self.optional_axes..=axes.len();
        let fits_axis = |(axis, dim): (&InputAxis, &Dim)| match axis {
            InputAxis::Values(length) => dim.fixed().is_none_or(|fixed| fixed == *length),
            _ => true,
        };
        self.elements.hold(info)
            && ranks.contains(&info.shape.len())
            && axes.iter().rev().zip(info.shape.iter().rev()).all(fits_axis)
    }

    /// The meaning of each axis of an input of this role, as many as it has.
    pub fn axes_of(&self, info: &TensorInfo, is_packed: bool) -> &'static [InputAxis] {
        let axes = self.axes(is_packed);
        axes.get(axes.len().saturating_sub(info.shape.len())..).unwrap_or_default()
    }

    /// The form for error messages, such as `float, [n, c, h, w]`.
    pub fn form(&self, is_packed: bool) -> String {
        let axes = self.axes(is_packed);
        let full: Vec<String> = axes.iter().map(ToString::to_string).collect();
        let shape = match (self.optional_axes, axes) {
            (0, _) => format!("[{}]", full.join(", ")),
            (_, [InputAxis::Rows]) => "[], [1] or [n]".to_owned(),
            (optional, _) => format!("[{}] or [{}]", full[optional..].join(", "), full.join(", ")),
        };
        format!("{}, {shape}", self.elements.describe())
    }
}

impl ElementTypes {
    fn hold(self, info: &TensorInfo) -> bool {
        let dtype = info.dtype;
        match self {
            Self::Float => dtype.is_float(),
            Self::Integer => dtype.is_integer(),
            Self::Number => dtype.is_float() || dtype.is_integer(),
            Self::NumberOrBool => dtype.is_float() || dtype.is_integer() || dtype == crate::tensor::DType::Bool,
        }
    }

    fn describe(self) -> &'static str {
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

impl Role {
    /// The word for it in `[model.NAME] inputs`.
    pub fn word(self) -> &'static str {
        self.row().word
    }

    /// The names by which its input is recognized, the usual one first.
    pub fn names(self) -> &'static [&'static str] {
        self.row().names
    }

    /// The description that `ldm-ort inspect` prints.
    pub fn description(self) -> &'static str {
        self.row().description
    }
}

/// The length of an axis, if the graph fixes it.
pub(super) fn axis_length(info: &TensorInfo, axis: usize) -> Option<usize> {
    info.shape.get(axis).and_then(Dim::fixed)
}
