//! The row of a family.

use super::class::PipelineClass;

/// A family of models: those that share the form of the denoiser, the text encoders and the VAE.
pub(crate) struct FamilyRow {
    /// Its name in pipeline.toml, such as `stable-diffusion`.
    pub name: &'static str,
    /// Its published name, such as `Stable Diffusion XL`.
    pub title: &'static str,
    /// The pipeline classes of diffusers that run its models.
    pub classes: &'static [PipelineClass],
    /// Further names of it in model_index.json, of which none is a class of diffusers.
    pub other_names: &'static [&'static str],
    /// The names of the families whose classes run its models in tasks for which it has none, in this order.
    pub kin: &'static [&'static str],
    /// False if a task has this program's own defaults unless model_index.json names one of diffusers' classes.
    pub has_class_defaults: bool,
    /// The family under whose classes its exports go, too.
    pub named_as: Option<&'static FamilyRow>,
    /// True for the signature of a model under such a class that is of this family.
    pub is_told_apart: fn(&Signature) -> bool,
    /// The classes of its denoisers in config.json.
    pub denoiser_classes: &'static [&'static str],
    /// The classes of its VAEs in config.json.
    pub vae_classes: &'static [&'static str],
    /// The `model_type`s of its text encoders in config.json.
    pub text_models: &'static [&'static str],
    /// The forms of its denoisers.
    pub forms: &'static [Form],
    /// True for the signature of a model of this family without a class.
    pub is_recognised: fn(&Signature) -> bool,
    /// The published VAE.
    pub vae: Vae,
    /// The side of the squares of latents that its transformers read as one token, if no configuration says so.
    pub patch: usize,
    /// True if its classes generate in the size that the denoiser's configuration has (`sample_size`).
    pub reads_sample_size: bool,
    /// The side that a model was trained at, in latents, with the reason; for models whose configuration has none.
    pub trained_side: fn(Training) -> (usize, &'static str),
    /// The reading of the text encoders.
    pub text: TextReading,
    /// True if its classes replace a prompt that is not given by zeros, unless model_index.json says otherwise.
    pub zeros_for_no_prompt: bool,
    /// True if model_index.json may say that the image that an instruction changes is scaled (`is_cosxl_edit`).
    pub scales_followed_image: bool,
    /// True if its models are trained to follow an image that is packed behind the sample.
    pub follows_packed_image: bool,
    /// True for models of rectified flow, which need a sampler of flows.
    pub is_flow: bool,
    /// True if its classes run a VAE in half precision in float32 where its configuration says so (`force_upcast`).
    pub upcasts_vae: bool,
    /// The published linear map from latents to colors.
    pub preview: Option<PreviewMap>,
}

/// A row of Stable Diffusion's usual values, without a name, evidence or classes.
pub(super) const BASE: FamilyRow = FamilyRow {
    name: "",
    title: "",
    classes: &[],
    other_names: &[],
    kin: &[],
    has_class_defaults: true,
    named_as: None,
    is_told_apart: |_| false,
    denoiser_classes: &[],
    vae_classes: &["AutoencoderKL", "AsymmetricAutoencoderKL", "AutoencoderTiny", "VQModel", "VQModelInterface"],
    text_models: &["clip", "clip_text_model", "t5", "bert", "ldmbert"],
    forms: &[],
    is_recognised: |_| false,
    vae: Vae { scaling_factor: 0.18215, shift_factor: 0.0, spatial_factor: 8 },
    patch: 1,
    reads_sample_size: true,
    trained_side: |_| (64, "that of the family: 64 latent values"),
    text: TextReading { form: TextForm::Last, tokens: None, instruction: &[] },
    zeros_for_no_prompt: false,
    scales_followed_image: false,
    follows_packed_image: false,
    is_flow: false,
    upcasts_vae: false,
    preview: None,
};

/// 128 latents a side, as for 1024 × 1024 pixels.
pub(super) fn side_128(_: Training) -> (usize, &'static str) {
    (128, "that of the family: 128 latent values")
}

/// The numbers of a VAE.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Vae {
    /// The factor of latents after encoding, by which they are divided before decoding.
    pub scaling_factor: f64,
    /// The number that is subtracted from latents before scaling and added back before decoding.
    pub shift_factor: f64,
    /// Pixels a side per latent, f.
    pub spatial_factor: usize,
}

/// An affine map from the channels of a latent, as the diffusion leaves it, to red, green and blue in about [-1, 1].
///
/// The numbers are those of ComfyUI's `comfy/latent_formats.py` (github.com/comfyanonymous/ComfyUI), for the same use.
pub(crate) struct PreviewMap {
    /// The VAE whose latents it maps.
    pub vae: Vae,
    /// One row a channel.
    pub factors: &'static [[f32; 3]],
    /// The color of zeros.
    pub bias: [f32; 3],
}

/// The facts of a model's training that are left if a configuration lacks `sample_size`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Training {
    /// The width of the tokens attended to, if the graph fixes it.
    pub context_width: Option<usize>,
    /// True if the model predicts v.
    pub predicts_v: bool,
}

/// The reading of a family's text encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextReading {
    /// The outputs that are read, and their joining.
    pub form: TextForm,
    /// The number of tokens that an encoder without a length of its own reads, if no pipeline class says so; `None` if the
    /// family has no such encoder.
    pub tokens: Option<usize>,
    /// The lines before every prompt but a negative one; none for most families. The denoiser reads the first state and
    /// the last ones, as many in all as without the lines.
    pub instruction: &'static [&'static str],
}

/// The outputs of text encoders that a denoiser reads, and their joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextForm {
    /// The states after the last layer.
    Last,
    /// The states before the last layer's, side by side, and the last encoder's projected vector.
    Penultimate,
    /// The same of each CLIP, the projected vectors side by side too, and behind their tokens those of T5, or zeros in its
    /// absence.
    Multimodal,
    /// The first encoder's pooled vector, and of T5 the states after the last layer.
    PooledAndT5,
    /// The states of a lone encoder after the last layer, with the mask of the tokens under which they were computed. Its
    /// prompts are read in lower case and without the blanks around them.
    Masked(TokenizerKind),
}

impl TextForm {
    /// True if padding is told apart from the prompt's tokens.
    pub fn is_masked(self) -> bool {
        matches!(self, Self::Masked(_))
    }
}

/// The kinds of tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenizerKind {
    /// Byte pairs, `<|startoftext|>` … `<|endoftext|>`.
    Clip,
    /// Pieces of words, `[CLS]` … `[SEP]`.
    Bert,
    /// The likeliest pieces of a text (a unigram model), … `</s>`.
    T5,
    /// Byte pairs with single bytes for what has no token, `<bos>` …
    Gemma,
}

impl TokenizerKind {
    /// The name of the text encoder that it belongs to.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clip => "CLIP",
            Self::Bert => "BERT",
            Self::T5 => "T5",
            Self::Gemma => "Gemma",
        }
    }

    /// True if its text encoder pools the text into a vector and has a length of its own; others read as many tokens as a
    /// pipeline asks for, and have a state for each.
    pub fn is_pooled(self) -> bool {
        matches!(self, Self::Clip | Self::Bert)
    }
}

/// The form of a denoiser's inputs, which whole families share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A UNet that attends to tokens.
    Unet,
    /// A UNet that takes no tokens.
    UnetWithoutTokens,
    /// A UNet that takes sizes and pooled text.
    UnetWithSizes,
    /// A transformer that takes pooled text.
    Multimodal,
    /// A transformer of samples that are packed into tokens.
    Packed,
    /// A transformer that takes a mask over its tokens, and predicts a variance.
    Masked,
    /// The same with the size of the image.
    MaskedWithResolution,
    /// A transformer that takes a mask over its tokens, and predicts no variance.
    MaskedWithoutVariance,
    /// A transformer that takes tokens alone, or a class.
    PlainTransformer,
    /// A form of no family, with what is known of it.
    Unknown(&'static str),
}

impl Form {
    /// A description of such a denoiser, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Unet => "a UNet that attends to tokens and takes no sizes, as those of Stable Diffusion 1 and 2",
            Self::UnetWithoutTokens => "a UNet that attends to no tokens",
            Self::UnetWithSizes => "a UNet that takes sizes (time_ids), as Stable Diffusion XL's",
            Self::Multimodal => "a transformer that takes pooled text and unpacked samples, as Stable Diffusion 3's",
            Self::Packed => "a transformer that takes packed samples with their positions, as Flux's",
            Self::Masked => "a transformer that takes a mask over its tokens, as PixArt-Σ's",
            Self::MaskedWithResolution => {
                "a transformer that takes a mask over its tokens and a resolution, as PixArt-α's"
            }
            Self::MaskedWithoutVariance => {
                "a transformer that takes a mask over its tokens and predicts no variance, as Sana's"
            }
            Self::PlainTransformer => "a transformer that takes neither pooled text nor a mask over its tokens",
            Self::Unknown(what) => what,
        }
    }
}

/// The positive evidence of a model's family in its graphs and files, for models without a class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signature {
    /// The form of the denoiser; `None` if it could not be read.
    pub form: Option<Form>,
    /// False for a model of pixels.
    pub has_vae: bool,
    /// True if the VAE has a codebook.
    pub has_codebook: bool,
    /// True if a tokenizer is BERT's.
    pub reads_bert: bool,
    /// True if there is a first text encoder and no second one.
    pub has_lone_first_encoder: bool,
    /// True if there is a scheduler for the noise over a small image.
    pub has_low_res_scheduler: bool,
    /// True if the denoiser takes class labels, or a noise level in their place.
    pub takes_class_labels: bool,
    /// True if the denoiser takes the guidance scale as a vector.
    pub takes_guidance_embedding: bool,
    /// True if the denoiser takes the size of the image.
    pub takes_resolution: bool,
    /// Channels of the denoiser's sample.
    pub in_channels: Option<usize>,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Pixels a side per latent, if anything tells.
    pub spatial_factor: Option<usize>,
}

impl Signature {
    /// The channels that the denoiser takes behind the latents; `None` if that is not known.
    pub fn extra_channels(&self) -> Option<usize> {
        self.in_channels?.checked_sub(self.latent_channels)
    }

    /// True for a UNet that attends to the states of a CLIP, over the latents of a VAE without a codebook.
    pub fn is_unet_of_latents(&self) -> bool {
        self.form == Some(Form::Unet) && self.has_vae && !self.has_codebook && !self.reads_bert
    }

    /// True if it is a UNet of latents without a small image and without a guidance embedding: Stable Diffusion's, whose
    /// further channels tell its kinds apart.
    pub fn is_stable_diffusion_unet(&self) -> bool {
        self.is_unet_of_latents() && !self.takes_low_res_image() && !self.takes_guidance_embedding
    }

    /// True if the denoiser takes a small image of three channels behind the latents, and how much noise lies over it.
    pub fn takes_low_res_image(&self) -> bool {
        self.has_low_res_scheduler || self.takes_class_labels && self.extra_channels() == Some(3)
    }

    /// A description of the model for messages, if no row recognises it.
    pub fn describe(&self) -> &'static str {
        match self.form {
            Some(Form::UnetWithSizes) if self.has_lone_first_encoder => {
                "a UNet that takes sizes, and a single text encoder, as Kolors has it"
            }
            Some(Form::Unet) if !self.has_vae => "a UNet that attends to tokens and no VAE, as DeepFloyd IF has it",
            Some(form) => form.describe(),
            None => "a denoiser that cannot be read",
        }
    }
}
