//! Directories as exporters write them.

use std::collections::BTreeMap;

use ldm_ort::bundle::{Bundle, ComponentKind, DirectoryOverrides, Layout, open_controlnet};

use super::writer::{Dir, F32, Model, decoder, legacy, text_encoder, unet};

#[test]
fn the_legacy_layout_opens() {
    let bundle = legacy().open().unwrap();
    assert_eq!(bundle.layout, Layout::Legacy);
    assert_eq!(bundle.class(), Some("OnnxStableDiffusionPipeline"));
    assert_eq!(bundle.components.len(), 4);
    assert_eq!(bundle.scheduler.as_ref().unwrap().class.as_deref(), Some("PNDMScheduler"));
    assert!(bundle.tokenizer(ComponentKind::TextEncoder).is_some());
    assert!(bundle.missing.is_empty(), "{:?}", bundle.missing);
    assert!(bundle.require_decoder("text-to-image").unwrap().is_some());
}

#[test]
fn component_configs_make_optimums_layout() {
    let bundle = legacy().put("unet/config.json", r#"{"sample_size": 32, "unknown": [1, {}]}"#).open().unwrap();
    assert_eq!(bundle.layout, Layout::Configured);
    assert_eq!(bundle.facts.default_size.value, (256, 256));
}

#[test]
fn a_directory_needs_no_index() {
    let bundle = Dir::new().graph("transformer/model_fp16.onnx", unet()).open().unwrap();
    assert_eq!(bundle.layout, Layout::Bare);
    assert_eq!(bundle.denoiser().unwrap().kind, ComponentKind::Transformer);
}

#[test]
fn graphs_may_lie_side_by_side() {
    let dir = Dir::new().graph("unet.onnx", unet()).graph("vae_decoder.onnx", decoder());
    let bundle = dir.graph("text_encoder.onnx", text_encoder()).put("tokenizer.json", "{}").open().unwrap();
    assert_eq!(bundle.layout, Layout::Flat);
    assert_eq!(bundle.tokenizer(ComponentKind::TextEncoder), Some(bundle.dir.as_path()));
}

#[test]
fn one_directory_for_the_first_stage_is_the_decoder() {
    let dir = Dir::new().graph("unet/model.onnx", unet()).graph("vae/model.onnx", decoder());
    let bundle = dir.open().unwrap();
    assert_eq!(bundle.decoder().unwrap().kind, ComponentKind::VaeDecoder);
    assert!(bundle.encoder().is_none());
    let error = bundle.require_encoder("image-to-image").unwrap_err().to_string();
    assert!(error.contains("image-to-image needs vae_encoder"), "{error}");
}

#[test]
fn weights_of_pytorch_beside_the_graphs_are_passed_over() {
    let dir = legacy()
        .put("vae/diffusion_pytorch_model.safetensors", "")
        .put("vae/config.json", r#"{"scaling_factor": 0.5}"#);
    let bundle = dir.open().unwrap();
    assert_eq!(bundle.facts.scaling_factor.value, 0.5);
    assert_eq!(bundle.facts.scaling_factor.source, "vae/config.json");
}

#[test]
fn the_schedulers_class_may_stand_in_the_index() {
    let dir = legacy()
        .put("scheduler/scheduler_config.json", r#"{"lambda_min_clipped": -Infinity, "novel": NaN}"#)
        .put("model_index.json", r#"{"scheduler": ["diffusers", "DDIMScheduler"], "vae": [null, null]}"#);
    let scheduler = dir.open().unwrap().scheduler.unwrap();
    assert_eq!(scheduler.class.as_deref(), Some("DDIMScheduler"));
    assert_eq!(scheduler.config["lambda_min_clipped"].as_f64(), Some(f64::MIN));
    assert!(scheduler.config["novel"].is_null());
}

#[test]
fn what_the_index_names_is_missed() {
    let index = r#"{"vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder_2": [null, null], "safety_checker": ["x", "y"], "force_zeros": true}"#;
    let bundle = Dir::new().graph("unet/model.onnx", unet()).put("model_index.json", index).open().unwrap();
    let missing = bundle.missing.join("\n");
    for part in ["vae_decoder/model.onnx", "text_encoder/model.onnx", "tokenizer/", "scheduler/"] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    assert_eq!(bundle.missing.len(), 4, "{missing}");
    // The index lists a VAE, so its absence does not make it a pixel-space model.
    let error = bundle.require_decoder("text-to-image").unwrap_err().to_string();
    assert!(error.contains("needs vae_decoder"), "{error}");
}

#[test]
fn the_safety_checker_is_not_needed() {
    let bundle =
        legacy().put("safety_checker/model.onnx", "version https://git-lfs.github.com/spec/v1").open().unwrap();
    assert!(bundle.missing[0].contains("safety_checker, which is not used"), "{:?}", bundle.missing);
}

#[test]
fn a_model_of_pixels_has_no_first_stage() {
    let dir = Dir::new().graph("unet/model.onnx", unet()).put("scheduler/config.json", "{}");
    let bundle = dir.open().unwrap();
    assert!(bundle.require_decoder("unconditional").unwrap().is_none());
    assert_eq!(bundle.facts.spatial_factor.value, 1);
}

#[test]
fn the_pipeline_file_has_the_last_word() {
    let other = Dir::new().graph("mine.onnx", unet().external("w", &[1], "w.bin", 0)).put("w.bin", [0; 4]);
    let overrides = DirectoryOverrides {
        roles: BTreeMap::new(),
        family: None,
        graphs: BTreeMap::from([(ComponentKind::Unet, other.join("mine.onnx"))]),
        scaling_factor: Some(0.3),
        shift_factor: Some(0.1),
        latent_channels: Some(16),
        prediction_type: Some("v_prediction".into()),
        sample_size: Some(32),
    };
    let dir = legacy().graph("unet/a.onnx", unet());
    let bundle = Bundle::open(dir.path(), &overrides).unwrap();
    assert_eq!(bundle.denoiser().unwrap().graph.path, other.join("mine.onnx"));
    let facts = &bundle.facts;
    assert_eq!((facts.scaling_factor.value, facts.shift_factor.value), (0.3, 0.1));
    assert_eq!(facts.latent_channels.value, 16);
    assert_eq!(facts.default_size.value, (256, 256));
    assert_eq!(facts.prediction_type.as_ref().unwrap().value, "v_prediction");
    assert_eq!(bundle.scheduler.unwrap().config["prediction_type"], "v_prediction");
}

#[test]
fn component_names_go_both_ways() {
    for kind in ComponentKind::ALL {
        assert_eq!(ComponentKind::from_name(kind.name()), Some(kind));
    }
    assert_eq!(ComponentKind::from_name("vea_decoder"), None);
}

#[test]
fn a_control_network_opens_in_any_place() {
    let control = Model::new().input("sample", F32, "b, 4, h, w").output("mid_block_res_sample", F32, "b, 8, h, w");
    let dir = Dir::new()
        .graph("a/controlnet/model.onnx", control.clone())
        .graph("b/model.onnx", control)
        .put("b/config.json", r#"{"_class_name": "ControlNetModel"}"#);
    let none = BTreeMap::new();
    for place in ["a", "b", "b/model.onnx"] {
        assert_eq!(open_controlnet(&dir.join(place), &none).unwrap().kind, ComponentKind::ControlNet, "{place}");
    }
    assert_eq!(open_controlnet(&dir.join("b/model.onnx"), &none).unwrap().config["_class_name"], "ControlNetModel");
    assert!(open_controlnet(&dir.join("none"), &none).is_err());
}

#[test]
fn the_digest_is_that_of_the_file() {
    let dir = Dir::new().put("unet/w.bin", [1; 8]).graph("unet/model.onnx", unet().external("w", &[2], "w.bin", 0));
    let first = dir.only_component().digest().unwrap();
    assert_eq!(first.len(), 64);
    assert_eq!(first, dir.only_component().digest().unwrap());
    let changed = dir.put("unet/w.bin", [2; 8]).only_component().digest().unwrap();
    assert_ne!(first, changed);
    // The output of `printf '' | sha256sum` and the like for a graph without other files; checked on one known input.
    let plain = Dir::new().graph("unet/model.onnx", unet());
    let bytes = std::fs::read(plain.join("unet/model.onnx")).unwrap();
    let expected: String = <sha2::Sha256 as sha2::Digest>::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(plain.only_component().digest().unwrap(), expected);
}
