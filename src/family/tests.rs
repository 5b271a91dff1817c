//! Tests of the table of families.

use super::*;

#[test]
fn classes_are_found_by_the_names_that_exporters_give_them() {
    let named = |name| find(name).map(|(_, class)| class.name);
    assert_eq!(named("StableDiffusionPipeline"), Some("StableDiffusionPipeline"));
    assert_eq!(named("ORTStableDiffusionXLPipeline"), Some("StableDiffusionXLPipeline"));
    assert_eq!(named("OVFluxPipeline"), Some("FluxPipeline"));
    assert_eq!(named("OnnxStableDiffusionXLPipeline"), Some("StableDiffusionXLPipeline"));
    assert_eq!(named("OnnxStableDiffusionPipeline"), Some("OnnxStableDiffusionPipeline"));
    assert_eq!(named("StableDiffusionOnnxPipeline"), Some("OnnxStableDiffusionPipeline"));
    for unknown in ["SanaSprintPipeline", "FluxFillPipeline", "KolorsPipeline", "stablediffusionpipeline", ""] {
        assert_eq!(named(unknown), None);
    }
    assert_eq!(Family::of_class("LatentDiffusion"), Family::from_name("latent-diffusion"));
    assert_eq!(Family::of_class("ORTSanaPipeline"), Family::from_name("sana"));
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
        ("SanaPipeline", "text-to-image", false, "SanaPipeline"),
    ];
    for (named, task, has_control, expected) in rows {
        let family = Family::of_class(named).unwrap();
        let class = for_task(family, Some(named), task, has_control).map(|class| class.name);
        assert_eq!(class, Some(expected), "{named}, {task}, {has_control}");
    }
    let family = |name| Family::from_name(name).unwrap();
    assert_eq!(for_task(family("latent-diffusion"), Some("LatentDiffusion"), "inpaint", false), None);
    let absent = for_task(family("stable-diffusion"), None, "image-to-image", false).map(|class| class.name);
    assert_eq!(absent, Some("StableDiffusionImg2ImgPipeline"));
}

#[test]
fn no_class_has_two_rows() {
    let all: Vec<_> = Family::all().flat_map(|family| family.row().classes).collect();
    for (at, class) in all.iter().enumerate() {
        let again = |other: &&&PipelineClass| other.name == class.name && other.task == class.task;
        assert!(!all[..at].iter().any(|other| again(&other)), "{}", class.name);
    }
}

#[test]
fn every_row_is_whole() {
    for (at, family) in Family::all().enumerate() {
        let row = family.row();
        assert!(!row.title.is_empty() && !row.classes.is_empty() && !row.forms.is_empty(), "{family:?}");
        assert!(!row.denoiser_classes.is_empty() && !row.vae_classes.is_empty(), "{family:?}");
        assert_eq!(Family::names()[at], row.name);
        assert_eq!(Family::from_name(row.name), Some(family), "two rows are named {}", row.name);
        for class in row.classes {
            assert_eq!(Family::of_class(class.name), Some(family), "{}", class.name);
        }
    }
}

#[test]
fn kin_are_families() {
    let kin: Vec<&str> = Family::all().flat_map(|family| family.row().kin).copied().collect();
    assert!(kin.len() > 5, "{kin:?}");
    assert!(kin.iter().all(|name| Family::from_name(name).is_some()), "{kin:?}");
}
