//! Commands that describe: `inspect`, `list`, `runtime`, help, and the words of `check`.

use super::{assert_says, call, printed};
use crate::common::{models, root};

#[test]
fn inspect_tells_what_a_directory_holds() {
    let text = printed(&models(), &["inspect", "sd1"]);
    assert_says(&text, &["text_encoder", "unet", "vae_encoder", "vae_decoder", "tokenizer", "PNDMScheduler"]);
    assert_says(&text, &["encoder_hidden_states", "latent_parameters", "int64", "float32", "batch_size", "height"]);

    let text = printed(&models(), &["inspect", "sd1-legacy"]);
    assert_says(&text, &["legacy", "int32", "latent_sample", "weights.pb"]);

    let text = printed(&models(), &["inspect", "pixel"]);
    assert_says(&text, &["unet", "DDPMScheduler", "timestep"]);
    assert!(!text.contains("text_encoder:"), "{text}");
}

#[test]
fn inspect_tells_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("model/unet")).expect("a folder");
    std::fs::copy(models().join("sd1/unet/model.onnx"), folder.path().join("model/unet/model.onnx")).expect("a copy");
    std::fs::copy(models().join("sd1/model_index.json"), folder.path().join("model/model_index.json")).expect("a copy");
    let text = printed(folder.path(), &["inspect", "model"]);
    assert_says(&text, &["missing", "text_encoder/model.onnx", "scheduler/scheduler_config.json", "tokenizer/"]);
}

/// A pipeline file is inspected with what it says over its models' directories, those of its stages too.
#[test]
fn a_pipeline_file_is_inspected() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = |name: &str| models().join(name).display().to_string();
    let text = format!(
        "[model]\npath = '{}'\nscaling_factor = 0.5\nunet.graph = '{}'\nunet.inputs = {{ timestep = 'timestep' }}\n\
         [task.text-to-image]\nprompt = 'a'\n",
        model("sd1"),
        model("variants/unet-int64-timestep.onnx"),
    );
    std::fs::write(folder.path().join("one.toml"), &text).expect("a file");
    let said = printed(folder.path(), &["inspect", "one.toml"]);
    assert_says(&said, &["unet-int64-timestep.onnx", "0.5", "vae_decoder", "tasks     text-to-image"]);
    let stage = format!("[[stage]]\nmodel.path = '{}'\ntask.image-to-image = {{}}\n", model("sd2v"));
    std::fs::write(folder.path().join("two.toml"), text.clone() + &stage).expect("a file");
    assert_says(
        &printed(folder.path(), &["inspect", "two.toml"]),
        &["unet-int64-timestep.onnx", "\nstage[0]: ", "sd2v"],
    );
    let json: serde_json::Value =
        serde_json::from_str(&printed(folder.path(), &["inspect", "two.toml", "--json"])).expect("it is JSON");
    assert!(json["directory"].as_str().is_some_and(|path| path.ends_with("sd1")), "{json}");
    assert!(json["stages"][0]["directory"].as_str().is_some_and(|path| path.ends_with("sd2v")), "{json}");
    std::fs::write(folder.path().join("wrong.toml"), text + "stepz = 5\n").expect("a file");
    let answer = call(folder.path(), &["inspect", "wrong.toml"]);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert!(answer.stderr.contains("stepz"), "{answer}");
}

/// A table about a component that the pipeline does not open is told, and one that a stage opens is not.
#[test]
fn tables_about_what_is_not_opened_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "[model]\npath = '{}'\nvae_encoder.graph = '{}'\n[task.text-to-image]\nprompt = 'a'\n[run]\nsteps = 1\n\
         [device]\nprovider = 'cpu'\ncontrolnet.provider = 'cpu'\nvae_encoder.provider = 'cpu'\nunet.provider = 'cpu'\n",
        models().join("sd1").display(),
        models().join("sd1/vae_encoder/model.onnx").display(),
    );
    std::fs::write(folder.path().join("one.toml"), &text).expect("a file");
    for command in ["check", "run"] {
        let answer = call(folder.path(), &[command, "one.toml"]);
        assert_eq!(answer.code, Some(0), "{answer}");
        for table in ["[model.vae_encoder]", "[device.vae_encoder]", "[device.controlnet]"] {
            assert!(answer.stderr.contains(&format!("warning: {table} stands for nothing")), "{table}: {answer}");
        }
        assert!(!answer.stderr.contains("[device.unet]"), "{answer}");
    }
    let stage = format!(
        "[[stage]]\ninput = 'image'\nmodel.path = '{}'\ntask.image-to-image = {{}}\n",
        models().join("sd1").display()
    );
    std::fs::write(folder.path().join("two.toml"), text + &stage).expect("a file");
    let answer = call(folder.path(), &["check", "two.toml"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_eq!(answer.stderr.matches("warning").count(), 2, "{answer}");
    assert_says(&answer.stderr, &["[model.vae_encoder]", "[device.controlnet]"]);
}

#[test]
fn lists_hold_what_can_be_written() {
    let text = printed(&models(), &["list", "schedulers"]);
    assert_says(&text, &["ddim", "ddpm", "pndm", "euler", "euler-ancestral", "dpm-multistep"]);
    let text = printed(&models(), &["list", "tasks"]);
    assert_says(&text, &["text-to-image", "image-to-image"]);
    let text = printed(&models(), &["list", "providers"]);
    assert_says(&text, &["cpu", "cuda", "tensorrt", "directml", "openvino", "coreml", "webgpu"]);
}

#[test]
fn runtime_tells_which_library_is_used_and_why() {
    let text = printed(&models(), &["runtime"]);
    assert_says(&text, &["onnxruntime"]);
    let answer = call(&models(), &["runtime", "list"]);
    assert_eq!(answer.code, Some(0), "{answer}");
}

#[test]
fn help_and_version_are_results() {
    assert_says(&printed(&models(), &["--help"]), &["run", "check", "inspect", "init", "list", "plot", "runtime"]);
    let flags = ["--prompt", "--negative-prompt", "--seed", "--steps", "--images", "--width", "--height", "--provider"];
    let help = printed(&models(), &["run", "--help"]);
    assert_says(&help, &flags);
    assert_says(&help, &["--output", "--set", "--save-latents", "--json", "--from"]);
    assert_says(&printed(&models(), &["--version"]), &[env!("CARGO_PKG_VERSION")]);
}

/// The log at `-v` names the library and its version, without ort's alarm about a newer one.
#[test]
fn more_words_are_no_alarm() {
    let answer = call(&models(), &["-v", "list", "providers"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert!(answer.stderr.contains("ONNX Runtime 1."), "{answer}");
    assert!(!answer.stderr.contains("compatibility issues"), "{answer}");
}

/// One of a thing is told in the singular.
#[test]
fn one_is_no_plural() {
    let pipeline = root().join("pipeline.toml");
    let pipeline = pipeline.to_str().expect("the path is Unicode");
    let of = |steps: &str| printed(&models(), &["check", pipeline, "--steps", steps, "--preview", steps]);
    assert_says(&of("1"), &["1 image of", "1 step of ddim", "previews every step are made"]);
    assert_says(&of("2"), &["2 steps of ddim", "previews every 2 steps are made"]);
}
