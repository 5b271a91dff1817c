//! The pipeline classes of diffusers.
//!
//! A class decides more than the order of its steps: its constructor corrects the scheduler's configuration, and its call
//! has defaults of its own. Each family's file has a row for each of its classes that this engine reproduces, with what
//! their constructors and calls do in diffusers 0.39.

/// One pipeline class of diffusers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PipelineClass {
    /// The class's name, such as `StableDiffusionPipeline`.
    pub name: &'static str,
    /// The name of its task in pipeline.toml.
    pub task: &'static str,
    /// True if the class runs ControlNets.
    pub has_control: bool,
    /// True for the classes of diffusers' first ONNX pipelines, whose constructors differ from those of the PyTorch classes.
    pub is_onnx: bool,
    /// The corrections that the constructor makes to the scheduler's configuration.
    pub corrections: &'static [Correction],
    /// The scheduler class to which the constructor converts any other, by `from_config`.
    pub scheduler: Option<&'static str>,
    /// The scaling factor that the constructor puts into the VAE's configuration, whatever that holds.
    pub vae_scaling_factor: Option<f64>,
    /// True if the constructor sets `sample_size` to 64 where the denoiser's configuration has less and was written by a
    /// diffusers before 0.9.0.
    pub corrects_old_sample_size: bool,
    /// True if the call counts `strength` in the steps of the model's training rather than in those of the run.
    pub counts_strength_in_training: bool,
    /// The defaults of the call's arguments.
    pub defaults: Defaults,
}

/// A correction of one key of a scheduler's configuration.
///
/// The constructor looks at the key of the scheduler as it was built, where a key that the file lacks has the scheduler
/// class's default. So a missing key is corrected too, if the class has it and its default is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correction {
    /// The key.
    pub key: &'static str,
    /// The value it is corrected to.
    pub value: ConfigValue,
    /// The values that are corrected.
    pub wrong: Wrong,
}

/// A value of a scheduler's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigValue {
    /// A whole number.
    Integer(i64),
    /// A switch.
    Switch(bool),
}

/// The values of a key that a correction replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// All but the correct one, `null` included.
    AnyOther,
    /// This switch alone; `null` stays.
    Switch(bool),
}

/// The defaults of a pipeline class's call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// `num_inference_steps`.
    pub steps: usize,
    /// `guidance_scale`; `None` if the class has no guidance.
    pub guidance_scale: Option<f64>,
    /// `image_guidance_scale`.
    pub image_guidance_scale: Option<f64>,
    /// `strength`.
    pub strength: Option<f64>,
    /// `eta`, which the call hands to each step of a scheduler that takes it; `None` if the call has no such argument.
    pub eta: Option<f64>,
    /// `max_sequence_length`: the tokens that T5 reads.
    pub max_sequence_length: Option<usize>,
    /// `noise_level`.
    pub noise_level: Option<usize>,
    /// `controlnet_conditioning_scale`.
    pub control_scale: Option<f64>,
    /// The size of the image if `width` and `height` are not given.
    pub size: DefaultSize,
}

/// The size of an image if `width` and `height` are not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultSize {
    /// The denoiser's `sample_size` in pixels; an input image is resized to it.
    Model,
    /// 512 × 512 pixels, whatever the model; an input image is resized to it.
    Square512,
    /// The input image's size, rounded down to what the model takes.
    InputImage,
    /// Four times the input image's size.
    Upscaled,
    /// The denoiser's `sample_size` in pixels: the call asks for 1024 × 1024 pixels, and by its binning of resolutions
    /// generates in the size that the model was trained at.
    Binned,
    /// The control image's size.
    ControlImage,
    /// About a megapixel at the aspect ratio of the input image, from a list of sizes.
    PreferredResolution,
}

/// The training timesteps that a model is asked about begin at 1, as those of its training did.
const STEPS_OFFSET: Correction =
    Correction { key: "steps_offset", value: ConfigValue::Integer(1), wrong: Wrong::AnyOther };

const CLIP_SAMPLE: Correction =
    Correction { key: "clip_sample", value: ConfigValue::Switch(false), wrong: Wrong::Switch(true) };

const SKIP_PRK_STEPS: Correction =
    Correction { key: "skip_prk_steps", value: ConfigValue::Switch(true), wrong: Wrong::Switch(false) };

/// The corrections of the first classes.
pub(super) const OFFSET_AND_CLIP: &[Correction] = &[STEPS_OFFSET, CLIP_SAMPLE];

/// The corrections of the first class for inpainting.
pub(super) const OFFSET_AND_PRK: &[Correction] = &[STEPS_OFFSET, SKIP_PRK_STEPS];

/// A class whose constructor changes nothing and whose call has fifty steps and `eta`.
pub(super) const fn class(name: &'static str, task: &'static str, defaults: Defaults) -> PipelineClass {
    PipelineClass {
        name,
        task,
        has_control: false,
        is_onnx: false,
        corrections: &[],
        scheduler: None,
        vae_scaling_factor: None,
        corrects_old_sample_size: false,
        counts_strength_in_training: false,
        defaults,
    }
}

/// Fifty steps at this guidance scale, in the model's size.
pub(super) const fn guided(scale: f64) -> Defaults {
    Defaults {
        steps: 50,
        guidance_scale: Some(scale),
        image_guidance_scale: None,
        strength: None,
        eta: Some(0.0),
        max_sequence_length: None,
        noise_level: None,
        control_scale: None,
        size: DefaultSize::Model,
    }
}

/// Steps without guidance.
pub(super) const fn unguided(steps: usize) -> Defaults {
    Defaults { steps, guidance_scale: None, ..guided(0.0) }
}

/// In 512 × 512 pixels.
pub(super) const fn square(defaults: Defaults) -> Defaults {
    Defaults { size: DefaultSize::Square512, ..defaults }
}

/// From an image, in the image's size.
pub(super) const fn from_image(scale: f64, strength: f64) -> Defaults {
    Defaults { strength: Some(strength), size: DefaultSize::InputImage, ..guided(scale) }
}

/// From an image that is resized to the model's size.
pub(super) const fn resized(scale: f64, strength: f64) -> Defaults {
    Defaults { strength: Some(strength), ..guided(scale) }
}

/// A rectified flow's, whose call has no `eta`.
pub(super) const fn flow(steps: usize, tokens: usize, defaults: Defaults) -> Defaults {
    Defaults { steps, eta: None, max_sequence_length: Some(tokens), ..defaults }
}

/// With ControlNets at this scale.
pub(super) const fn controlled(scale: f64, size: DefaultSize, defaults: Defaults) -> Defaults {
    Defaults { control_scale: Some(scale), size, ..defaults }
}

/// Following an instruction, from an image in its own size.
pub(super) const INSTRUCT: Defaults =
    Defaults { steps: 100, image_guidance_scale: Some(1.5), size: DefaultSize::InputImage, ..guided(7.5) };
