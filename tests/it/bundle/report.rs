//! The output of `inspect` and `init`.

use crate::common::root;
use ldm_ort::bundle::{Bundle, ComponentKind, DirectoryOverrides, inspect, obstacles};
use ldm_ort::spec::Spec;
use ldm_ort::spec::init_toml;
use ldm_ort::task::task_fits;
use ldm_ort::tensor::DType;

use super::writer::{BF16, Dir, F32, I64, Model, decoder, legacy, read, unet, unet_with};

fn init_of(bundle: &Bundle, model_path: &str) -> String {
    init_toml(bundle, model_path, &task_fits(bundle))
}

fn possible(dir: &Dir) -> Vec<&'static str> {
    task_fits(&dir.open().unwrap()).into_iter().filter(|t| t.possible).map(|t| t.task).collect()
}

#[test]
fn the_report_names_what_an_issue_needs() {
    let text = inspect(legacy().path(), &DirectoryOverrides::default(), task_fits).unwrap().to_string();
    for part in [
        "legacy ONNX layout",
        "OnnxStableDiffusionPipeline",
        "unet/model.onnx",
        "encoder_hidden_states  float32  [batch, sequence, 768]",
        "context",
        "opsets ai.onnx 17; format 8; written by writer 1.0",
        "50 rows in the embedding table",
        "class PNDMScheduler",
        "prediction_type = \"epsilon\"",
        "0.18215",
        "all operators are supported by all of them",
        "text-to-image, image-to-image, inpaint",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

/// Half-precision exports state the noise that diffusers draws for them, which differs from float32 noise.
#[test]
fn noise_in_half_precision_is_named() {
    let variants = root().join("tests/fixtures/models");
    let open = |graph: Option<&str>| {
        let graphs = graph.map(|name| (ComponentKind::Unet, variants.join("variants").join(name)));
        let overrides = DirectoryOverrides { graphs: graphs.into_iter().collect(), ..DirectoryOverrides::default() };
        (
            Bundle::open(&variants.join("sd1"), &overrides).unwrap(),
            inspect(&variants.join("sd1"), &overrides, task_fits).unwrap(),
        )
    };
    let (bundle, report) = open(Some("unet-half.onnx"));
    let (toml, text) = (init_of(&bundle, "model"), report.to_string());
    assert!(toml.contains("# noise = \"torch-cpu-float16\"    # diffusers' with torch_dtype=torch.float16"), "{toml}");
    assert!(text.contains("noise in half precision") && text.contains("torch-cpu-float16"), "{text}");
    let chosen = toml.replace("# noise", "noise");
    assert_eq!(Spec::parse(&chosen, None, &Default::default()).unwrap().run.noise.name(), "torch-cpu-float16");
    let (bundle, report) = open(None);
    assert!(!init_of(&bundle, "model").contains("noise =") && !report.to_string().contains("half precision"));
}

#[test]
fn the_report_serialises() {
    let report = inspect(legacy().path(), &DirectoryOverrides::default(), task_fits).unwrap();
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["components"][1]["inputs"][0]["role"], "sample");
    assert_eq!(value["facts"][1]["value"], "4");
}

#[test]
fn a_damaged_part_does_not_hide_the_rest() {
    let dir =
        legacy().put("vae_encoder/model.onnx", "<html>").graph("unet/model.onnx", unet().input("odd", I64, "a, b, c"));
    let report = inspect(dir.path(), &DirectoryOverrides::default(), task_fits).unwrap();
    assert_eq!(report.faults.len(), 2, "{:?}", report.faults);
    let text = report.to_string();
    assert!(text.contains("web page") && text.contains("odd") && text.contains("vae_decoder/model.onnx"), "{text}");
}

#[test]
fn fused_operators_rule_providers_out() {
    let model = unet()
        .node("com.microsoft:GroupNorm", &["x"], &["y"])
        .node("com.microsoft:MultiHeadAttention", &["qkv"], &["z"])
        .node("com.microsoft:SkipLayerNormalization", &["x"], &["y"])
        .node("my.company:Thing", &["x"], &["y"]);
    let found = obstacles(&read(model.clone()).unwrap());
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|o| o.rules_out("cpu")));
    assert!(!found[0].rules_out("cuda") && found[0].rules_out("openvino"));
    assert!(found[0].to_string().contains("com.microsoft:GroupNorm"));
    assert!(found[2].to_string().contains("no provider is known"));
    let unpacked = unet().node("com.microsoft:MultiHeadAttention", &["q", "k", "v"], &["z"]);
    assert!(obstacles(&read(unpacked).unwrap()).is_empty());
    let text = inspect(legacy().graph("unet/model.onnx", model).path(), &DirectoryOverrides::default(), task_fits)
        .unwrap()
        .to_string();
    assert!(text.contains("runs on: cuda, rocm, directml"), "{text}");
}

#[test]
fn tasks_follow_from_channels_and_parts() {
    let with = |channels: usize| legacy().graph("unet/model.onnx", unet_with(&format!("b, {channels}, h, w"), F32, ""));
    assert_eq!(possible(&with(4)), ["text-to-image", "image-to-image", "inpaint"]);
    assert_eq!(possible(&with(9)), ["inpaint"]);
    assert_eq!(possible(&with(8)), ["instruct"]);
    assert_eq!(possible(&with(7)), ["super-resolution"]);
    let dir = with(4);
    std::fs::remove_dir_all(dir.join("vae_encoder")).unwrap();
    assert_eq!(possible(&dir), ["text-to-image"]);
    let fits = task_fits(&dir.open().unwrap());
    assert_eq!(fits[1].reason, "the directory has no VAE's encoder");
    let refiner = unet().input("text_embeds", F32, "b, 8").input("time_ids", F32, "b, 5");
    let index = r#"{"_class_name": "StableDiffusionXLImg2ImgPipeline"}"#;
    let dir = legacy().graph("unet/model.onnx", refiner).put("model_index.json", index);
    assert_eq!(possible(&dir), ["image-to-image", "inpaint"]);
    let dir = dir.put("model_index.json", r#"{"_class_name": "SanaSprintPipeline"}"#);
    assert!(possible(&dir).is_empty());
    assert!(task_fits(&dir.open().unwrap())[0].reason.contains("SanaSprintPipeline"));
}

#[test]
fn models_without_text_have_their_tasks() {
    let plain = |channels: usize| {
        Model::new().input("sample", F32, &format!("b, {channels}, h, w")).input("timestep", I64, "1").output(
            "out_sample",
            F32,
            "b, 4, h, w",
        )
    };
    let dir = |model| Dir::new().graph("unet/model.onnx", model).graph("vqvae_decoder/model.onnx", decoder());
    assert_eq!(possible(&dir(plain(4))), ["unconditional"]);
    assert_eq!(possible(&dir(plain(7))), ["super-resolution"]);
    assert_eq!(possible(&dir(plain(4).input("class_labels", I64, "b"))), ["class-conditional"]);
}

#[test]
fn the_written_pipeline_is_a_valid_one() {
    let textless = Model::new().input("sample", F32, "b, 4, h, w").input("timestep", I64, "1").output(
        "out_sample",
        F32,
        "b, 4, h, w",
    );
    let refiner = unet().input("text_embeds", F32, "b, 8").input("time_ids", F32, "b, 5");
    let dirs = [
        legacy(),
        legacy().graph("unet/model.onnx", refiner),
        Dir::new().graph("unet/model.onnx", textless).graph("vqvae_decoder/model.onnx", decoder()),
        Dir::new().graph("unet/model.onnx", unet()),
    ];
    for dir in dirs {
        let text = init_of(&dir.open().unwrap(), "models/shapes");
        if let Err(error) = Spec::parse(&text, None, &Default::default()) {
            panic!("{error} in\n{text}");
        }
    }
}

#[test]
fn the_written_pipeline_parses() {
    let dir = legacy();
    let text = init_of(&dir.open().unwrap(), "models/my \"model\"");
    let table: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(table["model"]["path"].as_str(), Some("models/my \"model\""));
    assert_eq!(table["run"]["width"].as_integer(), Some(512));
    assert!(table["task"].as_table().unwrap().contains_key("text-to-image"));
    assert!(text.contains("PNDMScheduler"));
    let bare = Dir::new().graph("unet/model.onnx", unet());
    let text = init_of(&bare.open().unwrap(), "m");
    assert!(text.contains("lacks something for every task"), "{text}");
    let table: toml::Table = toml::from_str(&text).unwrap();
    assert!(table["scheduler"].as_table().unwrap().contains_key("ddim"));
}

/// A UNet with ControlNet inputs next to the plain one is optional; alone, it is the denoiser.
#[test]
fn a_control_network_is_offered_where_one_can_take_part() {
    let with_residuals = || {
        unet().input("down_block_0_additional_residual", F32, "b, 8, h, w").input(
            "mid_block_additional_residual",
            F32,
            "b, 8, h, w",
        )
    };
    let control =
        |text: &str| text.lines().filter(|line| line.contains("[[control]]")).map(str::to_owned).collect::<Vec<_>>();
    assert!(control(&init_of(&legacy().open().unwrap(), "m")).is_empty());
    let alone = legacy().graph("unet/model.onnx", with_residuals());
    assert_eq!(control(&init_of(&alone.open().unwrap(), "m")), ["[[control]]"]);
    let beside = legacy().graph("controlnet/model.onnx", with_residuals());
    let text = init_of(&beside.open().unwrap(), "m");
    assert_eq!(control(&text), ["# [[control]]"]);
    for text in [text.clone(), uncommented(&text)] {
        let spec = Spec::parse(&text, None, &Default::default()).unwrap_or_else(|error| panic!("{error} in\n{text}"));
        let network = spec.controls.first().map(|control| control.path.as_deref());
        assert!(network.is_none_or(|path| path == Some(std::path::Path::new("controlnet"))), "{text}");
    }
}

/// With the ControlNet's table.
fn uncommented(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|line| *line == "# [[control]]").expect("the table");
    for line in &mut lines[start..start + 4] {
        *line = line.strip_prefix("# ").expect("a comment");
    }
    lines.join("\n")
}

/// Operators that a file defines need no other library, and the operators in them are checked.
#[test]
fn operators_of_the_files_own_are_no_obstacles() {
    let graph = read(unet().node("pkg.torch:norm", &["sample"], &["n"]).function("pkg.torch:norm", "Mul")).unwrap();
    assert!(graph.has_functions && obstacles(&graph).is_empty(), "{:?}", graph.operators);
    assert!(graph.operators.keys().any(|operator| operator.to_string() == "Mul"));
    let graph = read(unet().node("pkg.torch:norm", &["sample"], &["n"])).unwrap();
    assert!(!graph.has_functions && obstacles(&graph).len() == 1, "{:?}", graph.operators);
}

#[test]
fn the_types_that_products_are_made_of_are_known() {
    let model = unet().weight_of("w", BF16, &[4, 4]).weight("v", &[4, 4]).node("MatMul", &["sample", "w"], &["a"]);
    let model = model.node("Add", &["sample", "w"], &["b"]).node("Gemm", &["sample", "v"], &["c"]);
    let products = read(model.node("MatMul", &["sample", "a"], &["d"])).unwrap().products;
    let expected = [("Gemm".to_owned(), DType::F32), ("MatMul".to_owned(), DType::Bf16)];
    assert_eq!(products.into_iter().collect::<Vec<_>>(), expected);
}
