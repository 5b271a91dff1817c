//! The rows: what each class's constructor and call do in diffusers 0.39.

use super::{ConfigValue, Correction, DefaultSize, Defaults, Family, PipelineClass, Wrong};

/// The training timesteps that a model is asked about begin at 1, as those of its training did.
const STEPS_OFFSET: Correction =
    Correction { key: "steps_offset", value: ConfigValue::Integer(1), wrong: Wrong::AnyOther };

const CLIP_SAMPLE: Correction =
    Correction { key: "clip_sample", value: ConfigValue::Switch(false), wrong: Wrong::Switch(true) };

const SKIP_PRK_STEPS: Correction =
    Correction { key: "skip_prk_steps", value: ConfigValue::Switch(true), wrong: Wrong::Switch(false) };

/// Stable Diffusion 1 and 2.
const OFFSET_AND_CLIP: &[Correction] = &[STEPS_OFFSET, CLIP_SAMPLE];

/// The same, inpainting.
const OFFSET_AND_PRK: &[Correction] = &[STEPS_OFFSET, SKIP_PRK_STEPS];

/// A class whose constructor changes nothing and whose call has fifty steps and `eta`.
const fn class(name: &'static str, family: Family, task: &'static str, defaults: Defaults) -> PipelineClass {
    PipelineClass {
        name,
        family,
        task,
        has_control: false,
        is_onnx: false,
        corrections: &[],
        scheduler: None,
        vae_scaling_factor: None,
        corrects_old_sample_size: false,
        defaults,
    }
}

/// Fifty steps at this guidance scale, in the model's size.
const fn guided(scale: f64) -> Defaults {
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
const fn unguided(steps: usize) -> Defaults {
    Defaults { steps, guidance_scale: None, ..guided(0.0) }
}

/// In 512 × 512 pixels.
const fn square(defaults: Defaults) -> Defaults {
    Defaults { size: DefaultSize::Square512, ..defaults }
}

/// From an image, in the image's size.
const fn from_image(scale: f64, strength: f64) -> Defaults {
    Defaults { strength: Some(strength), size: DefaultSize::InputImage, ..guided(scale) }
}

/// From an image that is resized to the model's size.
const fn resized(scale: f64, strength: f64) -> Defaults {
    Defaults { strength: Some(strength), ..guided(scale) }
}

/// A rectified flow's, whose call has no `eta`.
const fn flow(steps: usize, tokens: usize, defaults: Defaults) -> Defaults {
    Defaults { steps, eta: None, max_sequence_length: Some(tokens), ..defaults }
}

const fn controlled(scale: f64, size: DefaultSize, defaults: Defaults) -> Defaults {
    Defaults { control_scale: Some(scale), size, ..defaults }
}

const INSTRUCT: Defaults =
    Defaults { steps: 100, image_guidance_scale: Some(1.5), size: DefaultSize::InputImage, ..guided(7.5) };

const UPSCALE: Defaults = Defaults { steps: 75, noise_level: Some(20), size: DefaultSize::Upscaled, ..guided(9.0) };

const KONTEXT: Defaults = Defaults { size: DefaultSize::PreferredResolution, ..flow(28, 512, guided(3.5)) };

const fn consistent(defaults: Defaults) -> Defaults {
    Defaults { steps: 4, eta: None, ..defaults }
}

const fn pixart(tokens: usize) -> Defaults {
    Defaults { steps: 20, max_sequence_length: Some(tokens), ..guided(4.5) }
}

pub(super) static TABLE: &[PipelineClass] = &[
    PipelineClass {
        corrections: OFFSET_AND_CLIP,
        corrects_old_sample_size: true,
        ..class("StableDiffusionPipeline", Family::StableDiffusion, "text-to-image", guided(7.5))
    },
    PipelineClass {
        corrections: OFFSET_AND_CLIP,
        corrects_old_sample_size: true,
        ..class("StableDiffusionImg2ImgPipeline", Family::StableDiffusion, "image-to-image", from_image(7.5, 0.8))
    },
    PipelineClass {
        corrections: OFFSET_AND_PRK,
        corrects_old_sample_size: true,
        ..class("StableDiffusionInpaintPipeline", Family::StableDiffusion, "inpaint", resized(7.5, 1.0))
    },
    class("StableDiffusionInstructPix2PixPipeline", Family::StableDiffusion, "instruct", INSTRUCT),
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionControlNetPipeline",
            Family::StableDiffusion,
            "text-to-image",
            controlled(1.0, DefaultSize::ControlImage, guided(7.5)),
        )
    },
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionControlNetImg2ImgPipeline",
            Family::StableDiffusion,
            "image-to-image",
            controlled(0.8, DefaultSize::InputImage, from_image(7.5, 0.8)),
        )
    },
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionControlNetInpaintPipeline",
            Family::StableDiffusion,
            "inpaint",
            controlled(0.5, DefaultSize::InputImage, from_image(7.5, 1.0)),
        )
    },
    PipelineClass {
        is_onnx: true,
        corrections: OFFSET_AND_CLIP,
        ..class("OnnxStableDiffusionPipeline", Family::StableDiffusion, "text-to-image", square(guided(7.5)))
    },
    PipelineClass {
        is_onnx: true,
        corrections: OFFSET_AND_CLIP,
        ..class("OnnxStableDiffusionImg2ImgPipeline", Family::StableDiffusion, "image-to-image", from_image(7.5, 0.8))
    },
    PipelineClass {
        is_onnx: true,
        corrections: OFFSET_AND_CLIP,
        ..class("OnnxStableDiffusionInpaintPipeline", Family::StableDiffusion, "inpaint", square(guided(7.5)))
    },
    PipelineClass {
        is_onnx: true,
        corrections: OFFSET_AND_CLIP,
        ..class("OnnxStableDiffusionUpscalePipeline", Family::Upscaler, "super-resolution", UPSCALE)
    },
    PipelineClass {
        corrects_old_sample_size: true,
        ..class(
            "StableDiffusionDepth2ImgPipeline",
            Family::StableDiffusionDepth,
            "image-to-image",
            from_image(7.5, 0.8),
        )
    },
    PipelineClass {
        vae_scaling_factor: Some(0.08333),
        ..class("StableDiffusionUpscalePipeline", Family::Upscaler, "super-resolution", UPSCALE)
    },
    class("LatentConsistencyModelPipeline", Family::LatentConsistency, "text-to-image", consistent(guided(8.5))),
    class(
        "LatentConsistencyModelImg2ImgPipeline",
        Family::LatentConsistency,
        "image-to-image",
        consistent(from_image(8.5, 0.8)),
    ),
    class("StableDiffusionXLPipeline", Family::StableDiffusionXl, "text-to-image", guided(5.0)),
    class("StableDiffusionXLImg2ImgPipeline", Family::StableDiffusionXl, "image-to-image", from_image(5.0, 0.3)),
    class("StableDiffusionXLInpaintPipeline", Family::StableDiffusionXl, "inpaint", resized(7.5, 0.9999)),
    class(
        "StableDiffusionXLInstructPix2PixPipeline",
        Family::StableDiffusionXl,
        "instruct",
        Defaults { guidance_scale: Some(5.0), size: DefaultSize::Model, ..INSTRUCT },
    ),
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionXLControlNetPipeline",
            Family::StableDiffusionXl,
            "text-to-image",
            controlled(1.0, DefaultSize::ControlImage, guided(5.0)),
        )
    },
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionXLControlNetImg2ImgPipeline",
            Family::StableDiffusionXl,
            "image-to-image",
            controlled(0.8, DefaultSize::InputImage, from_image(5.0, 0.8)),
        )
    },
    PipelineClass {
        has_control: true,
        ..class(
            "StableDiffusionXLControlNetInpaintPipeline",
            Family::StableDiffusionXl,
            "inpaint",
            controlled(1.0, DefaultSize::InputImage, from_image(5.0, 0.9999)),
        )
    },
    class("StableDiffusion3Pipeline", Family::StableDiffusion3, "text-to-image", flow(28, 256, guided(7.0))),
    class(
        "StableDiffusion3Img2ImgPipeline",
        Family::StableDiffusion3,
        "image-to-image",
        flow(50, 256, resized(7.0, 0.6)),
    ),
    class("StableDiffusion3InpaintPipeline", Family::StableDiffusion3, "inpaint", flow(50, 256, resized(7.0, 0.6))),
    class("FluxPipeline", Family::Flux, "text-to-image", flow(28, 512, guided(3.5))),
    class("FluxImg2ImgPipeline", Family::Flux, "image-to-image", flow(28, 512, resized(7.0, 0.6))),
    class("FluxInpaintPipeline", Family::Flux, "inpaint", flow(28, 512, resized(7.0, 0.6))),
    class("FluxKontextPipeline", Family::FluxKontext, "instruct", KONTEXT),
    class("FluxKontextPipeline", Family::FluxKontext, "text-to-image", KONTEXT),
    class("FluxKontextPipeline", Family::FluxKontext, "image-to-image", KONTEXT),
    class("PixArtAlphaPipeline", Family::PixArtAlpha, "text-to-image", pixart(120)),
    class("PixArtSigmaPipeline", Family::PixArtSigma, "text-to-image", pixart(300)),
    class("LDMTextToImagePipeline", Family::LatentDiffusion, "text-to-image", guided(1.0)),
    class(
        "LDMSuperResolutionPipeline",
        Family::LatentDiffusion,
        "super-resolution",
        Defaults { size: DefaultSize::Upscaled, ..unguided(100) },
    ),
    class("LDMPipeline", Family::LatentDiffusion, "unconditional", unguided(50)),
    class("DDPMPipeline", Family::PixelDiffusion, "unconditional", Defaults { eta: None, ..unguided(1000) }),
    PipelineClass {
        scheduler: Some("DDIMScheduler"),
        ..class("DDIMPipeline", Family::PixelDiffusion, "unconditional", unguided(50))
    },
    PipelineClass {
        scheduler: Some("PNDMScheduler"),
        ..class("PNDMPipeline", Family::PixelDiffusion, "unconditional", Defaults { eta: None, ..unguided(50) })
    },
];
