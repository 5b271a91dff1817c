//! Several requests on one execution: what is open is used, and what was read is not read again.

use crate::common::{copy_folder, runtime};
use std::path::{Path, PathBuf};

use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::plan::ModelSources;
use ldm_ort::{Cancel, Overrides, Plan, Spec};
use ndarray::ArrayD;

use super::text;

/// Removes everything below a folder that is no graph.
fn remove_all_but_graphs(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => remove_all_but_graphs(&path),
            false if path.extension().is_some_and(|extension| extension == "onnx") => {}
            false => std::fs::remove_file(&path).expect("it is removed"),
        }
    }
}

/// The components that a run opened, and the latents and the pixels of its images.
type Outcome = (Vec<String>, Vec<(ArrayD<f32>, Vec<u8>)>);

fn run(execution: &mut Execution, plan: &Plan) -> Outcome {
    let (mut opened, mut images) = (Vec::new(), Vec::new());
    let mut observe = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Opened { component, .. } => opened.push(component.to_string()),
        ExecutionEvent::Image(image) => images.push((image.latents.clone(), image.pixels.data().to_vec())),
        _ => {}
    };
    execution.run(plan, &Cancel::new(), &mut observe).expect("it runs");
    opened.sort();
    (opened, images)
}

/// The pipelines of one model, each with the components that it opens after those before it: without a graph cache, and
/// with one, whose graphs are compiled for one size.
fn requests(folder: &Path) -> Vec<(String, [&'static [&'static str]; 2])> {
    let image = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/shapes/sample.png");
    let mask = folder.join("mask.png");
    let (width, height, _) = (64, 64, ());
    let data = (0..width * height).flat_map(|at| [if at % width < 32 { 0 } else { 255 }; 3]).collect();
    let pixels = ldm_ort::image::Rgb8::new(width, height, data).expect("an image");
    let png = ldm_ort::image::encode_png(&pixels, &[]).expect("a PNG");
    std::fs::write(&mask, png).expect("a file");
    let run = "[run]\nsteps = 2\nseed = 7\nwidth = 64\nheight = 64\n";
    let task =
        |name: &str, keys: &str| format!("[task.{name}]\nprompt = \"a red circle\"\nguidance_scale = 3.0\n{keys}");
    let plain = task("text-to-image", "");
    let image = format!("image = {:?}\nstrength = 0.8\n", text(&image));
    let masked = format!("{image}mask = {:?}\n", text(&mask));
    let other = "[run]\nsteps = 3\nseed = 9\nwidth = 64\nheight = 64\n[scheduler.ddim]\n";
    let wide = run.replace("width = 64", "width = 96");
    let all: &[&str] = &["text_encoder", "unet", "vae_decoder"];
    vec![
        (format!("{plain}{run}"), [all, all]),
        (format!("{}{run}", task("image-to-image", &image)), [&["vae_encoder"], &["vae_encoder"]]),
        (format!("{}{run}", task("inpaint", &masked)), [&[], &[]]),
        (format!("{plain}{other}"), [&[], &[]]),
        (format!("{}{run}", plain.replace("red circle", "blue square")), [&[], &[]]),
        (format!("{plain}{wide}"), [&[], &["unet", "vae_decoder"]]),
        (format!("{plain}{run}"), [&[], &["unet", "vae_decoder"]]),
        (format!("{}{run}", task("image-to-image", &image)), [&[], &[]]),
    ]
}

#[test]
fn requests_of_several_tasks_share_what_is_open() {
    let shapes = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/shapes");
    let (runtime, folder) = (runtime(), tempfile::tempdir().expect("a folder"));
    let spec = |model: &Path, request: &str| {
        let device = "[device]\nkeep = true\nthreads = 1\n";
        let toml = format!("[model]\npath = {:?}\n{request}\n{device}", text(model));
        Spec::parse(&toml, None, &Overrides::default()).expect("a pipeline")
    };
    for (at, cache) in [None, Some(GraphCache::new(folder.path().join("cache")))].into_iter().enumerate() {
        let model = folder.path().join(format!("model-{at}"));
        copy_folder(&shapes, &model);
        let requests = requests(folder.path());
        let sources = ModelSources::open(&spec(&model, &requests[0].0)).expect("a model directory");
        let mut execution = Execution::new(&runtime);
        for (number, (request, opens)) in requests.iter().enumerate() {
            let mut plan = Plan::from_sources(spec(&model, request), &sources).expect("a plan");
            plan.set_graph_cache(cache.as_ref());
            let (opened, images) = run(&mut execution, &plan);
            assert_eq!(opened, opens[at], "request {number} of {at}");
            // From here on there are graphs alone.
            remove_all_but_graphs(&model);
            let mut fresh = Plan::new(spec(&shapes, request)).expect("a plan");
            fresh.set_graph_cache(cache.as_ref());
            assert_eq!(images, run(&mut Execution::new(&runtime), &fresh).1, "request {number} of {at}");
        }
    }
}
