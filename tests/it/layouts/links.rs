//! Model directories made of links: the Hugging Face cache, weights on another disk, folders that are links. Each draws what
//! the same files draw where they lie in one directory.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ldm_ort::bundle::{self, DirectoryOverrides as Said};
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::plan::Plan;
use ldm_ort::quantize::{self, quantize};
use ldm_ort::session::{Cancel, Runtime};
use ldm_ort::spec::{Overrides, Spec};
use ldm_ort::task::task_fits;
use ndarray::ArrayD;

use super::files::Files;
use crate::common::{models, root};

/// Stable Diffusion's tiny model with the weights of each graph in a file beside it, the timestep a whole number.
fn model() -> Files {
    let mut files = Files::of("models/sd1");
    let whole_timestep = models().join("variants/unet-int64-timestep.onnx");
    files.put("unet/model.onnx", std::fs::read(whole_timestep).expect("a graph"));
    for name in ["unet", "text_encoder", "vae_decoder", "vae_encoder"] {
        files.weights_out(&format!("{name}/model.onnx"), "model.onnx_data");
    }
    files
}

fn link(target: impl AsRef<Path>, at: &Path) {
    std::fs::create_dir_all(at.parent().expect("a link is in a folder")).expect("a folder can be made");
    symlink(target, at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
}

fn put(at: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(at.parent().expect("a file is in a folder")).expect("a folder can be made");
    std::fs::write(at, bytes).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
}

/// An entry of the Hugging Face cache: blobs, a snapshot of links to them, and the reference that names it.
fn hub(files: &Files, entry: &Path) {
    for (number, (name, bytes)) in files.all().enumerate() {
        let blob = format!("blobs/{number:040x}");
        put(&entry.join(&blob), bytes);
        let up = "../".repeat(2 + name.matches('/').count());
        link(format!("{up}{blob}"), &entry.join("snapshots/abc").join(name));
    }
    put(&entry.join("refs/main"), b"abc\n");
}

/// Lays the model out in several ways, and returns each with its directory.
fn layouts(at: &Path) -> Vec<(&'static str, PathBuf)> {
    let files = model();
    files.write(&at.join("plain"));
    let entry = at.join("models--who--model");
    hub(&files, &entry);
    for (name, bytes) in files.all() {
        let is_weights = name.ends_with("onnx_data");
        let place = at.join(if is_weights { "disk" } else { "graphs" }).join(name);
        put(&place, bytes);
        if is_weights {
            link(&place, &at.join("graphs").join(name));
        }
        // The graphs are links here, and the weights lie beside the links.
        let at_links = at.join("beside").join(name);
        if name.ends_with(".onnx") { link(&place, &at_links) } else { put(&at_links, bytes) }
    }
    for folder in std::fs::read_dir(at.join("plain")).expect("the model").flatten() {
        link(folder.path(), &at.join("folders").join(folder.file_name()));
    }
    link("plain", &at.join("whole"));
    vec![
        ("the snapshot of an entry", entry.join("snapshots/abc")),
        ("an entry", entry),
        ("weights elsewhere", at.join("graphs")),
        ("graphs elsewhere", at.join("beside")),
        ("folders that are links", at.join("folders")),
        ("a directory that is a link", at.join("whole")),
    ]
}

/// A pipeline's tables behind that of the model.
const PLAIN: &str = "[task.text-to-image]\nprompt = \"a <cat-toy> above a red circle\"\n\
    [scheduler.dpm-multistep]\nuse_karras_sigmas = true\n[run]\nsteps = 3\nseed = 7\nwidth = 64\nheight = 64\n";

fn changed() -> String {
    let golden = root().join("tests/golden");
    format!(
        "[[textual_inversion]]\npath = {:?}\n[[lora]]\npath = {:?}\nscale = 0.8\n{PLAIN}",
        golden.join("pipelines/embedding/cat.safetensors"),
        golden.join("lora/files/one-level.safetensors"),
    )
}

/// Draws an image, and gives its latents. Nothing may be warned of.
fn draw(model: &Path, tables: &str, cache: Option<&Path>) -> Result<ArrayD<f32>, String> {
    let text = format!("[model]\npath = {model:?}\n{tables}");
    let spec = Spec::parse(&text, None, &Overrides::default()).map_err(|error| error.to_string())?;
    let mut plan = Plan::new(spec).map_err(|error| error.to_string())?;
    plan.set_graph_cache(cache.map(GraphCache::new).as_ref());
    let runtime = Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("ONNX Runtime");
    let (mut latents, mut warnings) = (None, Vec::new());
    let mut observe = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Image(image) => latents = Some(image.latents.clone()),
        ExecutionEvent::Warning(warning) => warnings.push(warning),
        _ => {}
    };
    let opened = Execution::load(&plan, &runtime, &Cancel::new(), &mut observe);
    let ran = opened.and_then(|mut pipeline| pipeline.run(&plan, &Cancel::new(), &mut observe));
    ran.map_err(|error| error.to_string())?;
    match warnings.is_empty() {
        true => latents.ok_or_else(|| "no image".to_owned()),
        false => Err(format!("an unwanted warning: {}", warnings.join("; "))),
    }
}

#[test]
fn links_are_followed_wherever_they_lead() {
    let folder = tempfile::tempdir().expect("a folder");
    let layouts = layouts(folder.path());
    let plain = folder.path().join("plain");
    let changed = changed();
    let mut wrong = Vec::new();
    for (tables, is_kept) in [(PLAIN, false), (PLAIN, true), (&changed, false)] {
        let cache = |at: usize| is_kept.then(|| folder.path().join(format!("cache-{at}")));
        let expected = draw(&plain, tables, cache(9).as_deref()).expect("the plain directory is drawn");
        for (at, (name, model)) in layouts.iter().enumerate() {
            match draw(model, tables, cache(at).as_deref()) {
                Ok(latents) if latents == expected => {}
                Ok(_) => wrong.push(format!("{name}: other latents")),
                Err(problem) => wrong.push(format!("{name}, optimized {is_kept}: {problem}")),
            }
        }
    }
    let unchanged = draw(&plain, PLAIN, None).expect("it is drawn");
    assert_ne!(unchanged, draw(&plain, &changed, None).expect("it is drawn"), "the LoRA and the embedding do nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn models_of_links_are_inspected_and_quantized() {
    let folder = tempfile::tempdir().expect("a folder");
    for (at, (name, model)) in layouts(folder.path()).into_iter().enumerate() {
        let report =
            bundle::inspect(&model, &Said::default(), task_fits).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(report.faults.is_empty() && report.missing.is_empty(), "{name}: {report}");
        let to = folder.path().join(format!("half-{at}"));
        let made = quantize(&model, &to, quantize::WeightFormat::Half, &[], &Cancel::new(), &mut |_| {});
        made.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!to.join("unet/model.onnx").is_symlink() && to.join("tokenizer/vocab.json").is_file(), "{name}");
        draw(&to, PLAIN, None).unwrap_or_else(|problem| panic!("{name}, quantised: {problem}"));
    }
}

#[test]
fn a_folder_of_links_that_leads_around_is_not_copied() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model");
    self::model().write(&model);
    symlink("..", model.join("unet/around")).expect("a link");
    let to = folder.path().join("half");
    let made = quantize(&model, &to, quantize::WeightFormat::Half, &[], &Cancel::new(), &mut |_| {});
    let error = made.expect_err("a folder within itself").to_string();
    assert!(error.contains("unet/around") && error.contains("a folder that contains it"), "{error}");
    assert!(!to.exists());
}
