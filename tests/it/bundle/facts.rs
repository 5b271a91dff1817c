//! The facts that the engine reads from a directory, and their sources.

use ldm_ort::bundle::{Autoencoder, Bundle, DirectoryOverrides, Facts};

use super::writer::{Dir, F32, Model, decoder, legacy, read, unet, unet_with};

fn facts(dir: Dir) -> Facts {
    dir.open().unwrap().facts
}

fn doubled(model: Model, times: usize) -> Model {
    (0..times).fold(model, |m, _| m.node("Resize", &["x", "", "scales"], &["y"]))
}

#[test]
fn families_without_configs_have_their_constants() {
    let facts_of = |dir: Dir| facts(dir).scaling_factor.value;
    assert_eq!(facts_of(legacy()), 0.18215);
    let xl = unet().input("time_ids", F32, "b, 6").input("text_embeds", F32, "b, 8");
    let index = r#"{"_class_name": "OnnxStableDiffusionXLPipeline"}"#;
    assert_eq!(facts_of(legacy().graph("unet/model.onnx", xl).put("model_index.json", index)), 0.13025);
    assert_eq!(facts_of(legacy().put("low_res_scheduler/scheduler_config.json", "{}")), 0.08333);
    let deep = Model::new().input("latent_sample", F32, "b, 16, h, w").output("sample", F32, "b, 3, h, w");
    let pooled = unet().input("pooled_projections", F32, "b, 8");
    let facts = facts(Dir::new().graph("transformer/model.onnx", pooled).graph("vae_decoder/model.onnx", deep));
    assert_eq!((facts.scaling_factor.value, facts.shift_factor.value), (1.5305, 0.0609));
}

#[test]
fn a_configuration_comes_before_the_family() {
    let facts = facts(legacy().put("vae_encoder/config.json", r#"{"scaling_factor": 0.25, "shift_factor": null}"#));
    assert_eq!(facts.scaling_factor.value, 0.25);
    assert_eq!(facts.scaling_factor.source, "vae_encoder/config.json");
    assert_eq!(facts.shift_factor.value, 0.0);
}

/// diffusers' pipeline class for the x4 upscaler sets the factor, whatever the VAE's configuration contains.
#[test]
fn the_upscalers_scaling_factor_is_that_of_its_pipeline() {
    let index = r#"{"_class_name": "StableDiffusionUpscalePipeline"}"#;
    let dir =
        || legacy().put("vae_decoder/config.json", r#"{"scaling_factor": 0.18215}"#).put("model_index.json", index);
    let factor = facts(dir()).scaling_factor;
    assert_eq!((factor.value, factor.source.as_str()), (0.08333, "StableDiffusionUpscalePipeline sets it"));
    let overrides = DirectoryOverrides { scaling_factor: Some(0.5), ..DirectoryOverrides::default() };
    assert_eq!(Bundle::open(dir().path(), &overrides).unwrap().facts.scaling_factor.value, 0.5);
}

/// Constructor arguments that model_index.json may contain, and their defaults.
#[test]
fn arguments_of_a_class_are_those_of_its_index_or_its_defaults() {
    let xl = || unet().input("time_ids", F32, "b, 6").input("text_embeds", F32, "b, 8");
    let refiner = || unet().input("time_ids", F32, "b, 5").input("text_embeds", F32, "b, 8");
    let instruct = "StableDiffusionXLInstructPix2PixPipeline";
    // The class, the rest of its index, the denoiser, the zeros for an empty prompt, and the scaling of an
    // instruction's image.
    let rows = [
        ("StableDiffusionXLPipeline", "", xl(), Some(true), false),
        ("ORTStableDiffusionXLPipeline", r#", "force_zeros_for_empty_prompt": false"#, xl(), Some(false), false),
        ("StableDiffusionXLImg2ImgPipeline", "", refiner(), Some(true), false),
        ("StableDiffusionPipeline", "", unet(), None, false),
        (instruct, "", xl(), Some(true), false),
        (instruct, r#", "is_cosxl_edit": false"#, xl(), Some(true), false),
        (instruct, r#", "is_cosxl_edit": true"#, xl(), Some(true), true),
        ("StableDiffusionInstructPix2PixPipeline", r#", "is_cosxl_edit": true"#, unet(), None, false),
    ];
    for (class, more, denoiser, zeros, scales) in rows {
        let index = format!(r#"{{"_class_name": "{class}"{more}}}"#);
        let bundle = legacy().graph("unet/model.onnx", denoiser).put("model_index.json", index).open().unwrap();
        let found = (bundle.forces_zeros_for_empty_prompt(), bundle.scales_followed_image());
        assert_eq!(found, (zeros, scales), "{class}{more}");
    }
}

#[test]
fn a_vq_stage_is_not_scaled_unless_it_says_so() {
    let vq = || Dir::new().graph("unet/model.onnx", unet()).graph("vqvae_decoder/model.onnx", decoder());
    let plain = facts(vq());
    assert_eq!((plain.autoencoder, plain.scaling_factor.value), (Autoencoder::Vq, 1.0));
    let elsewhere = facts(legacy().put("vae_decoder/config.json", r#"{"_class_name": "VQModel"}"#));
    assert_eq!((elsewhere.autoencoder, elsewhere.scaling_factor.value), (Autoencoder::Vq, 1.0));
    let scaled =
        facts(vq().put("vqvae_decoder/config.json", r#"{"scaling_factor": 0.18215, "block_out_channels": [1, 2, 4]}"#));
    assert_eq!((scaled.scaling_factor.value, scaled.spatial_factor.value), (0.18215, 4));
}

#[test]
fn statistics_of_the_latents_are_read() {
    let config = r#"{"latents_mean": [1, 2, 3, 4], "latents_std": [5, 6, 7, 8.5]}"#;
    let statistics = facts(legacy().put("vae_decoder/config.json", config)).latent_statistics.unwrap().value;
    assert_eq!((statistics.mean[3], statistics.std[3]), (4.0, 8.5));
    assert!(facts(legacy()).latent_statistics.is_none());
}

#[test]
fn the_spatial_factor_is_read_where_it_can_be() {
    let with = |model: Model| facts(Dir::new().graph("unet/model.onnx", unet()).graph("vae_decoder/model.onnx", model));
    assert_eq!(with(doubled(decoder(), 3)).spatial_factor.value, 8);
    assert_eq!(with(doubled(decoder(), 2)).spatial_factor.value, 4);
    let fixed = Model::new().input("z", F32, "1, 4, 32, 32").output("sample", F32, "1, 3, 512, 512");
    assert_eq!(with(fixed).spatial_factor.value, 16);
    let unknown = with(decoder());
    assert_eq!(unknown.spatial_factor.value, 8);
    assert!(unknown.spatial_factor.source.contains("assumed"));
}

#[test]
fn only_sizes_that_cannot_work_are_ruled_out() {
    let with = |model: Model| facts(legacy().graph("unet/model.onnx", model));
    let fixed = with(doubled(unet(), 3));
    assert_eq!((fixed.latent_multiple.value, fixed.size_multiple()), (8, 64));
    let free = unet().node("Resize", &["x", "", "", "sizes"], &["y"]);
    assert_eq!(with(free).size_multiple(), 8);
}

#[test]
fn default_sizes_come_from_config_shape_or_family() {
    assert_eq!(facts(legacy()).default_size.value, (512, 512));
    let fixed = facts(legacy().graph("unet/model.onnx", unet_with("1, 4, 40, 64", F32, "")));
    assert_eq!(fixed.default_size.value, (512, 320));
    assert_eq!(fixed.fixed_size.unwrap().value, (512, 320));
    let pair = facts(legacy().put("unet/config.json", r#"{"sample_size": [48, 64]}"#));
    assert_eq!(pair.default_size.value, (512, 384));
    let none = facts(legacy().put("unet/config.json", r#"{"sample_size": null}"#));
    assert_eq!(none.default_size.value, (512, 512));
}

/// diffusers' Stable Diffusion classes read a `sample_size` below 64 that a version before 0.9 wrote as 64. Its other
/// classes do not, and an explicit or fixed size does not change.
#[test]
fn old_sample_sizes_are_corrected_as_the_tasks_class_does() {
    let size = |class: &str, config: &str, task: &str| {
        let index = format!(r#"{{"_class_name": "{class}"}}"#);
        let dir = legacy().put("model_index.json", index).put("unet/config.json", config);
        dir.open().unwrap().default_size(task, false).value.0
    };
    let old = r#"{"sample_size": 32, "_diffusers_version": "0.8.1"}"#;
    assert_eq!(size("StableDiffusionPipeline", old, "text-to-image"), 512);
    assert_eq!(size("StableDiffusionPipeline", old, "inpaint"), 512);
    assert_eq!(size("StableDiffusionXLPipeline", old, "text-to-image"), 256);
    for other in [
        r#"{"sample_size": 32, "_diffusers_version": "0.9.0"}"#,
        r#"{"sample_size": 32, "_diffusers_version": "0.39.0"}"#,
        r#"{"sample_size": 32, "_diffusers_version": "main"}"#,
        r#"{"sample_size": 32}"#,
    ] {
        assert_eq!(size("StableDiffusionPipeline", other, "text-to-image"), 256, "{other}");
    }
    let larger = r#"{"sample_size": 96, "_diffusers_version": "0.8.1"}"#;
    assert_eq!(size("StableDiffusionPipeline", larger, "text-to-image"), 768);
    assert_eq!(size("OnnxStableDiffusionPipeline", larger, "text-to-image"), 512, "the first ONNX pipelines' own");
    let overrides = DirectoryOverrides { sample_size: Some(40), ..DirectoryOverrides::default() };
    let dir = legacy().put("unet/config.json", old);
    assert_eq!(Bundle::open(dir.path(), &overrides).unwrap().default_size("text-to-image", false).value, (320, 320));
}

#[test]
fn latent_channels_fall_back_from_shape_to_convolution() {
    let free = Model::new()
        .input("latent_sample", F32, "batch, channels, height, width")
        .output("sample", F32, "batch, 3, height, width")
        .weight("post_quant_conv", &[4, 4, 1, 1])
        .node("Conv", &["latent_sample", "post_quant_conv"], &["z"]);
    let facts = facts(legacy().graph("vae_decoder/model.onnx", free));
    assert_eq!(facts.latent_channels.value, 4);
    assert!(facts.latent_channels.source.contains("first convolution"));
}

#[test]
fn weights_are_counted_by_type() {
    let graph = read(unet().weight("a", &[10, 10]).weight("b", &[5])).unwrap();
    assert_eq!(graph.weight_bytes, 420);
    assert_eq!(graph.opsets[""], 17);
    assert_eq!(graph.producer, "writer 1.0");
    assert_eq!(graph.ir_version, 8);
}
