//! Previews and small decoders (`scripts/goldens/golden_previews.py`).

use std::path::{Path, PathBuf};

use ldm_ort::bundle::{ComponentKind, GraphFile, VaeDecoderSignature};
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::image::{InputLimit, Rgb8};
use ldm_ort::session::{Session, SessionOptions};
use ldm_ort::vae::{Scaling, VaeDecoder};
use ldm_ort::{Bundle, Cancel, Overrides, Plan, Spec, image, metadata};
use ndarray::{ArrayD, Axis, Slice};
use serde_json::Value;

use super::{bytes, case, draw, redraw, text};
use crate::common::{answer, copy_folder, ldm_ort, models, root, runtime};

fn golden() -> PathBuf {
    root().join("tests/golden/previews")
}

fn array(name: &str) -> ArrayD<f32> {
    ldm_ort::npy::read_f32(golden().join(name)).expect("a recorded array")
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

/// A pipeline file of a task on a model, with more text behind.
fn pipeline(folder: &Path, model: &Path, more: &str) -> PathBuf {
    let path = folder.join("pipeline.toml");
    let text = format!(
        "model.path = '{}'\n[task.text-to-image]\nprompt = 'a red circle'\n[run]\nsteps = 5\nseed = 3\nwidth = 64\n\
         height = 48\n{more}",
        model.display()
    );
    std::fs::write(&path, text).expect("a pipeline file");
    path
}

/// A tiny model with a small decoder in this folder of its directory.
fn with_tiny_decoder(folder: &Path, model: &str, name: &str) -> PathBuf {
    let to = folder.join("model");
    copy_folder(&models().join(model), &to);
    copy_folder(&golden().join("tiny_vae_decoder"), &to.join(name));
    to
}

/// Every preview of a run, by the call after which it was made, and the final latents.
fn watched(pipeline: &Path, flags: &[&str]) -> (Vec<(usize, Rgb8)>, Vec<ArrayD<f32>>) {
    let set = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let spec = Spec::load(pipeline, &Overrides { set, ..Overrides::default() }).expect("a pipeline");
    let plan = Plan::new(spec).expect("a plan");
    let (mut previews, mut latents) = (Vec::new(), Vec::new());
    let mut observer = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Preview { call, pixels, .. } => previews.push((call, pixels.clone())),
        ExecutionEvent::Image(image) => latents.push(image.latents.clone()),
        ExecutionEvent::Warning(warning) => assert!(!warning.contains("preview"), "{warning}"),
        _ => {}
    };
    let mut open = Execution::load(&plan, &runtime(), &Cancel::default(), &mut observer).expect("it opens");
    open.run(&plan, &Cancel::default(), &mut observer).expect("it runs");
    (previews, latents)
}

#[test]
fn a_tiny_decoder_decodes_as_diffusers_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = with_tiny_decoder(folder.path(), "sd1", "taesd_decoder");
    let bundle = Bundle::open(&model, &ldm_ort::bundle::DirectoryOverrides::default()).expect("a model");
    let component = bundle.component(ComponentKind::TinyVaeDecoder).expect("the folder's name is known");
    let signature = VaeDecoderSignature::resolve(component).expect("a decoder");
    let GraphFile { path, .. } = &component.graph;
    let of_factor = |factor: usize| {
        let session = Session::open(&runtime(), path, &SessionOptions::default()).expect("it opens");
        VaeDecoder::new(session, signature.clone(), Scaling { factor: 1.0, shift: 0.0 }, factor)
    };
    let mut decoder = of_factor(8);
    let (latents, wanted) = (array("latents.npy"), array("pixels.npy"));
    for row in 0..latents.shape()[0] {
        let one = |all: &ArrayD<f32>| all.slice_axis(Axis(0), Slice::from(row..=row)).to_owned();
        let pixels = decoder.decode(one(&latents).view(), &Cancel::default()).expect("it decodes");
        let apart = pixels.iter().zip(&one(&wanted)).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert_eq!(pixels.shape(), one(&wanted).shape());
        assert!(apart <= 1e-5, "{apart}");
    }
    let mut other = of_factor(4);
    let error = other.decode(array("latents.npy").slice_axis(Axis(0), Slice::from(..1)), &Cancel::default());
    let error = error.expect_err("its images are of another size").to_string();
    assert!(error.contains("expected 4 pixels per latent along each side"), "{error}");
}

/// Previews come at their steps, change with them, and change nothing: the latents are the same to the bit.
#[test]
fn previews_change_nothing_of_the_image() {
    for (scheduler, model) in [("ddim", "sd1"), ("heun", "sd1"), ("euler-ancestral", "sd2v"), ("ddpm", "pixel")] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = match model {
            "pixel" => {
                let path = folder.path().join("pipeline.toml");
                let model = models().join(model);
                let text = format!(
                    "model.path = '{}'\ntask.unconditional = {{}}\nrun.steps = 5\nrun.seed = 3\n",
                    model.display()
                );
                std::fs::write(&path, text).expect("a pipeline file");
                path
            }
            // Its VAE is no published one, and has no small decoder: a map is fitted.
            "sd2v" => pipeline(folder.path(), &models().join(model), ""),
            _ => pipeline(folder.path(), &with_tiny_decoder(folder.path(), model, "tiny_vae_decoder"), ""),
        };
        let scheduler = format!("scheduler.{scheduler}={{}}");
        let (none, plain) = watched(&file, &[&scheduler]);
        assert!(none.is_empty(), "{scheduler}");
        let (previews, latents) = watched(&file, &[&scheduler, "output.preview=2"]);
        assert_eq!(plain, latents, "{scheduler}");
        let calls: Vec<usize> = previews.iter().map(|(call, _)| *call).collect();
        assert_eq!(calls, if scheduler.contains("heun") { [4, 8] } else { [2, 4] }, "{scheduler}");
        let [(_, first), (_, second)] = previews.as_slice() else { panic!("two previews") };
        assert_ne!(first, second, "{scheduler}");
    }
}

/// Nor of other families, VAEs and tasks: latents in tokens, of a codebook, put back where a mask keeps them, tile by
/// tile, and packed behind channels of conditions.
#[test]
fn previews_change_nothing_whatever_the_model() {
    let root = root().join("tests/golden");
    for case in [
        "families/flux-inpaint/pipeline.toml",
        "families/sd3/pipeline.toml",
        "families/control/pipeline.toml",
        "systems/inpaint.toml",
        "systems/uncond-vq-eta-1.toml",
        "systems/super-resolution-tiled.toml",
        "systems/class-labels.toml",
        "pipelines/pixel/pipeline.toml",
    ] {
        let (none, plain) = watched(&root.join(case), &[]);
        let (previews, latents) = watched(&root.join(case), &["output.preview=1"]);
        assert!(none.is_empty() && !previews.is_empty() && plain == latents, "{case}: {}", previews.len());
        let pixels = &previews[0].1;
        // All of them by a linear map, or the sample itself.
        assert_eq!([pixels.height(), pixels.width()], latents[0].shape()[1..], "{case}");
    }
}

/// What each source makes: a small decoder and the pixels themselves as many pixels as the image has, a linear map as
/// many as there are latents; a preview after the last call but one is near the image where the model is a real one.
#[test]
fn previews_are_made_by_the_best_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    for (model, says, width) in [
        (with_tiny_decoder(folder.path(), "sd1", "taesd_decoder"), "by tiny_vae_decoder", 64),
        (models().join("sd1"), "linear map published", 8),
    ] {
        let file = pipeline(folder.path(), &model, "[output]\npreview = 4\n");
        let answer = {
            let mut command = ldm_ort(folder.path());
            command.args(["check", "pipeline.toml"]);
            answer(command)
        };
        assert!(answer.code == Some(0) && answer.stdout.contains("previews every 4 steps"), "{answer}");
        assert!(answer.stdout.contains(says), "{answer}");
        let (previews, _) = watched(&file, &[]);
        assert_eq!(previews.iter().map(|(_, pixels)| pixels.width()).collect::<Vec<_>>(), [width], "{says}");
    }
    // A scaling that no published family has is fitted.
    let file = pipeline(folder.path(), &models().join("sd1"), "[output]\npreview = 4\n");
    let (fitted, _) = watched(&file, &["model.scaling_factor=0.5"]);
    assert_eq!(fitted[0].1.width(), 8);
    assert_ne!(fitted[0].1, watched(&file, &[]).0[0].1, "which is not the published map");
}

/// models/shapes draws something, so that previews can be told from noise: those of its small decoder come close to the
/// image, those of a map fitted to its decoder have its colors where they are even.
#[test]
fn previews_of_a_trained_model_come_close_to_its_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let shapes = root().join("models/shapes");
    let toml = |model: &Path| {
        let text = format!(
            "model.path = '{}'\n[task.text-to-image]\nprompt = 'a large blue circle on a yellow background'\n\
             guidance_scale = 3.0\n[run]\nsteps = 10\nseed = 5\n[output]\npreview = 9\n",
            model.display()
        );
        let path = folder.path().join("shapes.toml");
        std::fs::write(&path, text).expect("a pipeline file");
        path
    };
    let drawn = draw(folder.path(), [text(&toml(&shapes))]);
    let image = image::load(&drawn.paths[0], InputLimit::default()).expect("the image");
    let (previews, latents) = watched(&toml(&shapes), &[]);
    let psnr = image::psnr(&previews[0].1, &image).expect("of one size");
    println!("preview after 9 of 10 steps: {psnr:.1} dB");
    assert!(psnr > 25.0, "{psnr} dB");

    let small = draw(folder.path(), [text(&toml(&shapes)), "--set", "model.decoder=tiny"]);
    let decoded = image::load(&small.paths[0], InputLimit::default()).expect("the image");
    let psnr = image::psnr(&decoded, &image).expect("of one size");
    println!("small decoder: {psnr:.1} dB");
    assert!(psnr > 30.0 && decoded != image, "{psnr} dB");
    let (_, other) = watched(&toml(&shapes), &["model.decoder=tiny"]);
    assert_eq!(latents, other, "the decoder comes after the latents");
}

/// The small decoder as what makes the image is told by the image's record, its parameters, the run's object and the
/// checks, and an image is made again by it.
#[test]
fn an_image_of_the_tiny_decoder_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = with_tiny_decoder(folder.path(), "sd1", "tiny_vae_decoder");
    let file =
        pipeline(folder.path(), &model, "[model.tiny_vae_decoder]\ngraph = 'model/tiny_vae_decoder/model.onnx'\n");
    let full = draw(folder.path(), [text(&file)]);
    assert_eq!(full.images[0].get("decoder"), None);
    assert_eq!(metadata::read_png(&full.paths[0]).expect("a record").decoder, None);
    let small = draw(folder.path(), [text(&file), "--set", "model.decoder=tiny"]);
    assert_eq!(small.images[0]["decoder"], "tiny_vae_decoder");
    let record = metadata::read_png(&small.paths[0]).expect("a record");
    assert_eq!(record.decoder.as_deref(), Some("tiny_vae_decoder"));
    assert!(record.parameters().contains(", Decoder: tiny_vae_decoder"), "{}", record.parameters());
    assert_ne!(record.model_digest, metadata::read_png(&full.paths[0]).expect("a record").model_digest);
    assert_ne!(bytes(&full.paths[0]), bytes(&small.paths[0]));

    let again = tempfile::tempdir().expect("a folder");
    let made = redraw(again.path(), &small.paths[0], &file);
    assert_eq!(bytes(&made.paths[0]), bytes(&small.paths[0]));
    let mut command = ldm_ort(folder.path());
    command.args(["check", "pipeline.toml", "--set", "model.decoder=tiny"]);
    let said = answer(command);
    assert!(said.stdout.contains("images are decoded by tiny_vae_decoder"), "{said}");
    let mut command = ldm_ort(folder.path());
    command.args(["inspect", "model"]);
    let said = answer(command);
    assert!(said.stdout.contains("tiny_vae_decoder") && said.stdout.contains("decoder = \"tiny\""), "{said}");
}

/// The file beside the image is gone when the image is there, and stays where the run ends before; the image's
/// file, name and all, is that of a run without previews. Standard output holds what it always holds.
#[test]
fn the_preview_file_stands_in_for_the_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = case("ddim");
    let plain = draw(folder.path(), [text(&file)]);
    let there = files_in(folder.path());
    let with = draw(folder.path(), [text(&file), "--preview"]);
    assert_eq!(there, files_in(folder.path()));
    let read = |drawn: &super::Drawn| drawn.paths.iter().map(|path| bytes(path)).collect::<Vec<_>>();
    assert_eq!(plain.paths, with.paths);
    assert_eq!(read(&plain), read(&with));
    assert!(!with.answer.stderr.contains("\x1b_G"), "no images where there is no terminal");

    // With this scaling the full decoder's latents are infinite, and the small one's are what they were.
    let folder = tempfile::tempdir().expect("a folder");
    let file = pipeline(folder.path(), &with_tiny_decoder(folder.path(), "sd1", "taesd_decoder"), "");
    let mut command = ldm_ort(folder.path());
    command.args(["run", text(&file), "--preview", "--output", "out", "--set", "model.scaling_factor=1e-45"]);
    let failed = answer(command);
    assert_eq!(failed.code, Some(1), "{failed}");
    let left: Vec<_> = files_in(&folder.path().join("out"));
    assert!(!left.is_empty() && left.iter().all(|name| text(name).ends_with(".preview.png")), "{left:?}: {failed}");
    assert!(image::load(&left[0], InputLimit::default()).is_ok());
}

/// A small decoder of another model is told apart before anything runs, where previews or images are to be made by it,
/// or where the pipeline file names it; one that nothing uses stands in nobody's way.
#[test]
fn a_tiny_decoder_of_another_model_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let shapes = root().join("models/shapes/tiny_vae_decoder");
    let of_four = golden().join("tiny_vae_decoder/model.onnx");
    let model = folder.path().join("model");
    copy_folder(&models().join("sd1"), &model);
    copy_folder(&shapes, &model.join("tiny_vae_decoder"));
    let named = |graph: &Path| format!("[model.tiny_vae_decoder]\ngraph = '{}'\n", graph.display());
    let flux = root().join("tests/fixtures/families/flux-dev");
    for (model, more, flags, code, says) in [
        (&model, String::new(), &[][..], 0, &[][..]),
        (&model, String::new(), &["--preview"], 2, &["4 times as large", "8 times", "taesdxl"]),
        (&model, String::new(), &["--set", "model.decoder=tiny"], 2, &["4 times as large"]),
        (&models().join("sd1"), named(&shapes.join("model.onnx")), &[], 2, &["4 times as large"]),
        (&models().join("sd1"), named(&of_four), &["--preview", "2"], 0, &[]),
        (&flux, named(&of_four), &["--preview", "2"], 2, &["takes 4 channels", "taef1"]),
        (
            &models().join("sd1"),
            String::new(),
            &["--set", "model.decoder=tiny"],
            2,
            &["tiny_vae_decoder", "[model.tiny_vae_decoder] graph"],
        ),
        (&models().join("sd1"), String::new(), &["--set", "model.decoder=smal"], 2, &["model.decoder", "full"]),
        (&models().join("sd1"), String::new(), &["--preview", "0"], 2, &["--preview: expected an integer from 1"]),
    ] {
        pipeline(folder.path(), model, &more);
        let mut command = ldm_ort(folder.path());
        command.args(["check", "pipeline.toml"]).args(flags);
        let said = answer(command);
        assert_eq!(said.code, Some(code), "{flags:?} {more}: {said}");
        for part in says {
            assert!(said.stderr.contains(part), "{part:?}: {said}");
        }
    }
}

/// Two models in a row show what they are at in one file, that of the image in the end.
#[test]
fn stages_share_the_preview() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = with_tiny_decoder(folder.path(), "sd1", "tiny_vae_decoder");
    let stage = format!("[[stage]]\nmodel.path = '{}'\ntask.image-to-image.strength = 0.6\n", model.display());
    let file = pipeline(folder.path(), &model, &stage);
    let mut spec = Spec::load(&file, &Overrides { preview: Some(1), ..Overrides::default() }).expect("a pipeline");
    assert_eq!(spec.stages[0].spec.output.preview, Some(1));
    assert_eq!(Spec::parse(&spec.to_toml(), None, &Overrides::default()).expect("its own text"), spec);
    spec.go_through(1);
    assert_eq!(spec.output.preview, None, "which says nothing of the image");
    let plain = draw(folder.path(), [text(&file), "--images", "2"]);
    let with = draw(folder.path(), [text(&file), "--images", "2", "--preview"]);
    assert_eq!(plain.paths, with.paths);
    let previews = files_in(folder.path()).into_iter().filter(|name| text(name).ends_with(".preview.png"));
    assert_eq!(previews.count(), 0);
    let objects: Vec<&Value> = with.images.iter().collect();
    assert_eq!(objects.len(), 2);
}
