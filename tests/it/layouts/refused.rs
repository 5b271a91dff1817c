//! Layouts that are known and not run: what is said of them.

use super::files::Files;
use super::graph::{BOOL, F32, Graph, I64};
use super::{pixart, program, sana};

const PIPELINE: &str = "[model]\npath = 'model'\n[task.text-to-image]\nprompt = 'a cat'\n[run]\nsteps = 2\nseed = 1\n";

/// Has `inspect` open and `check` and `run` refuse a layout made of a fixture, with all of these texts in what it says.
fn refuses(fixture: &str, change: impl FnOnce(&mut Files), texts: &[&str]) {
    refuses_in(PIPELINE, fixture, change, texts);
}

fn refuses_in(pipeline: &str, fixture: &str, change: impl FnOnce(&mut Files), texts: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = Files::of(fixture);
    change(&mut files);
    files.write(&folder.path().join("model"));
    std::fs::write(folder.path().join("pipeline.toml"), pipeline).expect("a file can be written");
    image::RgbImage::new(64, 64).save(folder.path().join("in.png")).expect("an image can be written");
    assert_eq!(program(folder.path(), &["inspect", "model"]).code, Some(0));
    for command in ["check", "run"] {
        let answer = program(folder.path(), &[command, "pipeline.toml"]);
        assert_eq!(answer.code, Some(2), "{answer}");
        for text in texts {
            assert!(answer.stderr.contains(text), "{text:?} is not said by {command}: {answer}");
        }
    }
}

/// Writes another pipeline class into model_index.json.
pub fn rename_class(files: &mut Files, class: &str) {
    let text = String::from_utf8(files.get("model_index.json")).expect("an index is text");
    let mut index: serde_json::Value = serde_json::from_str(&text).expect("an index is JSON");
    index["_class_name"] = class.into();
    files.put("model_index.json", index.to_string());
}

#[test]
fn a_pipeline_class_that_is_not_known_is_refused() {
    for (fixture, class) in [
        ("families/xl", "KolorsPipeline"),
        ("models/sd1", "StableUnCLIPPipeline"),
        ("families/flux-dev", "Flux2Pipeline"),
        ("families/flux-dev", "ORTFluxFillPipeline"),
        ("families/pixart-sigma", "SanaSprintPipeline"),
    ] {
        let texts = [class, "model_index.json", "[model] family = \"…\"", "stable-diffusion-xl"];
        refuses(fixture, |files| rename_class(files, class), &texts);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = Files::of("models/sd1");
    rename_class(&mut files, "SanaSprintPipeline");
    files.write(&folder.path().join("model"));
    let answer = program(folder.path(), &["init", "model"]);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert!(answer.stderr.contains("the pipeline class SanaSprintPipeline"), "{answer}");
    let answer = program(folder.path(), &["inspect", "model"]);
    assert!(answer.stdout.contains("the pipeline class SanaSprintPipeline"), "{answer}");
}

#[test]
fn a_class_and_a_denoiser_that_contradict_each_other_are_refused() {
    let refused =
        |fixture: &str, class: &str, texts: &[&str]| refuses(fixture, |files| rename_class(files, class), texts);
    refused("families/xl", "StableDiffusionPipeline", &["StableDiffusionPipeline", "takes sizes (time_ids)"]);
    refused("models/sd1", "StableDiffusionXLPipeline", &["StableDiffusionXLPipeline", "takes no sizes"]);
    refused("families/sd3", "FluxPipeline", &["FluxPipeline", "SD3Transformer2DModel"]);
}

fn edits(fixture: &str, graph: &str, change: impl for<'g> FnOnce(&'g mut Graph) -> &'g mut Graph, texts: &[&str]) {
    let change = |files: &mut Files| {
        files.edit(graph, change);
    };
    refuses(fixture, change, texts);
}

#[test]
fn a_text_encoder_without_its_table_is_refused() {
    refuses(
        "models/sd1",
        |files| {
            for part in ["text_encoder", "unet", "vae_decoder", "vae_encoder"] {
                files.shift(&format!("{part}/model.onnx"), &format!("{part}.onnx"));
            }
            files.edit("text_encoder.onnx", |g| {
                g.rename("input_ids", "input_embeddings").redeclare("input_embeddings", F32, "batch, sequence, 16")
            });
            files.put("pyke-diffusers.toml", "").put("text_embeddings.bin", [0; 64]);
        },
        &["text_encoder.onnx", "input_embeddings", "float32", "export it with input_ids"],
    );
}

#[test]
fn a_control_network_built_into_the_denoiser_is_refused() {
    edits(
        "models/sd1",
        "unet/model.onnx",
        |g| g.leftover("controlnet_images", F32, "n, 2B, 3, H, W").leftover("controlnet_scales", F32, "n"),
        &["controlnet_images", "[n, 2B, 3, H, W]", "built in", "export the two apart"],
    );
}

#[test]
fn what_nobody_can_fill_is_refused_with_a_table() {
    edits(
        "models/sd1",
        "unet/model.onnx",
        |g| g.leftover("mystery", F32, "batch, 3, 5").leftover("is_odd", BOOL, ""),
        &[
            "2 inputs that nothing here can fill",
            "mystery  float32  [batch, 3, 5]",
            "is_odd   bool  []",
            "tried by name, by shape and by type",
            "[model.unet] inputs",
        ],
    );
}

#[test]
fn states_chosen_by_nobody_are_refused() {
    edits(
        "families/xl",
        "text_encoder/model.onnx",
        |g| g.without_output("hidden_states.0").without_output("hidden_states.1").without_output("hidden_states.2"),
        &["text_encoder/model.onnx", "before the last layer", "last_hidden_state", "hidden states"],
    );
}

#[test]
fn a_denoiser_is_no_control_network() {
    let control = format!("{PIPELINE}[[control]]\nimage = 'in.png'\n");
    let folder = tempfile::tempdir().expect("a folder");
    Files::of("families/control").write(&folder.path().join("model"));
    let refused = |path: &str| {
        let pipeline = format!("{control}{path}");
        std::fs::write(folder.path().join("pipeline.toml"), pipeline).expect("a file can be written");
        let answer = program(folder.path(), &["check", "pipeline.toml"]);
        assert_eq!(answer.code, Some(2), "{answer}");
        answer.stderr
    };
    let said = refused("path = 'model/unet'\n");
    assert!(said.contains("unet/model.onnx: is no control network, but a denoiser"), "{said}");
    std::fs::remove_dir_all(folder.path().join("model/controlnet")).expect("a folder can be removed");
    std::fs::rename(folder.path().join("model/unet"), folder.path().join("model/controlnet")).expect("a folder");
    let said = refused("");
    assert!(said.contains("control[0].path") && said.contains("model holds no control network"), "{said}");
}

#[test]
fn graphs_to_choose_from_are_named() {
    refuses(
        "models/sd1",
        |files| {
            let graph = files.get("unet/model.onnx");
            files.shift("unet/model.onnx", "unet/model_fp16.onnx").put("unet/model_quantized.onnx", graph);
        },
        &["unet", "model_fp16.onnx, model_quantized.onnx", "[model.unet] graph"],
    );
    refuses(
        "models/sd1",
        |files| {
            let graph = files.get("unet/model.onnx");
            files.shift("unet", "unet.opt").put("unet.fp8/model.onnx", graph);
        },
        &["2 graphs for unet", "unet.fp8/model.onnx", "unet.opt/model.onnx", "[model.unet] graph"],
    );
}

#[test]
fn an_image_of_another_number_of_tokens_is_refused() {
    edits(
        "families/flux-dev",
        "transformer/model.onnx",
        |g| g.input("hidden_states", F32, "batch, 24, 64").output("out_hidden_states", F32, "batch, 24, 64"),
        &["run.width, run.height", "512×512 is 4096 tokens", "fixed to 24"],
    );
}

/// The default size of the tiny model is 64×64.
#[test]
fn graphs_fixed_at_another_size_are_refused() {
    let decoder = "vae_decoder/model.onnx";
    let of_decoder = |shape: &'static str, texts: &[&str]| {
        edits("models/sd1", decoder, |g| g.redeclare("latent_sample", F32, shape), texts);
    };
    of_decoder("batch, 4, 16, 24", &[decoder, "is fixed at 24×16", "has 8×8", "run.width = 192 and run.height = 128"]);
    of_decoder("batch, 4, h, 16", &[decoder, "is fixed at 16×8", "has 8×8"]);
    of_decoder("batch, 16, h, w", &[decoder, "takes 16 channels", "latents have 4", "vae_decoder/config.json"]);
    edits(
        "models/sd1",
        decoder,
        |g| g.output("sample", F32, "batch, 4, h, w"),
        &[decoder, "gives 4 channels", "an image has 3"],
    );
    edits(
        "models/sd1",
        "unet/model.onnx",
        |g| g.redeclare("sample", F32, "batch, 4, 16, width"),
        &["unet/model.onnx", "sample of unet is fixed at 8×16", "run.height = 128"],
    );
    refuses_in(
        &format!("{PIPELINE}width = 128\nheight = 64\n"),
        "models/sd1",
        |files| {
            files.edit("unet/model.onnx", |g| g.redeclare("sample", F32, "batch, 4, 8, 8"));
        },
        &["run.width, run.height", "128×64 is asked for", "choose 64×64"],
    );
    let image = PIPELINE.replace("text-to-image]", "image-to-image]\nimage = 'in.png'");
    refuses_in(
        &image,
        "models/sd1",
        |files| {
            files.edit("vae_encoder/model.onnx", |g| g.redeclare("sample", F32, "batch, 3, 128, 128"));
        },
        &["vae_encoder/model.onnx", "is fixed at 128×128", "has 64×64", "run.width = 128"],
    );
    let control = format!("{PIPELINE}width = 64\nheight = 64\n[[control]]\nimage = 'in.png'\n");
    refuses_in(
        &control,
        "families/control",
        |files| {
            files.edit("controlnet/model.onnx", |g| g.redeclare("controlnet_cond", F32, "batch, 3, 128, 128"));
        },
        &["controlnet/model.onnx", "controlnet_cond of controlnet is fixed at 128×128", "has 64×64"],
    );
}

/// The tiny model's text encoder reads 16 tokens.
#[test]
fn a_denoiser_of_another_number_of_tokens_is_refused() {
    edits(
        "models/sd1",
        "unet/model.onnx",
        |g| g.redeclare("encoder_hidden_states", F32, "batch, 77, 16"),
        &["unet/model.onnx", "encoder_hidden_states is fixed at 77 tokens", "give 16"],
    );
}

/// A graph of one size is drawn in that, and larger images in tiles of it.
#[test]
fn graphs_of_one_size_are_run_at_it_and_in_tiles() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = Files::of("models/sd1");
    files.edit("unet/model.onnx", |g| g.redeclare("sample", F32, "batch, 4, 16, 16"));
    files.edit("vae_decoder/model.onnx", |g| g.redeclare("latent_sample", F32, "batch, 4, 16, 16"));
    files.write(&folder.path().join("model"));
    for (keys, size) in [("", "128×128"), ("width = 192\nheight = 128\ntile = 16\ntile_stride = 8\n", "192×128")] {
        std::fs::write(folder.path().join("pipeline.toml"), format!("{PIPELINE}{keys}")).expect("a file");
        let check = program(folder.path(), &["check", "pipeline.toml"]);
        assert!(check.code == Some(0) && check.stdout.contains(&format!("of {size} pixels")), "{check}");
        let run = program(folder.path(), &["run", "pipeline.toml"]);
        assert_eq!(run.code, Some(0), "{run}");
    }
}

#[test]
fn a_model_with_a_mask_that_would_draw_other_images_is_refused() {
    for (files, texts) in pixart::refused() {
        refuses("families/pixart-sigma", |into| *into = files, texts);
    }
    for (files, texts) in sana::refused() {
        refuses("families/sana", |into| *into = files, texts);
    }
}

#[test]
fn a_flux_that_is_told_whole_times_is_refused() {
    edits(
        "families/flux-dev",
        "transformer/model.onnx",
        |g| g.rename("timestep", "zero").zeros("zero").leftover("timestep", I64, "batch"),
        &["timestep", "int64", "between 0 and 1", "float timestep"],
    );
}
