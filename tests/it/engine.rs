//! The library's front door: what the command does, programs get.

use std::path::{Path, PathBuf};

use ldm_ort::{Cancel, Engine, Error, ErrorKind, Event, Image, Pipeline, Request};

use crate::common::{answer, ldm_ort, models};

/// A folder with a pipeline of the tiny Stable Diffusion model.
fn folder(task: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!("[model]\npath = '{}'\n{task}[run]\nsteps = 3\nseed = 4\n", models().join("sd1").display());
    let path = folder.path().join("pipeline.toml");
    std::fs::write(&path, text).expect("a file");
    (folder, path)
}

const TEXT_TO_IMAGE: &str = "[task.text-to-image]\nprompt = 'a black cat'\nguidance_scale = 5.0\n";

/// An engine that keeps nothing in the user's cache.
fn engine() -> Engine {
    Engine::builder().graph_cache(false).build().expect("an engine")
}

fn open(path: &Path) -> Pipeline {
    engine().open(path).expect("a pipeline")
}

fn input(folder: &Path) -> PathBuf {
    let path = folder.join("in.png");
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(4 * x) as u8, (4 * y) as u8, 90])).save(&path).expect("a PNG");
    path
}

/// The bytes of each file that the command writes for these flags, from this process's folder: records name files relative to it.
fn command(folder: &Path, arguments: &[&str]) -> Vec<Vec<u8>> {
    let mut command = ldm_ort(Path::new(env!("CARGO_MANIFEST_DIR")));
    command.arg("run").arg(folder.join("pipeline.toml")).arg("--output").arg(folder.join("out")).args(arguments);
    let answer = answer(command);
    assert_eq!(answer.code, Some(0), "{answer}");
    answer.stdout.lines().map(|path| std::fs::read(path).expect("an image")).collect()
}

fn bytes(images: &[Image]) -> Vec<Vec<u8>> {
    images.iter().map(|image| image.to_png().expect("a PNG")).collect()
}

fn is_send<T: Send>() {}
fn is_shared<T: Send + Sync>() {}

#[test]
fn engines_are_shared_and_pipelines_are_sent() {
    is_shared::<Engine>();
    is_shared::<Cancel>();
    is_send::<Pipeline>();
    is_send::<Event>();
    is_shared::<Request>();
}

#[test]
fn programs_get_the_bytes_that_the_command_writes() {
    let (folder, path) = folder(TEXT_TO_IMAGE);
    let input = input(folder.path());
    let mut pipeline = open(&path);
    let requests: [(Request, &[&str]); 4] = [
        (Request::new(), &[]),
        (
            Request::new().prompts(["a dog", "two cats"]).seed(9),
            &["--prompt", "a dog", "--prompt", "two cats", "--seed", "9"],
        ),
        (
            Request::new().scheduler("ddim").steps(2).size(80, 64).set("scheduler.ddim.eta", 1.0),
            &[
                "--scheduler",
                "ddim",
                "--set",
                "scheduler.ddim.eta=1.0",
                "--steps",
                "2",
                "--width",
                "80",
                "--height",
                "64",
            ],
        ),
        (
            Request::new().images(2).guidance_scale(1.0),
            &["--images", "2", "--set", "task.text-to-image.guidance_scale=1.0"],
        ),
    ];
    for (request, arguments) in requests {
        let images = pipeline.generate(&request).expect("images");
        let written = command(folder.path(), arguments);
        let record = |png: &[u8]| {
            let file = folder.path().join("record.png");
            std::fs::write(&file, png).expect("a file");
            ldm_ort::metadata::read_png(&file).expect("a record")
        };
        for (own, other) in bytes(&images).iter().zip(&written) {
            assert_eq!(record(own), record(other), "{arguments:?}");
            assert!(own == other, "{arguments:?}: other bytes");
        }
        assert_eq!(images.len(), written.len());
    }
    // Another task on the same open pipeline, as a pipeline of its own draws it.
    let request = Request::image_to_image(&input, "a dog").strength(0.7);
    let images = pipeline.generate(&request).expect("images");
    let task = format!(
        "[task.image-to-image]\nprompt = 'a dog'\nguidance_scale = 5.0\nimage = '{}'\nstrength = 0.7\n",
        input.display()
    );
    let (_other, other) = self::folder(&task);
    let fresh = open(&other).generate(&Request::new()).expect("images");
    assert_eq!(images[0].rgb(), fresh[0].rgb());
    // And back.
    let again = pipeline.generate(&Request::new()).expect("images");
    assert!(bytes(&again) == command(folder.path(), &[]), "other bytes after another task");
}

#[test]
fn requests_are_the_same_in_every_form() {
    let built = Request::text_to_image("a cat").seed(7).steps(2).guidance_scale(3.0).size(64, 80).images(2);
    let nested = r#"{"task": {"text-to-image": {"prompt": "a cat", "guidance_scale": 3.0}},
        "run": {"steps": 2, "seed": 7, "width": 64, "height": 80, "images": 2}}"#;
    let flat =
        r#"{"prompt": "a cat", "guidance_scale": 3, "steps": 2, "seed": 7, "width": 64, "height": 80, "images": 2}"#;
    let toml = "steps = 2\nseed = 7\nwidth = 64\nheight = 80\nimages = 2\n[task.text-to-image]\nprompt = 'a cat'\nguidance_scale = 3.0\n";
    let (_folder, path) = folder(TEXT_TO_IMAGE);
    let mut pipeline = open(&path);
    let wanted = bytes(&pipeline.generate(&built).expect("images"));
    let others = [Request::from_json(nested), Request::from_json(flat), Request::from_toml(toml)];
    for other in others {
        let images = pipeline.generate(&other.expect("a request")).expect("images");
        assert!(bytes(&images) == wanted, "other bytes");
    }
}

#[test]
fn wrong_requests_are_the_requests_fault_and_name_the_field() {
    let (_folder, path) = folder(TEXT_TO_IMAGE);
    let mut pipeline = open(&path);
    let rows = [
        (r#"{"promt": "a cat"}"#, "promt", "expected one of prompt,"),
        (r#"{"device": {"provider": "cuda"}}"#, "device", "settled when a pipeline is opened"),
        (r#"{"seed": -1}"#, "run.seed", "-1"),
        (r#"{"steps": "many"}"#, "run.steps", "\"many\""),
        (r#"{"task": {"text-to-image": {"strenght": 1}}}"#, "task.text-to-image.strenght", "strenght"),
        (r#"{"scheduler": "eulr"}"#, "eulr", "euler"),
        (r#"{"width": 65}"#, "run.width", "65"),
        (r#"{"image": "nowhere.png", "task": {"image-to-image": {}}}"#, "nowhere.png", "nowhere.png"),
    ];
    for (json, key, says) in rows {
        let request = Request::from_json(json).expect("JSON");
        let error = pipeline.check(&request).expect_err(json);
        let text = error.to_string();
        assert!(text.contains(key) && text.contains(says), "{json}: {text}");
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Request, 2), "{json}: {text}");
    }
    for text in ["[1]", "{\"seed\": null}", "{"] {
        assert_eq!(Request::from_json(text).expect_err(text).kind(), ErrorKind::Request);
    }
    for (text, names) in [
        (r#"{"seed": 18446744073709551615}"#, "seed: expected at most 9223372036854775807"),
        (r#"{"run": {"seed": null}}"#, "run.seed: null"),
    ] {
        let error = Request::from_json(text).expect_err(text).to_string();
        assert!(error.contains(names) && error.contains("hint:"), "{error}");
    }
    assert_eq!(pipeline.generate(&Request::new()).expect("images").len(), 1, "a pipeline works after errors");
}

#[test]
fn events_are_owned_and_serialize() {
    let (_folder, path) = folder(TEXT_TO_IMAGE);
    let mut pipeline = open(&path);
    let mut events = Vec::new();
    pipeline.run(&Request::new().preview(1), &Cancel::new(), &mut |event| events.push(event)).expect("a run");
    let objects: Vec<_> = events.iter().map(|event| serde_json::to_value(event).expect("JSON")).collect();
    let of = |name: &str| objects.iter().filter(|object| object["event"] == name).collect::<Vec<_>>();
    let steps = of("step");
    // PNDM evaluates the model once more than there are steps.
    assert_eq!(steps.len(), 4);
    assert_eq!((&steps[0]["step"], &steps[2]["steps"]), (&1.into(), &4.into()));
    let image = &of("image")[0];
    assert_eq!((&image["seed"], &image["record"]["steps"]), (&4.into(), &3.into()));
    assert_eq!(of("preview").len(), 3, "the last step's preview is the image");
    assert!(of("done")[0]["timings"]["denoise"].as_f64().is_some_and(|seconds| seconds > 0.0));
}

#[test]
fn a_run_is_cancelled_from_its_events_and_the_pipeline_lives_on() {
    let (_folder, path) = folder(TEXT_TO_IMAGE);
    let mut pipeline = open(&path);
    let cancel = Cancel::new();
    let stopped = pipeline.run(&Request::new(), &cancel, &mut |event| {
        if matches!(event, Event::Step { step: 2, .. }) {
            cancel.cancel();
        }
    });
    let Err(Error::Interrupted { at_step: Some(at) }) = stopped else { panic!("{stopped:?}") };
    assert_eq!(at.step, 2);
    assert_eq!(pipeline.generate(&Request::new()).expect("images").len(), 1);
}

#[test]
fn a_model_directory_opens_without_a_pipeline_file() {
    let engine = engine();
    let mut pipeline = engine.open_model(models().join("sd1")).expect("a pipeline");
    let request = Request::text_to_image("a black cat").guidance_scale(5.0).seed(4).steps(3);
    let images = pipeline.generate(&request).expect("images");
    let (_folder, path) = folder(TEXT_TO_IMAGE);
    assert_eq!(images[0].rgb(), open(&path).generate(&Request::new()).expect("images")[0].rgb());
}

#[test]
fn images_are_saved_as_png_only_whole() {
    let (folder, path) = folder(TEXT_TO_IMAGE);
    let image = open(&path).generate(&Request::new()).expect("images").remove(0);
    let file = folder.path().join("cat.png");
    image.save(&file).expect("a file");
    assert_eq!(std::fs::read(&file).expect("a file"), image.to_png().expect("a PNG"));
    assert_eq!(image.save(folder.path().join("cat.gif")).expect_err("another format").kind(), ErrorKind::Request);
}

/// Opened graphs are no licence for any size: the system would end the process.
#[test]
fn a_request_that_is_too_large_for_the_machine_is_refused_on_an_open_pipeline() {
    let (_folder, path) = folder(TEXT_TO_IMAGE);
    let mut pipeline = open(&path);
    assert_eq!(pipeline.generate(&Request::new()).expect("images").len(), 1);
    let error = pipeline.generate(&Request::new().size(16384, 16384)).expect_err("no machine has that");
    assert_eq!(error.kind(), ErrorKind::Memory, "{error}");
    assert!(error.to_string().contains("hint:"), "{error}");
    assert_eq!(pipeline.generate(&Request::new().size(128, 64)).expect("images")[0].width(), 128);
}
