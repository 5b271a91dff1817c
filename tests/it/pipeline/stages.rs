//! Models in a row: what is kept, recorded, told and stopped.

use std::path::{Path, PathBuf};

use ldm_ort::execution::Execution;
use ldm_ort::execution::ExecutionEvent;
use ldm_ort::metadata;
use ldm_ort::{Cancel, Overrides, Plan, Runtime, Spec};

use super::reference::Reference;
use super::{assert_drawn, bytes, draw, files_in, npy, pixels, redraw, text};
use crate::common::{answer, ldm_ort, models, root};

fn case(name: &str) -> PathBuf {
    root().join("tests/golden/stages").join(name).join("pipeline.toml")
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Models in a row, each called with a fresh generator of the same seed (`scripts/goldens/golden_stages.py`).
#[test]
fn every_row_of_models_is_drawn_as_diffusers_draws_it() {
    assert_drawn(Reference::of_diffusers("stages"), 4);
}

/// The record of an image is that of all its stages, in every form of handing on and also with another seed a stage.
#[test]
fn an_image_of_several_stages_is_drawn_again_from_its_record() {
    let cases: [(&str, &[&str]); 5] = [
        ("refine", &[]),
        ("refine", &["--prompt", "a cat", "--prompt", "a dog", "--set", "stage.0.run.seed=11"]),
        ("refine-image", &["--images", "2", "--set", "stage.0.task.image-to-image.prompt=a star"]),
        ("upscale", &["--width", "16"]),
        ("three", &[]),
    ];
    for (name, flags) in cases {
        let (first, second) = (scratch(), scratch());
        let pipeline = case(name);
        let drawn = draw(first.path(), [text(&pipeline)].into_iter().chain(flags.iter().copied()));
        let image = drawn.paths.last().expect("an image");
        let again = redraw(second.path(), image, &pipeline);
        assert_eq!(again.paths.len(), 1, "{name}: {}", again.answer);
        assert!(!again.answer.stderr.contains("warning"), "{name}: {}", again.answer);
        assert!(bytes(image) == bytes(&again.paths[0]), "{name}: the image drawn again has other bytes");
    }
}

/// Of each image the last stage's is written, and those before it where they are to be kept.
#[test]
fn what_is_kept_is_written_and_drawn_again() {
    let (plain, kept, again) = (scratch(), scratch(), scratch());
    let pipeline = case("refine");
    let last = draw(plain.path(), [text(&pipeline), "--save-latents", "latents.npy"]);
    assert_eq!((last.paths.len(), files_in(plain.path())), (2, 3));
    for (i, image) in last.images.iter().enumerate() {
        assert_eq!(image["seed"], 400 + i as u64);
        assert_eq!(image["stages"][0]["task"], "image-to-image");
        assert_eq!(image["calls"].as_u64(), Some(10), "eight of the base and two of the refiner");
    }
    let all =
        draw(kept.path(), [text(&pipeline), "--set", "output.save_intermediate=true", "--save-latents", "latents.npy"]);
    assert_eq!((all.paths.len(), files_in(kept.path())), (4, 5));
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    assert!(name(&all.paths[0]).ends_with("-400-base"), "{:?}", all.paths);
    assert_eq!(pixels(&all.paths[1]), pixels(&last.paths[0]));
    assert_eq!(
        npy::read(&plain.path().join("latents.npy")),
        npy::read(&kept.path().join("latents.npy")),
        "the latents are those of the last stage"
    );
    // What was kept is an image of the file's own tables alone.
    let base_model = Spec::load(&pipeline, &Overrides::default()).expect("a pipeline").model.path;
    let flags = ["--from", text(&all.paths[2]), "--model", text(&base_model)];
    let base = draw(again.path(), flags);
    assert_eq!(pixels(&base.paths[0]), pixels(&all.paths[2]));
}

/// What leaves evaluations out does so at its own stage only, is told there, and is off at every stage of the full run
/// that it is compared with.
#[test]
fn each_stage_leaves_its_own_evaluations_out() {
    let (fewer, plain) = (scratch(), scratch());
    let pipeline = case("refine-image");
    let both = ["--set", "output.save_intermediate=true", "--set", "stage.0.run.steps=20"];
    let sets = ["task.text-to-image.guidance_interval=[0.0, 0.5]", "stage.0.cache.spectrum.warmup=2"];
    let flags = sets.iter().flat_map(|set| ["--set", set]).chain(both);
    let drawn = draw(fewer.path(), [text(&pipeline), "--compare"].into_iter().chain(flags));
    let full = draw(plain.path(), [text(&pipeline)].into_iter().chain(both));
    assert_eq!((drawn.images.len(), files_in(fewer.path())), (2, 4), "{}", drawn.answer);
    for (image, full) in drawn.images.iter().zip(&full.paths) {
        let path = fewer.path().join(image["compare"]["path"].as_str().expect("a path"));
        assert_eq!(pixels(&path), pixels(full), "{image}");
        assert!(text(&path).ends_with("-full.png"), "{}", path.display());
        let record = metadata::read_png(&path).expect("a record");
        assert!(record.fewer_evaluations.is_none(), "{record:?}");
        assert!(record.stages.iter().all(|stage| stage.fewer_evaluations.is_none()), "{record:?}");
        assert!(image["compare"]["psnr"].as_f64().is_some(), "{image}");
    }
    for (at, path) in drawn.paths.iter().enumerate() {
        let record = metadata::read_png(path).expect("a record");
        assert_eq!(record.stages.len(), at);
        let base = record.fewer_evaluations.expect("the base leaves evaluations out");
        assert!(base.cache.is_none() && base.made < base.total, "{base:?}");
        for stage in record.stages {
            let own = stage.fewer_evaluations.expect("the stage leaves evaluations out");
            assert_eq!(own.cache.as_ref().map(|cache| cache.method.as_str()), Some("spectrum"));
            assert!(own.guidance_interval.is_none() && own.made < own.total, "{own:?}");
        }
    }
    let again = redraw(scratch().path(), &drawn.paths[1], &pipeline);
    assert_eq!(again.images[0]["stages"], drawn.images[1]["stages"]);
    assert!(again.images[0]["stages"][0]["fewer_evaluations"]["made"].is_u64(), "{}", again.answer);
}

/// One command on two models draws what two commands draw, one on the image that the other saved.
#[test]
fn two_stages_draw_what_two_pipelines_draw() {
    let folder = scratch();
    let families = models().join("../families");
    let both = draw(folder.path(), [text(&case("refine-image")), "--set", "output.save_intermediate=true"]);
    std::fs::write(
        folder.path().join("second.toml"),
        format!(
            "[model]\npath = '{}'\n[task.image-to-image]\nprompt = 'a red circle above a blue square'\nimage = '{}'\n\
             guidance_scale = 5\nstrength = 0.5\n[run]\nsteps = 6\nseed = 410\n",
            families.join("refiner").display(),
            text(&both.paths[0])
        ),
    )
    .expect("a file");
    let second = draw(folder.path(), ["second.toml"]);
    assert_eq!(pixels(&second.paths[0]), pixels(&both.paths[1]));
}

/// A stage whose model reads no prompt does without the one it would have from the file's own task.
#[test]
fn a_model_that_reads_no_prompt_is_given_none() {
    let folder = scratch();
    let root = models().join("..");
    let write = |name: &str, more: &str| {
        let file = format!(
            "[model]\npath = '{}'\n[task.text-to-image]\nprompt = ['a', 'b']\n[run]\nsteps = 2\nseed = 1\nwidth = 32\n\
             height = 32\n[[stage]]\nmodel.path = '{}'\ntask.inpaint.mask = '{}'\nrun.steps = 2\n{more}",
            root.join("families/xl").display(),
            root.join("systems/inpaint").display(),
            root.join("../golden/systems/inpaint.mask.png").display()
        );
        std::fs::write(folder.path().join(name), file).expect("a file");
    };
    write("given-none.toml", "");
    let drawn = draw(folder.path(), ["given-none.toml"]);
    assert_eq!(drawn.paths.len(), 2);
    let again = redraw(scratch().path(), &drawn.paths[1], &folder.path().join("given-none.toml"));
    assert_eq!(again.images[0]["prompt"], "b");
    write("given-one.toml", "task.inpaint.prompt = 'c'\n");
    let mut command = ldm_ort(folder.path());
    command.args(["check", "given-one.toml"]);
    let answer = answer(command);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert!(answer.stderr.contains("stage[0]: ") && answer.stderr.contains("has a prompt"), "{answer}");
}

/// Schedules that do not meet are told, by check as by run.
#[test]
fn schedules_that_do_not_meet_are_told() {
    let folder = scratch();
    let pipeline = case("refine");
    let said = |command: &str, flags: &[&str]| {
        let mut ldm = ldm_ort(folder.path());
        ldm.args([command, text(&pipeline)]).args(flags);
        if command == "run" {
            ldm.args(["--output", text(folder.path()), "--images", "1"]);
        }
        let answer = answer(ldm);
        assert_eq!(answer.code, Some(0), "{answer}");
        answer.stderr
    };
    for command in ["check", "run"] {
        assert!(!said(command, &[]).contains("warning"));
        let later = said(command, &["--set", "run.denoising_end=0.9"]);
        let told =
            "warning: stage[0]: it takes up the schedule at denoising_start = 0.8, and the stage before it stops at";
        assert!(later.contains(told), "{later}");
        let decoded = said(command, &["--set", "stage.0.input=image"]);
        assert!(decoded.contains("warning: stage[0]: the stage before it stops at denoising_end = 0.8"), "{decoded}");
    }
    let file = std::fs::read_to_string(&pipeline).expect("a file");
    let families = text(&models().join("../families")).to_owned();
    let whole = file.replace("denoising_end = 0.8\n", "").replace("../../../fixtures/families", &families);
    std::fs::write(folder.path().join("whole.toml"), whole).expect("a file");
    let mut command = ldm_ort(folder.path());
    command.args(["check", "whole.toml"]);
    let told = answer(command);
    assert!(told.stderr.contains("runs to the end; give that one denoising_end = 0.8"), "{told}");
}

/// A run that is stopped says in which stage.
#[test]
fn a_run_that_is_stopped_names_the_stage() {
    let plan = Plan::new(Spec::load(&case("refine"), &Overrides::default()).expect("a spec")).expect("a plan");
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched");
    let cancel = Cancel::new();
    let mut events = Vec::new();
    let mut stages = Execution::load(&plan, &runtime, &cancel, &mut |event: ExecutionEvent<'_>| {
        if let ExecutionEvent::Stage { key, number, of } = event {
            events.push(format!("{key} {number} {of}"));
        }
    })
    .expect("it opens");
    assert_eq!(events, ["base 1 2", "stage[0] 2 2"]);
    for (stop_in, says) in [
        ("base", "base: interrupted at step 1 of 8, image 1 of 2"),
        ("stage[0]", "stage[0]: interrupted at step 1 of 2, image 1 of 2"),
    ] {
        let (mut at, cancel) = (String::new(), Cancel::new());
        let result = stages.run(&plan, &cancel, &mut |event: ExecutionEvent<'_>| match event {
            ExecutionEvent::Stage { key, .. } => at = key.to_owned(),
            ExecutionEvent::Step { .. } if at == stop_in => cancel.cancel(),
            _ => {}
        });
        let error = result.expect_err("it was stopped");
        assert_eq!((error.to_string().as_str(), error.exit_code()), (says, 130));
    }
}
