//! diffusers' pipeline classes, and the one that runs a task on a model.
//!
//! A class decides more than the order of its steps: its constructor corrects the scheduler's configuration, and its call
//! has defaults of its own. [`table()`] has one row for each class that this engine reproduces, from diffusers 0.39.
//! [`for_task`] finds the class that diffusers uses for a task, as its `AutoPipelineFor…` and `from_pipe` do:
//! `StableDiffusionPipeline` becomes `StableDiffusionInpaintPipeline` for inpainting, and with a control network
//! `StableDiffusionControlNetInpaintPipeline`.

mod defaults;
mod family;
mod table;

pub use defaults::{CallDefaults, TaskCall};
pub use family::Family;

/// One pipeline class of diffusers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PipelineClass {
    /// The class's name, such as `StableDiffusionPipeline`.
    pub name: &'static str,
    /// The family of the models that the class runs.
    pub family: Family,
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
    /// The control image's size.
    ControlImage,
    /// About a megapixel at the aspect ratio of the input image, from a list of sizes (Flux Kontext).
    PreferredResolution,
}

/// All classes that this engine reproduces.
pub fn table() -> &'static [PipelineClass] {
    table::TABLE
}

/// The row of a class, by the name that model_index.json gives it: diffusers' own, the same with the prefix of an exporter
/// (`Onnx`, `ORT`, `OV`), or the early `StableDiffusionOnnxPipeline`.
pub fn find(name: &str) -> Option<&'static PipelineClass> {
    let name = if name == "StableDiffusionOnnxPipeline" { "OnnxStableDiffusionPipeline" } else { name };
    let exact = |name: &str| table().iter().find(|class| class.name == name);
    exact(name).or_else(|| PREFIXES.iter().find_map(|prefix| exact(name.strip_prefix(prefix)?)))
}

/// The family of the models under a class name: that of [`find`]'s row, or of this project's own exports.
pub fn family_of(name: &str) -> Option<Family> {
    match name {
        OWN_EXPORT => Some(Family::LatentDiffusion),
        name => find(name).map(|class| class.family),
    }
}

/// The scaling factor that the constructor of a family's pipeline class puts into the VAE's configuration, with the class.
pub fn vae_scaling_factor(family: Family) -> Option<(&'static str, f64)> {
    table()
        .iter()
        .filter(|class| class.family == family)
        .find_map(|class| Some((class.name, class.vae_scaling_factor?)))
}

/// True for the name of a class that an exporter put in place of diffusers' own, such as `ORTUnet`.
pub fn has_exporter_prefix(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The prefixes that exporters put before diffusers' class names.
const PREFIXES: [&str; 3] = ["Onnx", "ORT", "OV"];

/// The class name in the model_index.json of scripts/export.py for the systems of the latent diffusion paper.
const OWN_EXPORT: &str = "LatentDiffusion";

/// The class with which diffusers runs `task` on a model, with ControlNets if `has_control`.
///
/// `named` is the class in model_index.json, if any; it decides between classes of the same family and task, and keeps
/// models of the first ONNX pipelines with those. `None` if diffusers has no class for the task on this family.
pub fn for_task(family: Family, named: Option<&str>, task: &str, has_control: bool) -> Option<&'static PipelineClass> {
    let named = named.and_then(find);
    let fits = |class: &PipelineClass| class.task == task && class.has_control == has_control;
    if let Some(class) = named.filter(|class| class.family == family && fits(class)) {
        return Some(class);
    }
    let is_onnx = named.is_some_and(|class| class.is_onnx);
    family.search_order().iter().find_map(|&family| {
        let of_family = |onnx: bool| table().iter().find(|c| c.family == family && fits(c) && c.is_onnx == onnx);
        is_onnx.then(|| of_family(true)).flatten().or_else(|| of_family(false))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_the_names_that_exporters_give_them() {
        let named = |name| find(name).map(|class| class.name);
        assert_eq!(named("StableDiffusionPipeline"), Some("StableDiffusionPipeline"));
        assert_eq!(named("ORTStableDiffusionXLPipeline"), Some("StableDiffusionXLPipeline"));
        assert_eq!(named("OVFluxPipeline"), Some("FluxPipeline"));
        assert_eq!(named("OnnxStableDiffusionXLPipeline"), Some("StableDiffusionXLPipeline"));
        assert_eq!(named("OnnxStableDiffusionPipeline"), Some("OnnxStableDiffusionPipeline"));
        assert_eq!(named("StableDiffusionOnnxPipeline"), Some("OnnxStableDiffusionPipeline"));
        for unknown in ["SanaPipeline", "FluxFillPipeline", "KolorsPipeline", "stablediffusionpipeline", ""] {
            assert_eq!(named(unknown), None);
        }
        assert_eq!(family_of("LatentDiffusion"), Some(Family::LatentDiffusion));
        assert_eq!(family_of("ORTSanaPipeline"), None);
    }

    #[test]
    fn a_task_has_the_class_that_diffusers_chooses() {
        let rows = [
            ("StableDiffusionPipeline", "text-to-image", false, "StableDiffusionPipeline"),
            ("StableDiffusionPipeline", "inpaint", false, "StableDiffusionInpaintPipeline"),
            ("StableDiffusionPipeline", "inpaint", true, "StableDiffusionControlNetInpaintPipeline"),
            ("StableDiffusionInpaintPipeline", "text-to-image", false, "StableDiffusionPipeline"),
            ("StableDiffusionControlNetPipeline", "text-to-image", false, "StableDiffusionPipeline"),
            ("StableDiffusionPipeline", "instruct", false, "StableDiffusionInstructPix2PixPipeline"),
            ("StableDiffusionPipeline", "super-resolution", false, "StableDiffusionUpscalePipeline"),
            ("StableDiffusionDepth2ImgPipeline", "image-to-image", false, "StableDiffusionDepth2ImgPipeline"),
            ("OnnxStableDiffusionPipeline", "inpaint", false, "OnnxStableDiffusionInpaintPipeline"),
            ("OnnxStableDiffusionPipeline", "text-to-image", true, "StableDiffusionControlNetPipeline"),
            ("ORTStableDiffusionPipeline", "inpaint", false, "StableDiffusionInpaintPipeline"),
            ("StableDiffusionXLImg2ImgPipeline", "text-to-image", false, "StableDiffusionXLPipeline"),
            ("StableDiffusionXLPipeline", "image-to-image", true, "StableDiffusionXLControlNetImg2ImgPipeline"),
            ("LatentConsistencyModelPipeline", "image-to-image", false, "LatentConsistencyModelImg2ImgPipeline"),
            ("LatentConsistencyModelPipeline", "inpaint", false, "StableDiffusionInpaintPipeline"),
            ("LatentConsistencyModelPipeline", "text-to-image", true, "StableDiffusionControlNetPipeline"),
            ("StableDiffusion3Pipeline", "inpaint", false, "StableDiffusion3InpaintPipeline"),
            ("FluxPipeline", "instruct", false, "FluxKontextPipeline"),
            ("FluxKontextPipeline", "text-to-image", false, "FluxKontextPipeline"),
            ("FluxKontextPipeline", "image-to-image", false, "FluxKontextPipeline"),
            ("FluxKontextPipeline", "inpaint", false, "FluxInpaintPipeline"),
            ("DDIMPipeline", "unconditional", false, "DDIMPipeline"),
            ("DDPMPipeline", "unconditional", false, "DDPMPipeline"),
            ("LatentDiffusion", "text-to-image", false, "LDMTextToImagePipeline"),
        ];
        for (named, task, has_control, expected) in rows {
            let family = family_of(named).unwrap();
            let class = for_task(family, Some(named), task, has_control).map(|class| class.name);
            assert_eq!(class, Some(expected), "{named}, {task}, {has_control}");
        }
        assert_eq!(for_task(Family::LatentDiffusion, Some("LatentDiffusion"), "inpaint", false), None);
        let absent = for_task(Family::StableDiffusion, None, "image-to-image", false).map(|class| class.name);
        assert_eq!(absent, Some("StableDiffusionImg2ImgPipeline"));
    }

    #[test]
    fn no_class_has_two_rows() {
        for (at, class) in table().iter().enumerate() {
            let again = |other: &PipelineClass| other.name == class.name && other.task == class.task;
            assert!(!table()[..at].iter().any(again), "{}", class.name);
        }
    }
}
