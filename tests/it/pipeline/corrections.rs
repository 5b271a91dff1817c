//! Scheduler configurations that diffusers' pipeline classes correct, and those that they leave.
//!
//! The references are in `tests/golden/corrections`, made by `scripts/goldens/golden_corrections.py`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::draw::draw;
use super::{models, npy};
use crate::common::{answer, copy_folder, ldm_ort, root};

fn golden() -> PathBuf {
    root().join("tests/golden/corrections")
}

/// A fixture with another scheduler_config.json in `folder/model`.
fn lay_out(folder: &Path, fixture: &str, scheduler: &Value) {
    copy_folder(&models().join("..").join(fixture), &folder.join("model"));
    write(&folder.join("model/scheduler/scheduler_config.json"), scheduler);
}

fn write(path: &Path, json: &Value) {
    fs::write(path, json.to_string()).expect("a file can be written");
}

fn index(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("model/model_index.json")).expect("an index");
    serde_json::from_str(&text).expect("an index is JSON")
}

/// Text-to-image, image-to-image and inpainting of Stable Diffusion 1 correct; XL, ControlNet and InstructPix2Pix do not.
#[test]
fn schedulers_are_corrected_as_diffusers_corrects_them() {
    let cases: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(golden().join("cases.json")).expect("cases.json")).expect("JSON");
    let bytes = fs::read(golden().join("latents.f32")).expect("latents.f32");
    let mut values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
    assert!(cases.len() >= 45, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let text = |key: &str| case[key].as_str().expect("a text");
        let folder = tempfile::tempdir().expect("a folder");
        lay_out(folder.path(), text("fixture"), &case["scheduler"]);
        for image in ["in.png", "mask.png", "control.png"] {
            fs::copy(golden().join(image), folder.path().join(image)).expect("an image");
        }
        fs::write(folder.path().join("pipeline.toml"), text("pipeline")).expect("a file can be written");
        draw(folder.path(), ["pipeline.toml", "--save-latents", "latents.npy"]);
        let got = npy::read(&folder.path().join("latents.npy"));
        let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).expect("a shape");
        let expected = npy::Array { values: values.by_ref().take(shape.iter().product()).collect(), shape };
        let apart = got.difference(&expected);
        if apart > 1e-5 {
            wrong.push(format!("{apart:.1e} apart: {} {}\n{}", text("fixture"), case["scheduler"], text("pipeline")));
        }
    }
    assert_eq!(values.next(), None, "every value of latents.f32 belongs to a case");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// `check` shows the corrections in force, and what a pipeline file sets is none.
#[test]
fn check_shows_what_the_pipeline_class_corrects() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = json!({"_class_name": "PNDMScheduler", "skip_prk_steps": false, "steps_offset": 0});
    lay_out(folder.path(), "models/sd1", &file);
    let check = |tables: &str| {
        let toml =
            format!("[model]\npath = 'model'\n[task.text-to-image]\nprompt = 'a cat'\n{tables}[run]\nsteps = 4\n");
        fs::write(folder.path().join("pipeline.toml"), toml).expect("a file can be written");
        let mut command = ldm_ort(folder.path());
        command.args(["check", "pipeline.toml"]);
        let answer = answer(command);
        assert_eq!(answer.code, Some(0), "{answer}");
        answer.stdout
    };
    let offset = "scheduler: steps_offset = 1, which StableDiffusionPipeline sets (scheduler_config.json has 0)\n";
    assert!(check("").contains(offset), "{}", check(""));
    assert!(!check("").contains("skip_prk_steps"), "inpainting alone corrects it: {}", check(""));
    let own = check("[scheduler.pndm]\nskip_prk_steps = true\n");
    assert!(own.contains(offset), "the model's own class keeps the correction: {own}");
    let other = check("[scheduler.ddim]\n");
    assert!(other.contains(offset) && !other.contains("clip_sample"), "a missing key is not carried: {other}");
    let given = check("[scheduler.pndm]\nsteps_offset = 0\n");
    assert!(!given.contains("steps_offset"), "{given}");
}

/// diffusers' `DDIMPipeline` and `PNDMPipeline` convert whatever scheduler they are given.
#[test]
fn a_pipeline_class_converts_its_scheduler() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&models().join("pixel"), &folder.path().join("model"));
    let run = |class: &str, table: &str| {
        let mut named = index(folder.path());
        named["_class_name"] = class.into();
        write(&folder.path().join("model/model_index.json"), &named);
        let toml = format!("[model]\npath = 'model'\n[task.unconditional]\n{table}[run]\nsteps = 4\nseed = 5\n");
        fs::write(folder.path().join("pipeline.toml"), toml).expect("a file can be written");
        draw(folder.path(), ["pipeline.toml", "--save-latents", "latents.npy"]);
        npy::read(&folder.path().join("latents.npy"))
    };
    for (class, name) in [("DDIMPipeline", "ddim"), ("PNDMPipeline", "pndm")] {
        let converted = run(class, "");
        assert_eq!(converted, run("DDPMPipeline", &format!("[scheduler.{name}]\n")));
        assert_ne!(converted, run("DDPMPipeline", ""));
        assert_eq!(run(class, "[scheduler.euler]\n"), run("DDPMPipeline", "[scheduler.euler]\n"));
    }
}
