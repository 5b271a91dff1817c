//! Pipelines with fewer evaluations of the model, held to loops in numpy (`scripts/goldens/golden_caching.py`) and to the DeepCache
//! package (`scripts/goldens/golden_deepcache.py`), and what is told of them.

use crate::common::root;
use std::path::{Path, PathBuf};

use ldm_ort::image::{InputLimit, Rgb8, load, psnr, ssim};
use ldm_ort::metadata;
use serde_json::{Value, json};

use super::{GraphCache, bytes, draw, draw_with, files_in, npy, pixels, redraw, text};

fn golden() -> PathBuf {
    root().join("tests/golden/caching")
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Latents and evaluations of every case are those of its reference loop, and the image's record tells the same.
#[test]
fn every_cache_answers_as_its_reference_loop_does() {
    let files = std::fs::read_dir(golden()).expect("the references are there").map(|file| file.expect("a file").path());
    let mut cases: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    cases.sort();
    assert!(cases.len() >= 19, "only {} references found", cases.len());
    let mut wrong = Vec::new();
    let graphs = GraphCache::new();
    for (case, graphs) in cases.iter().flat_map(|case| [(case, None), (case, Some(&graphs))]) {
        let way = if graphs.is_some() { ", optimized" } else { "" };
        let name = format!("{}{way}", case.file_stem().unwrap_or_default().to_string_lossy());
        let folder = tempfile::tempdir().expect("a folder");
        let drawn = draw_with(folder.path(), [text(case), "--save-latents", "latents.npy"], graphs);
        let apart = npy::read(&folder.path().join("latents.npy")).difference(&npy::read(&case.with_extension("npy")));
        println!("{name:35} latents {apart:.1e}");
        // Reused predictions add up rounding: of another CPU's kernels as of optimized graphs.
        let limit = if graphs.is_some() { 5e-5 } else { 1e-5 };
        if apart > limit {
            wrong.push(format!("{name}: latents differ by {apart:.1e} of the largest"));
        }
        let evaluations = read_json(&case.with_extension("json"));
        for (i, (image, path)) in drawn.images.iter().zip(&drawn.paths).enumerate() {
            let told = &image["fewer_evaluations"];
            let record = metadata::read_png(path).expect("a record").fewer_evaluations;
            let recorded = serde_json::to_value(record).expect("JSON");
            let mut made = json!({"made": told["made"], "of": told["of"]});
            if let Some(shallow) = told.get("shallow") {
                made["shallow"] = shallow.clone();
            }
            if made != evaluations[i] || *told != recorded {
                wrong.push(format!("{name}: {told} and {recorded}, not {}", evaluations[i]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where guidance is at work in all of the run, nothing changes to the bit; where it is at work nowhere, the model is
/// told all and nothing else, as without guidance: for control networks that follow the prompt or lead without it, for a
/// graph whose batch is fixed, for two guidances, for classes, and tile by tile.
#[test]
fn an_interval_switches_guidance_and_nothing_else() {
    let tiled = ["--set", "run.tile=8", "--set", "run.tile_stride=4"];
    for (pipeline, task, branches, flags) in [
        ("families/control/pipeline.toml", "text-to-image", 2, &[][..]),
        ("families/control-guess/pipeline.toml", "text-to-image", 2, &[]),
        ("families/inpaint/pipeline.toml", "inpaint", 2, &[]),
        ("families/xl/pipeline.toml", "text-to-image", 2, &[]),
        ("pipelines/fixed-batch/pipeline.toml", "text-to-image", 2, &[]),
        ("systems/class-labels.toml", "class-conditional", 2, &[]),
        ("families/instruct/pipeline.toml", "instruct", 3, &[]),
        ("families/instruct/pipeline.toml", "instruct", 3, &tiled),
    ] {
        let path = root().join("tests/golden").join(pipeline);
        let with = |set: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let set = if set.is_empty() { "run.images=1".to_owned() } else { format!("task.{task}.{set}") };
            let arguments = [text(&path), "--images", "1", "--save-latents", "latents.npy", "--set", &set];
            let mut drawn = draw(folder.path(), arguments.into_iter().chain(flags.iter().copied()));
            (npy::read(&folder.path().join("latents.npy")), drawn.images.remove(0))
        };
        let (plain, _) = with("");
        let (throughout, all) = with("guidance_interval=[0.0, 1.0]");
        assert_eq!(plain.values, throughout.values, "{pipeline}");
        assert_eq!(all["fewer_evaluations"]["made"], all["fewer_evaluations"]["of"]);
        let (nowhere, none) = with("guidance_interval=[0.0, 0.001]");
        let (unguided, _) = with("guidance_scale=1.0");
        let apart = nowhere.difference(&unguided);
        assert!(apart < 1e-6, "{pipeline}: {apart:.1e}");
        let told = &none["fewer_evaluations"];
        let calls = none["calls"].as_u64().expect("a number");
        assert_eq!((told["made"].as_u64(), told["of"].as_u64()), (Some(calls), Some(branches * calls)), "{none}");
        assert_eq!(told["guidance_interval"], json!([0.0, 0.001]));
    }
}

/// The record holds the cache, so the image comes again from it; and the full run's has none of it.
#[test]
fn an_image_of_fewer_evaluations_comes_again_from_its_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = golden().join("spectrum-fitted.toml");
    let drawn = draw(folder.path(), [text(&pipeline)]);
    let record = metadata::read_png(&drawn.paths[0]).expect("a record");
    let cache = record.fewer_evaluations.and_then(|fewer| fewer.cache).expect("a cache");
    assert_eq!(cache.method, "spectrum");
    assert_eq!(cache.parameters["window"], 3);
    assert_eq!(cache.parameters["lam"], 0.01);
    let again = tempfile::tempdir().expect("a folder");
    let redrawn = redraw(again.path(), &drawn.paths[0], &pipeline);
    assert!(bytes(&drawn.paths[0]) == bytes(&redrawn.paths[0]), "the image drawn again has other bytes");
}

/// `--compare` makes each image both ways and tells how alike they are.
#[test]
fn a_comparison_makes_both_images_and_tells_how_alike_they_are() {
    let pipeline = golden().join("spectrum-fitted.toml");
    let folder = tempfile::tempdir().expect("a folder");
    let drawn = draw(folder.path(), [text(&pipeline), "--images", "2", "--compare"]);
    assert_eq!((drawn.images.len(), files_in(folder.path())), (2, 4), "{}", drawn.answer);
    let told = |words: &str| assert!(drawn.answer.stderr.contains(words), "{}", drawn.answer);
    told("(60 steps, 52 of 120 evaluations, ");
    told("with all evaluations: denoising ");
    for (image, path) in drawn.images.iter().zip(&drawn.paths) {
        let compared = &image["compare"];
        let full = folder.path().join(compared["path"].as_str().expect("a path"));
        assert!(text(&full).ends_with("-full.png"), "{}", full.display());
        let (one, other) = (
            load(path, InputLimit::default()).expect("an image"),
            load(&full, InputLimit::default()).expect("an image"),
        );
        for (name, got) in [("psnr", psnr(&one, &other)), ("ssim", ssim(&one, &other))] {
            let (told, got) = (compared[name].as_f64().expect("a number"), got.expect("one size"));
            assert!((told - got).abs() < 1e-9, "{name}: {told} and {got}");
        }
        assert!(compared["psnr"].as_f64().is_some_and(|psnr| psnr > 20.0), "{image}");
        assert!(compared["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{image}");
        assert!(metadata::read_png(&full).expect("a record").fewer_evaluations.is_none());
    }

    // The full image is the one that the pipeline without its cache draws.
    let text_of = std::fs::read_to_string(&pipeline).expect("a pipeline");
    let (before, rest) = text_of.split_once("[cache.spectrum]").expect("a cache");
    let (_, after) = rest.split_once("\n\n").expect("a table after it");
    let plain = format!("{before}{after}").replace("../../..", env!("CARGO_MANIFEST_DIR"));
    let alone = tempfile::tempdir().expect("a folder");
    std::fs::write(alone.path().join("plain.toml"), plain).expect("a file");
    let plain = draw(alone.path(), ["plain.toml"]);
    let full = folder.path().join(drawn.images[0]["compare"]["path"].as_str().expect("a path"));
    assert_eq!(pixels(&plain.paths[0]), pixels(&full));
    assert!(plain.images[0].get("fewer_evaluations").is_none(), "{}", plain.images[0]);
}

/// What is told of steps that the shallow layers alone were run at.
#[test]
fn evaluations_of_the_outer_layers_are_told_by_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let drawn = draw(folder.path(), [text(&golden().join("deepcache.toml")), "--memory", "--compare"]);
    // Steps 0, 3 and 6 of 8 as a whole.
    for words in [
        "(8 steps, 6 of 16 evaluations and 10 of the shallow layers alone, ",
        "with all evaluations: denoising ",
        "open unet (shallow layers)",
    ] {
        assert!(drawn.answer.stderr.contains(words), "{}", drawn.answer);
    }
    let told = &drawn.images[0]["fewer_evaluations"];
    assert_eq!((&told["made"], &told["shallow"], &told["of"]), (&json!(6), &json!(10), &json!(16)));
    let parameters = json!({"interval": 3, "branch": 0, "start": 0.0, "end": 1.0});
    assert_eq!(told["cache"], json!({"method": "deepcache", "parameters": parameters}));
}

/// PSNR and SSIM are scikit-image's.
#[test]
fn likeness_is_that_of_scikit_image() {
    let one = load(&root().join("models/shapes/sample.png"), InputLimit::default()).expect("an image");
    let rows = read_json(&golden().join("likeness.json"));
    let rows = rows.as_array().expect("a list");
    assert!(rows.len() >= 4);
    for row in rows {
        let amplitude = row["amplitude"].as_u64().expect("a number") as usize;
        let shifted = one.data().iter().enumerate().map(|(at, &value)| {
            let (c, x, y) = (at % 3, at / 3 % one.width(), at / 3 / one.width());
            let pattern = (x * 31 + y * 17 + c * 7) % (2 * amplitude + 1);
            (usize::from(value) + pattern).saturating_sub(amplitude).min(255) as u8
        });
        let other = Rgb8::new(one.width(), one.height(), shifted.collect()).expect("an image");
        for (name, got) in [("psnr", psnr(&one, &other)), ("ssim", ssim(&one, &other))] {
            let (got, want) = (got.expect("one size"), row[name].as_f64().expect("a number"));
            assert!((got - want).abs() < 1e-9 * want.abs().max(1.0), "{name} at {amplitude}: {got}, not {want}");
        }
    }
}
