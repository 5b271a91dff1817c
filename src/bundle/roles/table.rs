//! The table of input roles: one row each, and nothing about a role anywhere else but in what fills it.

use std::collections::BTreeMap;

use super::columns::{ElementTypes, Filler, InputAxis};
use super::tensor_forms::axis_length;
use crate::bundle::component::ComponentKind;
use crate::bundle::component::ComponentKind::{
    ControlNet, TextEncoder, TextEncoder2, TextEncoder3, TinyVaeDecoder, Transformer, Unet, VaeDecoder, VaeEncoder,
    VqDecoder, VqEncoder,
};
use crate::tensor::{DType, Dim, TensorInfo};
use InputAxis::{Channels, Features, Height, ImageTokens, PixelHeight, PixelWidth, Rows, Tokens, Values, Width};

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
type ByShape = fn(&TensorInfo, &BTreeMap<Role, TensorInfo>) -> bool;

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

/// The values of the columns that a row leaves out.
const ROW: RoleRow = RoleRow {
    role: Role::Sample,
    word: "",
    names: &[],
    description: "",
    graphs: &[],
    elements: ElementTypes::Float,
    axes: &[],
    packed_axes: &[],
    optional_axes: 0,
    needs: None,
    by_shape: None,
    is_shared: false,
    filler: Filler::Loop,
    default: None,
    hint: None,
};

/// Declares [`Role`] and its table from the rows: a variant with its documentation, and the columns that differ from
/// [`ROW`].
macro_rules! roles {
    ($($(#[doc = $doc:literal])+ $role:ident { $($column:ident: $value:expr),+ $(,)? })+) => {
        /// The role of an input in a graph.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Role {
            $($(#[doc = $doc])+ $role,)+
        }

        impl Role {
            /// All roles, in the order in which inputs are looked for.
            pub const ALL: &'static [Self] = &[$(Self::$role),+];

            /// The role's row.
            pub(crate) fn row(self) -> &'static RoleRow {
                match self {
                    $(Self::$role => const { &RoleRow { role: Self::$role, $($column: $value,)+ ..ROW } },)+
                }
            }
        }
    };
}

roles! {
    /// The positions of a packed sample's tokens (Flux), `[h/2 · w/2, 3]` or `[n, h/2 · w/2, 3]`: a number for the image,
    /// then row and column.
    ImagePositions {
        word: "img_ids",
        names: &["img_ids"],
        description: "positions in the image",
        graphs: &[Transformer],
        elements: ElementTypes::Number,
        axes: &[Rows, ImageTokens, Values(3)],
        optional_axes: 1,
        needs: Some(Role::TextPositions),
        is_shared: true,
        hint: Some(POSITIONS_HINT),
    }
    /// The positions of the tokens attended to beside a packed sample, `[tokens, 3]` or `[n, tokens, 3]`: all of them zero.
    TextPositions {
        word: "txt_ids",
        names: &["txt_ids"],
        description: "positions in the text",
        graphs: &[Transformer],
        elements: ElementTypes::Number,
        axes: &[Rows, Tokens, Values(3)],
        optional_axes: 1,
        needs: Some(Role::ImagePositions),
        is_shared: true,
        hint: Some(POSITIONS_HINT),
    }
    /// The noisy latents, `[n, c, h, w]`; with positions packed, `[n, h/2 · w/2, 4 c]`.
    Sample {
        word: "sample",
        names: &["sample", "latent_model_input", "latent", "hidden_states", "x"],
        description: "sample",
        graphs: &[Unet, Transformer, ControlNet],
        axes: &[Rows, Channels, Height, Width],
        packed_axes: &[Rows, ImageTokens, Features],
        by_shape: Some(ANY),
    }
    /// The timestep: a scalar, `[1]` or `[n]`; integer or float.
    Timestep {
        word: "timestep",
        names: &["timestep", "timesteps", "time", "t", "sigma", "timestep_ratio"],
        description: "timestep",
        graphs: &[Unet, Transformer, ControlNet],
        elements: ElementTypes::Number,
        axes: &[Rows],
        optional_axes: 1,
        by_shape: Some(ANY),
        is_shared: true,
    }
    /// The tokens attended to (cross-attention conditioning), `[n, tokens, width]`.
    Context {
        word: "context",
        names: &["encoder_hidden_states", "context", "text_embeddings", "c_crossattn"],
        description: "context",
        graphs: &[Unet, Transformer, ControlNet],
        axes: &[Rows, Tokens, Features],
        by_shape: Some(ANY),
        filler: Filler::Tokens,
    }
    /// 1 for each token attended to and 0 for each that is padding, `[n, tokens]`.
    ContextMask {
        word: "context_mask",
        names: &["encoder_attention_mask", "context_mask", "prompt_attention_mask"],
        description: "mask over the context",
        graphs: &[Transformer],
        elements: ElementTypes::NumberOrBool,
        axes: &[Rows, Tokens],
        by_shape: Some(is_mask_of_context),
        filler: Filler::Prompt,
        hint: Some(
            "the mask over the text's tokens is filled in as PixArt takes it: a number or a bool for each token, [n, tokens]; \
             scripts/export.py exports it so",
        ),
    }
    /// Height and width of the image in pixels, `[n, 2]`.
    Resolution {
        word: "resolution",
        names: &["resolution"],
        description: "height and width",
        graphs: &[Transformer],
        axes: &[Rows, Values(2)],
        by_shape: Some(|info, found| found.contains_key(&Role::ContextMask) && axis_length(info, 1) == Some(2)),
        filler: Filler::Size,
    }
    /// The image's height by its width, `[n, 1]`.
    AspectRatio {
        word: "aspect_ratio",
        names: &["aspect_ratio"],
        description: "height by width",
        graphs: &[Transformer],
        axes: &[Rows, Values(1)],
        by_shape: Some(|info, found| found.contains_key(&Role::ContextMask) && axis_length(info, 1) == Some(1)),
        filler: Filler::Size,
    }
    /// The pooled embeddings of the prompt, `[n, width]`.
    TextEmbeds {
        word: "text_embeds",
        names: &["text_embeds", "pooled_projections", "add_text_embeds", "y"],
        description: "pooled text",
        graphs: &[Unet, Transformer, ControlNet],
        axes: &[Rows, Features],
        by_shape: Some(|info, found| {
            info.name.starts_with("onnx::") && (found.contains_key(&Role::TimeIds) || !has_sizes(info, found))
        }),
        filler: Filler::Prompt,
    }
    /// Sizes and crop, `[n, 6]`, or with an aesthetic score `[n, 5]`.
    TimeIds {
        word: "time_ids",
        names: &["time_ids", "add_time_ids"],
        description: "sizes and crop",
        graphs: &[Unet, ControlNet],
        elements: ElementTypes::Number,
        axes: &[Rows, Features],
        by_shape: Some(has_sizes),
        filler: Filler::Size,
    }
    /// The embedded guidance scale, `[n, width]`.
    TimestepCond {
        word: "timestep_cond",
        names: &["timestep_cond"],
        description: "embedded guidance scale",
        graphs: &[Unet],
        axes: &[Rows, Features],
        filler: Filler::GuidanceScale,
    }
    /// The guidance scale as a number, `[n]`.
    Guidance {
        word: "guidance",
        names: &["guidance"],
        description: "guidance scale",
        graphs: &[Transformer],
        axes: &[Rows],
        optional_axes: 1,
        filler: Filler::GuidanceScale,
    }
    /// Classes or the noise level, `[n]`, whole numbers.
    ClassLabels {
        word: "class_labels",
        names: &["class_labels", "class_label", "class_ids", "noise_level"],
        description: "class labels",
        graphs: &[Unet],
        elements: ElementTypes::Number,
        axes: &[Rows],
        optional_axes: 1,
        by_shape: Some(|info, _| info.dtype.is_integer() && info.shape.len() == 1),
        filler: Filler::Class,
    }
    /// The image that a ControlNet follows, `[n, 3, h · f, w · f]`, in `[0, 1]`.
    Control {
        word: "control",
        names: &["controlnet_cond", "control", "hint", "image", "images"],
        description: "controlling image",
        graphs: &[ControlNet],
        axes: &[Rows, Channels, PixelHeight, PixelWidth],
        by_shape: Some(ANY),
        is_shared: true,
        filler: Filler::Control,
    }
    /// The factor of a ControlNet's residuals: a scalar or `[1]`, often double precision.
    ConditioningScale {
        word: "conditioning_scale",
        names: &["conditioning_scale", "controlnet_scale"],
        description: "control scale",
        graphs: &[ControlNet],
        axes: &[Values(1)],
        optional_axes: 1,
        is_shared: true,
        filler: Filler::Control,
    }
    /// A text encoder's token ids, `[n, tokens]`, int32 or int64.
    InputIds {
        word: "input_ids",
        names: &["input_ids", "tokens", "ids"],
        description: "token ids",
        graphs: &[TextEncoder, TextEncoder2, TextEncoder3],
        elements: ElementTypes::Integer,
        axes: &[Rows, Tokens],
        by_shape: Some(ANY),
        filler: Filler::Tokenizer,
    }
    /// A text encoder's mask: 1 for each token and 0 for each that is padding, `[n, tokens]`.
    AttentionMask {
        word: "attention_mask",
        names: &["attention_mask", "encoder_attention_mask"],
        description: "attention mask",
        graphs: &[TextEncoder, TextEncoder2, TextEncoder3],
        elements: ElementTypes::NumberOrBool,
        axes: &[Rows, Tokens],
        filler: Filler::Tokenizer,
    }
    /// A VAE encoder's image, `[n, 3, h · f, w · f]`, in `[-1, 1]`.
    Image {
        word: "sample",
        names: &["sample", "images", "image", "pixel_values", "x"],
        description: "image",
        graphs: &[VaeEncoder, VqEncoder],
        axes: &[Rows, Channels, PixelHeight, PixelWidth],
        by_shape: Some(ANY),
        filler: Filler::Vae,
    }
    /// A VAE decoder's latents, `[n, c, h, w]`.
    Latent {
        word: "latent",
        names: &["latent_sample", "latent", "latents", "sample", "z"],
        description: "latents",
        graphs: &[VaeDecoder, VqDecoder, TinyVaeDecoder],
        axes: &[Rows, Channels, Height, Width],
        by_shape: Some(ANY),
        filler: Filler::Vae,
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

const POSITIONS_HINT: &str = "position ids are run as Flux has them: img_ids and txt_ids, three numbers a token, beside a \
                              sample that is a sequence of tokens";

/// Recognizes an input by the form of its role alone.
const ANY: ByShape = |_, _| true;

/// Recognizes a mask with an integer or a bool for each token of the context.
fn is_mask_of_context(info: &TensorInfo, found: &BTreeMap<Role, TensorInfo>) -> bool {
    let tokens = found.get(&Role::Context).and_then(|context| context.shape.get(1));
    let is_named = tokens.is_some_and(|tokens| !matches!(tokens, Dim::Free(name) if name.is_empty()));
    !info.dtype.is_float() && is_named && info.shape.get(1) == tokens
}

/// Recognizes Stable Diffusion XL's five or six numbers.
fn has_sizes(info: &TensorInfo, _: &BTreeMap<Role, TensorInfo>) -> bool {
    matches!(info.shape.as_slice(), [_, Dim::Fixed(5 | 6)]) && info.dtype != DType::Bool
}

/// The table, in the order of [`Role::ALL`].
pub(super) fn rows() -> impl Iterator<Item = &'static RoleRow> {
    Role::ALL.iter().map(|role| role.row())
}

/// The words under which a pipeline file assigns roles to the inputs of a component's graph, in `[model.NAME] inputs`.
pub fn role_words(kind: ComponentKind) -> Vec<&'static str> {
    rows().filter(|row| row.graphs.contains(&kind)).map(|row| row.word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph's roles are told apart by their words and by their names.
    #[test]
    fn words_and_names_are_unique_within_a_graph() {
        for kind in ComponentKind::ALL {
            let mut seen = Vec::new();
            for row in rows().filter(|row| row.graphs.contains(&kind)) {
                assert!(row.names.contains(&row.word) && !row.description.is_empty(), "{:?}", row.role);
                for name in row.names {
                    assert!(!seen.contains(name), "{kind}: {name}");
                    seen.push(*name);
                }
            }
        }
    }

    #[test]
    fn forms_are_described_from_their_columns() {
        assert_eq!(Role::Sample.row().form(false), "float, [n, c, h, w]");
        assert_eq!(Role::Sample.row().form(true), "float, [n, tokens, width]");
        assert_eq!(Role::Timestep.row().form(false), "a number, [], [1] or [n]");
        assert_eq!(Role::Control.row().form(false), "float, [n, c, h · f, w · f]");
        assert_eq!(Role::InputIds.row().form(false), "int32 or int64, [n, tokens]");
    }
}
