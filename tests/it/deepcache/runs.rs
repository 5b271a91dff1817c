//! Pipelines that run the shallow layers alone at some steps.

use crate::common::runtime;
use std::path::Path;

use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::rewrite::{Pass, branches, footprint};
use ldm_ort::session::Cancel;
use ldm_ort::{Overrides, Plan, Result, Spec, npy};
use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};

use super::{apart, graph, root};

/// The shallow layers take few weights and little room, and a bound for the memory counts them beside the whole.
#[test]
fn the_memory_of_both_parts_is_counted() {
    let graph = graph("tests/fixtures/models/sd1/unet/model.onnx");
    let axes =
        [("batch_size", 1), ("height", 16), ("width", 16), ("sequence_length", 16), ("sequence", 16), ("batch", 1)];
    let axes = axes.map(|(name, length)| (name.to_owned(), length));
    let told =
        |pass| footprint(&graph, &[Pass::Attention, pass], &axes).expect("a readable graph").expect("known sizes");
    let (whole, shallow) = (told(Pass::DeepOutput(0)), told(Pass::Shallow(0)));
    assert!(shallow.weights * 4 < whole.weights && shallow.activations <= whole.activations, "{whole:?}, {shallow:?}");
    let weights = branches(&graph).expect("branches")[0].shallow_weights;
    assert!(shallow.weights.abs_diff(weights) < 1024, "{shallow:?} and {weights}");

    let need = |more: &[&str]| {
        let set = [&["device.memory_budget=\"320 MB\"", "run.width=4096", "run.height=4096"], more].concat();
        let error = plan(PLAIN, &set).expect_err("too little").to_string();
        let (_, told) = error.split_once("unet needs about ").unwrap_or_else(|| panic!("{error}"));
        told.split_once(' ').and_then(|(number, _)| number.parse::<f64>().ok()).unwrap_or_else(|| panic!("{error}"))
    };
    assert!(need(&[]) < need(&["cache.deepcache={}"]));
}

/// The final latents of a pipeline, and the evaluations of all layers and of the shallow ones.
struct Drawn {
    latents: ArrayD<f32>,
    evaluations: Vec<(usize, usize, usize)>,
    optimized: usize,
}

fn plan(pipeline: &str, set: &[&str]) -> Result<Plan> {
    let set = set.iter().map(|&key| key.to_owned()).collect();
    Spec::load(&root(pipeline), &Overrides { set, ..Overrides::default() }).and_then(Plan::new)
}

fn draw(pipeline: &str, cache: Option<&Path>, set: &[&str]) -> Drawn {
    let mut plan = plan(pipeline, set).unwrap_or_else(|error| panic!("{error}"));
    plan.execution.graph_cache = cache.map(GraphCache::new);
    draw_plan(plan)
}

fn draw_plan(plan: Plan) -> Drawn {
    let (mut latents, mut evaluations, mut optimized) = (Vec::new(), Vec::new(), 0);
    let mut observe = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Optimizing { .. } => optimized += 1,
        ExecutionEvent::Warning(warning) => panic!("{warning}"),
        ExecutionEvent::Image(image) => {
            latents.push(image.latents.clone().insert_axis(Axis(0)));
            evaluations.extend(image.evaluations.iter().map(|e| (e.made, e.shallow, e.total)));
        }
        _ => {}
    };
    let mut opened = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    opened.run(&plan, &Cancel::new(), &mut observe).expect("images");
    let views: Vec<_> = latents.iter().map(|one| one.view()).collect();
    Drawn { latents: concatenate(Axis(0), &views).expect("images of one size"), evaluations, optimized }
}

const PLAIN: &str = "tests/golden/pipelines/plain/pipeline.toml";

/// Kept or not, rows together, side by side or one after the other, images alone or in one batch: the same latents.
#[test]
fn nothing_depends_on_how_a_run_is_laid_out() {
    let deep = "cache.deepcache={interval=3, branch=1}";
    let interval = "task.text-to-image.guidance_interval=[0.2, 0.7]";
    for more in [&[][..], &[interval]] {
        let euler = "scheduler.euler={}";
        let with = |own: &[&'static str]| [&["run.steps=8", "run.images=2", euler, deep], more, own].concat();
        let plain = draw(PLAIN, None, &with(&["device.optimize=false"]));
        let full = draw(PLAIN, None, &[&["run.steps=8", "run.images=2", euler], more].concat());
        assert!(apart(&plain.latents, &full.latents) > 1e-4, "nothing is left out");
        // Whole steps 0, 3 and 6; where guidance is at work in steps 2 to 4 only, 0, 2 and 5.
        let want = if more.is_empty() { (6, 10, 16) } else { (1 + 2 + 1, 1 + 4 + 2, 16) };
        assert_eq!(plain.evaluations, [want; 2]);
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Some(folder.path());
        for (way, cache) in
            [("split", None), ("batched", None), ("batched", kept), ("split", kept), ("sequential", kept)]
        {
            let batching = format!("device.batching={way}");
            let set = with(&["device.threads=2"]);
            let other = draw(PLAIN, cache, &[&set[..], &[batching.as_str()]].concat());
            let far = apart(&plain.latents, &other.latents);
            assert!(far < 1e-5, "{way}, {cache:?}: {far}");
            assert_eq!(other.evaluations, plain.evaluations);
        }
        let second = draw(PLAIN, None, &[&with(&["device.optimize=false"])[..], &["run.images=1"]].concat());
        let first = plain.latents.slice_axis(Axis(0), Slice::from(..1)).to_owned();
        assert!(apart(&first, &second.latents) < 1e-5);
    }
}

/// A batch of several images in one call, as other providers than the CPU run them.
#[test]
fn images_of_one_batch_have_deep_layers_of_their_own() {
    let set = ["run.steps=6", "run.images=2", "cache.deepcache={}", "device.batching=batched"];
    let draw = |batch: usize| {
        let mut plan = plan(PLAIN, &set).unwrap_or_else(|error| panic!("{error}"));
        plan.request.batch = batch;
        draw_plan(plan).latents
    };
    assert!(apart(&draw(1), &draw(2)) < 1e-5);
}

/// Requests with and without a cut run on one execution, each on graphs of its own, as if it were the first.
#[test]
fn requests_with_other_cuts_share_an_execution() {
    let set = ["run.steps=3", "cache.deepcache={branch=1}"];
    let [plain, shallow, deeper] = [&set[..1], &["run.steps=3", "cache.deepcache={}"], &set]
        .map(|set| plan(PLAIN, set).unwrap_or_else(|error| panic!("{error}")));
    let mut execution = Execution::new(&runtime());
    for plan in [&shallow, &deeper, &plain, &shallow] {
        let mut latents = None;
        let mut observe = |event: ExecutionEvent<'_>| {
            if let ExecutionEvent::Image(image) = event {
                latents = Some(image.latents.clone().insert_axis(Axis(0)));
            }
        };
        let timings = execution.run(plan, &Cancel::new(), &mut observe).expect("an image");
        assert_eq!(timings.evaluations.shallow > 0, plan.request.cache.is_some());
        let mut fresh = None;
        let mut observe = |event: ExecutionEvent<'_>| {
            if let ExecutionEvent::Image(image) = event {
                fresh = Some(image.latents.clone().insert_axis(Axis(0)));
            }
        };
        Execution::new(&runtime()).run(plan, &Cancel::new(), &mut observe).expect("an image");
        assert_eq!(latents, fresh);
    }
}

/// The shallow layers are kept once, a graph of their own; the whole graph with its second output is not the plain one.
#[test]
fn the_outer_layers_are_another_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let optimized = |set: &[&str]| draw(PLAIN, Some(folder.path()), &[&["run.steps=2"], set].concat()).optimized;
    assert_eq!(optimized(&["cache.deepcache={}"]), 4);
    assert_eq!(optimized(&["cache.deepcache={interval=2}"]), 0);
    assert_eq!(optimized(&["cache.deepcache={branch=3}"]), 2);
    assert_eq!(optimized(&[]), 1);
    let entries = GraphCache::new(folder.path()).entries().expect("a list");
    let shallow: Vec<_> = entries.iter().filter(|entry| entry.component == "unet (shallow layers)").collect();
    let whole = entries.iter().filter(|entry| entry.component == "unet").map(|entry| entry.bytes()).min();
    assert_eq!(shallow.len(), 2, "{entries:?}");
    assert!(shallow.iter().any(|entry| Some(10 * entry.bytes()) < whole.map(|bytes| 4 * bytes)), "{entries:?}");
}

/// Tiles that do not overlap are as many images that know nothing of each other.
#[test]
fn each_tile_has_deep_layers_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let noise = |seed: f32, width: usize| {
        ArrayD::from_shape_fn(IxDyn(&[1, 4, 8, width]), |at| {
            (seed + (at[1] * 131 + at[2] * 17 + at[3] * 7) as f32 * 0.37).sin() * 1.4
        })
    };
    let halves = [noise(0.3, 8), noise(1.9, 8)];
    let both = concatenate(Axis(3), &[halves[0].view(), halves[1].view()]).expect("halves of one height");
    let run = |latents: &ArrayD<f32>, set: &[&str]| {
        let file = folder.path().join("latents.npy");
        npy::write_f32(&file, latents.view()).expect("a file");
        let (given, width) = (format!("run.latents={file:?}"), format!("run.width={}", 8 * latents.shape()[3]));
        let own = ["run.steps=6", "run.images=1", "run.height=64", "scheduler.euler={}", "device.batching=batched"];
        draw(PLAIN, None, &[&own[..], &["cache.deepcache={branch=2}", &given, &width], set].concat()).latents
    };
    let tiled = run(&both, &["run.tile=8", "run.tile_stride=8"]);
    let alone = halves.each_ref().map(|half| run(half, &[]));
    let joined = concatenate(Axis(3), &[alone[0].view(), alone[1].view()]).expect("halves of one height");
    let far = apart(&joined, &tiled);
    assert!(far < 1e-5, "{far}");
}

/// Control networks, graphs of a fixed batch, two guidances and learnt weights go with it; control networks are run with
/// the whole model only, and where one begins or ends all layers are run.
#[test]
fn other_models_are_cut_as_well() {
    let deep = "cache.deepcache={interval=4, branch=1}";
    for (pipeline, more, want) in [
        // The second network is at work in steps 2 to 5 of 8.
        ("families/control/pipeline.toml", &["run.steps=8"][..], (3 * 2, 5 * 2, 16)),
        ("families/instruct/pipeline.toml", &["run.steps=8"], (2 * 3, 6 * 3, 24)),
        ("families/xl/pipeline.toml", &["run.steps=8"], (2 * 2, 6 * 2, 16)),
        ("pipelines/no-guidance/pipeline.toml", &["run.steps=8", "scheduler.ddim={}"], (2, 6, 8)),
        // A branch of the one level that it has, a batch that the graph fixes, times between whole ones, halves.
        ("pipelines/fixed-batch/pipeline.toml", &["run.steps=8", "scheduler.euler={}"], (2 * 2, 6 * 2, 16)),
        ("pipelines/int64-timestep-between/pipeline.toml", &["run.steps=8"], (2 * 2, 6 * 2, 16)),
        ("pipelines/half/pipeline.toml", &["run.steps=8", "scheduler.euler={}"], (2 * 2, 6 * 2, 16)),
        ("lora/diffusers/pipeline.toml", &["run.steps=8"], (2 * 2, 6 * 2, 16)),
    ] {
        let path = format!("tests/golden/{pipeline}");
        let set = [&["run.images=1", deep], more].concat();
        let plain = draw(&path, None, &set);
        assert_eq!(plain.evaluations, [want], "{pipeline}");
        let folder = tempfile::tempdir().expect("a folder");
        let kept = draw(&path, Some(folder.path()), &[&set[..], &["device.batching=batched"]].concat());
        let far = apart(&plain.latents, &kept.latents);
        let enough = if pipeline.contains("half") { 1e-2 } else { 1e-4 };
        assert!(far < enough, "{pipeline}: {far}");
        let full = draw(&path, None, &[&["run.images=1"], more].concat());
        let far = apart(&full.latents, &plain.latents);
        assert!(far > 1e-4, "{pipeline}: nothing is left out");
    }
}

/// Between `start` and `end` only, and a step of a second-order scheduler as one.
#[test]
fn steps_are_left_out_within_the_share_alone() {
    let evaluations =
        |set: &[&str]| draw(PLAIN, None, &[&["run.images=1", "run.steps=8"], set].concat()).evaluations[0];
    // Whole: 0 to 3, then 6; 7 is beyond.
    assert_eq!(
        evaluations(&["cache.deepcache={interval=3, start=0.5, end=0.875}", "scheduler.euler={}"]),
        (6 * 2, 2 * 2, 16)
    );
    // Of 15 calls the last is a step by itself: steps 0, 4 are whole.
    assert_eq!(evaluations(&["cache.deepcache={interval=4}", "scheduler.heun={}"]), (4 * 2, 11 * 2, 30));
}
