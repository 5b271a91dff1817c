//! The family of a model, by its evidence, and unsupported models.

use ldm_ort::bundle::{Bundle, DirectoryOverrides};
use ldm_ort::family::Family;

use super::writer::{Dir, F32, I64, Model, decoder, legacy, text_encoder, unet, unet_with};

fn named(class: &str, denoiser: &str, model: Model) -> Dir {
    bare(denoiser, model).put("model_index.json", format!(r#"{{"_class_name": "{class}"}}"#))
}

fn bare(denoiser: &str, model: Model) -> Dir {
    let dir = Dir::new().graph(&format!("{denoiser}/model.onnx"), model).graph("vae_decoder/model.onnx", decoder());
    dir.graph("text_encoder/model.onnx", text_encoder())
}

fn family(dir: &Dir) -> Result<&'static str, String> {
    let bundle = dir.open().map_err(|error| error.to_string())?;
    bundle.family().map(Family::name).map_err(|error| error.to_string())
}

fn xl() -> Model {
    unet().input("time_ids", F32, "b, 6").input("text_embeds", F32, "b, 8")
}

fn sd3() -> Model {
    unet().input("pooled_projections", F32, "b, 8")
}

fn packed(channels: usize) -> Model {
    Model::new()
        .input("hidden_states", F32, &format!("b, s, {channels}"))
        .input("encoder_hidden_states", F32, "b, t, 8")
        .input("timestep", F32, "b")
        .input("img_ids", F32, "s, 3")
        .input("txt_ids", F32, "t, 3")
        .output("out_hidden_states", F32, "b, s, 16")
}

fn flux() -> Model {
    packed(16).input("pooled_projections", F32, "b, 8")
}

fn masked(predicted: usize) -> Model {
    Model::new()
        .input("hidden_states", F32, "b, 4, h, w")
        .input("encoder_hidden_states", F32, "b, t, 8")
        .input("encoder_attention_mask", I64, "b, t")
        .input("timestep", F32, "b")
        .output("out_sample", F32, &format!("b, {predicted}, h, w"))
}

/// Beside a VAE of 32 pixels per latent.
fn deep(transformer: Model) -> Dir {
    let config = r#"{"_class_name": "AutoencoderDC", "decoder_block_out_channels": [1, 1, 1, 1, 1, 1]}"#;
    bare("transformer", transformer).put("vae_decoder/config.json", config)
}

#[test]
fn a_family_is_that_of_the_class() {
    let rows = [
        ("StableDiffusionPipeline", "unet", unet(), "stable-diffusion"),
        ("OnnxStableDiffusionPipeline", "unet", unet(), "stable-diffusion"),
        ("StableDiffusionOnnxPipeline", "unet", unet(), "stable-diffusion"),
        ("ORTStableDiffusionXLPipeline", "unet", xl(), "stable-diffusion-xl"),
        ("OVStableDiffusion3Pipeline", "transformer", sd3(), "stable-diffusion-3"),
        ("FluxKontextPipeline", "transformer", flux(), "flux-kontext"),
        ("ORTFluxPipeline", "transformer", flux(), "flux"),
        ("PixArtSigmaPipeline", "transformer", masked(8), "pixart-sigma"),
        ("PixArtAlphaPipeline", "transformer", masked(8), "pixart-alpha"),
        ("SanaPipeline", "transformer", masked(4), "sana"),
        ("ORTSanaPipeline", "transformer", masked(4), "sana"),
        ("LatentDiffusion", "unet", unet(), "latent-diffusion"),
        // A latent consistency model's UNet under Stable Diffusion's class is known, and stays what the class says.
        ("StableDiffusionPipeline", "unet", unet().input("timestep_cond", F32, "b, 256"), "stable-diffusion"),
    ];
    for (class, kind, model, expected) in rows {
        assert_eq!(family(&named(class, kind, model)), Ok(expected), "{class}");
    }
}

#[test]
fn a_class_that_is_not_known_is_refused_by_name() {
    let others = [
        "SanaSprintPipeline",
        "ORTSanaSprintPipeline",
        "KolorsPipeline",
        "StableCascadeDecoderPipeline",
        "WuerstchenDecoderPipeline",
        "KandinskyV22Pipeline",
        "HunyuanDiTPipeline",
        "AuraFlowPipeline",
        "Lumina2Pipeline",
        "QwenImagePipeline",
        "ZImagePipeline",
        "Flux2Pipeline",
        "ChromaPipeline",
        "FluxFillPipeline",
        "FluxControlPipeline",
        "FluxControlNetPipeline",
        "StableUnCLIPPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusionXLAdapterPipeline",
        "IFPipeline",
        "DiTPipeline",
        "MyOwnPipeline",
    ];
    for class in others {
        for (kind, model) in [("unet", unet()), ("unet", xl()), ("transformer", flux()), ("transformer", masked(8))] {
            let refused = family(&named(class, kind, model)).unwrap_err();
            let texts = ["model_index.json", class, "[model] family = ", "stable-diffusion-xl"];
            assert!(texts.iter().all(|text| refused.contains(text)), "{refused}");
        }
    }
    let custom = bare("unet", unet()).put("model_index.json", r#"{"_class_name": ["my_pipeline", "MyPipeline"]}"#);
    assert!(family(&custom).unwrap_err().contains("MyPipeline"));
    let number = bare("unet", unet()).put("model_index.json", r#"{"_class_name": 7}"#);
    assert!(family(&number).unwrap_err().contains("_class_name is 7"));
}

#[test]
fn the_pipeline_file_overrides_a_class_that_is_not_known() {
    let open = |dir: &Dir, family| {
        let overrides = DirectoryOverrides { family: Family::from_name(family), ..DirectoryOverrides::default() };
        let found = Bundle::open(dir.path(), &overrides).and_then(|bundle| bundle.family());
        found.map(Family::name).map_err(|error| error.to_string())
    };
    let dir = named("MyOwnPipeline", "unet", xl()).put("unet/config.json", r#"{"_class_name": "MyUNet"}"#);
    assert_eq!(open(&dir, "stable-diffusion-xl"), Ok("stable-diffusion-xl"));
    let refused = open(&dir, "stable-diffusion-3").unwrap_err();
    assert!(refused.contains("Stable Diffusion 3 (the pipeline file ([model] family))"), "{refused}");
    assert!(refused.contains("sizes (time_ids)"), "{refused}");
    let kontext = bare("transformer", flux());
    assert_eq!(open(&kontext, "flux-kontext"), Ok("flux-kontext"));
}

#[test]
fn a_model_without_a_class_is_known_by_what_it_takes() {
    let low_res = |dir: Dir| dir.put("low_res_scheduler/scheduler_config.json", "{}");
    let rows = [
        (bare("unet", unet()), "stable-diffusion"),
        (bare("unet", xl()).graph("text_encoder_2/model.onnx", text_encoder()), "stable-diffusion-xl"),
        (Dir::new().graph("unet/model.onnx", xl()), "stable-diffusion-xl"),
        (low_res(bare("unet", unet())), "stable-diffusion-upscaler"),
        (bare("unet", unet_with("b, 7, h, w", I64, "b").input("class_labels", I64, "b")), "stable-diffusion-upscaler"),
        (bare("unet", unet_with("b, 5, h, w", I64, "b")), "stable-diffusion-depth"),
        (bare("unet", unet_with("b, 9, h, w", I64, "b")), "stable-diffusion"),
        (bare("unet", unet().input("timestep_cond", F32, "b, 256")), "latent-consistency"),
        (bare("unet", unet()).put("tokenizer/vocab.txt", "[PAD]"), "latent-diffusion"),
        (bare("transformer", sd3()), "stable-diffusion-3"),
        (bare("transformer", flux()), "flux"),
        (bare("transformer", masked(8)), "pixart-sigma"),
        (bare("transformer", masked(8).input("resolution", F32, "b, 2")), "pixart-alpha"),
        (deep(masked(4)), "sana"),
        (deep(masked(4)).put("text_encoder/config.json", r#"{"model_type": "gemma2"}"#), "sana"),
        (legacy(), "stable-diffusion"),
    ];
    for (dir, expected) in rows {
        assert_eq!(family(&dir), Ok(expected));
    }
    assert_eq!(bare("transformer", flux()).open().unwrap().named_family(), None, "it may be Kontext");
}

#[test]
fn a_model_of_no_known_form_is_refused() {
    let config = |component: &str, text: &str| bare("unet", unet()).put(&format!("{component}/config.json"), text);
    let pixels = Dir::new().graph("unet/model.onnx", unet()).graph("text_encoder/model.onnx", text_encoder());
    let rows: [(Dir, &[&str]); 15] = [
        (bare("transformer", unet()), &["no known family", "neither pooled text nor a mask"]),
        (bare("transformer", packed(16)), &["no known family", "no pooled text, as FLUX.2 and Chroma"]),
        (
            bare("transformer", packed(96).input("pooled_projections", F32, "b, 8")),
            &["no known family", "as FLUX.1 Fill and Control"],
        ),
        (bare("transformer", masked(4)), &["no known family", "predicts no variance, as Sana's"]),
        (deep(masked(8)), &["no known family", "a variance in its prediction", "more than 8 pixels per latent"]),
        (deep(masked(4).input("guidance", F32, "b")), &["no known family", "as Sana-Sprint"]),
        (
            deep(masked(4)).put("text_encoder/config.json", r#"{"model_type": "t5"}"#),
            &["text_encoder/config.json", "t5 model", "no model of Sana"],
        ),
        (bare("unet", sd3()), &["no known family", "a pooled vector and no sizes"]),
        (bare("unet", xl()), &["no known family", "a single text encoder, as Kolors"]),
        (pixels, &["no known family", "DeepFloyd IF"]),
        (
            config("unet", r#"{"_class_name": "UNet2DConditionModel"}"#)
                .graph("unet/model.onnx", xl())
                .put("text_encoder/config.json", r#"{"model_type": "chatglm"}"#),
            &["chatglm"],
        ),
        (config("unet", r#"{"_class_name": "Kandinsky3UNet"}"#), &["unet/config.json", "Kandinsky3UNet"]),
        (config("vae_decoder", r#"{"_class_name": "AutoencoderDC"}"#), &["vae_decoder/config.json", "AutoencoderDC"]),
        (config("text_encoder", r#"{"model_type": "gemma2"}"#), &["text_encoder/config.json", "gemma2"]),
        (
            bare("transformer", masked(8))
                .put("transformer/config.json", r#"{"_class_name": "SanaTransformer2DModel"}"#),
            &["transformer/config.json", "SanaTransformer2DModel"],
        ),
    ];
    for (dir, texts) in rows {
        let refused = family(&dir).unwrap_err();
        assert!(texts.iter().all(|text| refused.contains(text)), "{texts:?}: {refused}");
        assert!(refused.contains("[model] family = "), "{refused}");
    }
}

#[test]
fn evidence_that_contradicts_itself_names_both() {
    let with = |class, kind, model, config: &str| named(class, kind, model).put(&format!("{kind}/config.json"), config);
    let rows = [
        (named("StableDiffusionPipeline", "unet", xl()), ["StableDiffusionPipeline", "sizes (time_ids)"]),
        (named("StableDiffusionXLPipeline", "unet", unet()), ["StableDiffusionXLPipeline", "takes no sizes"]),
        (named("FluxPipeline", "transformer", sd3()), ["FluxPipeline", "unpacked samples"]),
        (named("FluxPipeline", "transformer", packed(16)), ["FluxPipeline", "no pooled text"]),
        (named("StableDiffusion3Pipeline", "transformer", flux()), ["StableDiffusion3Pipeline", "packed samples"]),
        (named("PixArtSigmaPipeline", "transformer", masked(4)), ["PixArtSigmaPipeline", "as Sana's"]),
        (named("SanaPipeline", "transformer", masked(8)), ["SanaPipeline", "as PixArt-Σ's"]),
        (
            named("SanaPipeline", "transformer", masked(4))
                .put("vae_decoder/config.json", r#"{"_class_name": "AutoencoderKL"}"#),
            ["SanaPipeline", "AutoencoderKL"],
        ),
        (
            named("PixArtSigmaPipeline", "transformer", masked(8))
                .put("vae_decoder/config.json", r#"{"_class_name": "AutoencoderDC"}"#),
            ["PixArtSigmaPipeline", "AutoencoderDC"],
        ),
        (named("DDPMPipeline", "unet", unet()), ["DDPMPipeline", "attends to tokens"]),
        (
            with("StableDiffusionPipeline", "unet", unet(), r#"{"_class_name": "UNet2DModel"}"#),
            ["StableDiffusionPipeline", "UNet2DModel"],
        ),
        (
            with("FluxPipeline", "transformer", flux(), r#"{"_class_name": "SD3Transformer2DModel"}"#),
            ["FluxPipeline", "SD3Transformer2DModel"],
        ),
    ];
    for (dir, texts) in rows {
        let refused = family(&dir).unwrap_err();
        assert!(texts.iter().all(|text| refused.contains(text)), "{texts:?}: {refused}");
    }
}
