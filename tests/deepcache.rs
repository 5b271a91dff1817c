//! UNets cut along their long skip connections, and pipelines that run the outer layers alone at some steps.
//!
//! What such pipelines draw is held to diffusers in `tests/pipeline/caching.rs`; here it is that the parts of a graph
//! compute what the whole does, and that nothing depends on how a run is laid out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ldm_ort::bundle::{ComponentKind, GraphFile};
use ldm_ort::cli::args::LibraryArgs;
use ldm_ort::lora::{Lora, merge};
use ldm_ort::pipeline::{Event, Pipeline};
use ldm_ort::prepared::{Cache, open_unkept};
use ldm_ort::rewrite::{Pass, branches, footprint, rewrite};
use ldm_ort::session::{Cancel, Runtime, Session, SessionOptions};
use ldm_ort::tensor::{DType, Tensor, TensorInfo, TensorView, Weight};
use ldm_ort::{Overrides, Plan, Spec, npy};
use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn graph(path: &str) -> GraphFile {
    let path = root(path);
    GraphFile::open(&path, path.parent().expect("a folder")).unwrap_or_else(|error| panic!("{error}"))
}

fn runtime() -> Runtime {
    Runtime::load(&LibraryArgs::default().to_options(None)).expect("ONNX Runtime is found or fetched")
}

#[test]
fn every_long_skip_connection_is_found_and_nothing_else_is() {
    let fixtures = "tests/fixtures";
    for (path, count) in [
        // One for each layer of each level, and one more a level.
        ("models/sd1/unet", 4),
        ("models/sd1-legacy/unet", 4),
        ("families/xl/unet", 4),
        ("families/inpaint/unet", 4),
        // The residuals of a control network are added on the way.
        ("families/control/unet", 4),
        ("models/pixel/unet", 4),
        ("models/sd1/text_encoder", 0),
        ("models/sd1/vae_decoder", 0),
        ("families/control/controlnet", 0),
        ("families/sd3/transformer", 0),
        ("families/flux-dev/transformer", 0),
    ] {
        let graph = graph(&format!("{fixtures}/{path}/model.onnx"));
        let found = branches(&graph).expect("a readable graph");
        assert_eq!(found.len(), count, "{path}: {found:?}");
        let bytes: Vec<u64> = found.iter().map(|branch| branch.outer_weights).collect();
        assert!(bytes.is_sorted() && bytes.iter().all(|&bytes| 0 < bytes && bytes < graph.weight_bytes), "{bytes:?}");
    }
    assert_eq!(branches(&graph("models/shapes/unet/model.onnx")).expect("a readable graph").len(), 6);
}

/// Values for an input that look like noise, the same for the same shape.
fn values(info: &TensorInfo) -> Tensor {
    let is_picture = info.shape.len() == 4;
    let free = |at: usize| match at {
        0 => 2,
        // A residual is as large as the skip connection that it is added to.
        2 | 3 if is_picture && info.name != "sample" => 0,
        2 => 8,
        3 => 16,
        _ => 7,
    };
    let lengths = info.shape.iter().enumerate().map(|(at, dim)| dim.fixed().unwrap_or_else(|| free(at)));
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let shape = IxDyn(&lengths.collect::<Vec<_>>());
    match info.dtype {
        DType::I64 | DType::I32 => Tensor::I64(ArrayD::from_shape_simple_fn(shape, || (next() * 20.0) as i64)),
        _ => Tensor::F32(ArrayD::from_shape_simple_fn(shape, || (next() * 4.0 - 2.0) as f32)),
    }
}

/// The same with the residuals of a control network for samples of 8×16.
fn inputs_of(session: &Session) -> Vec<(String, Tensor)> {
    let residual = |info: &TensorInfo, of: usize| {
        let channels = info.shape[1].fixed().expect("channels");
        Tensor::F32(ArrayD::from_elem(IxDyn(&[2, channels, 8 / of, 16 / of]), 0.5))
    };
    let value = |info: &TensorInfo| match info.name.as_str() {
        name if name.starts_with("mid_block") => residual(info, 2),
        name if name.starts_with("down_block") => residual(info, if name.contains(['2', '3']) { 2 } else { 1 }),
        _ => values(info),
    };
    session.inputs().iter().map(|info| (info.name.clone(), value(info))).collect()
}

fn views(inputs: &[(String, Tensor)]) -> Vec<(&str, TensorView<'_>)> {
    inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect()
}

/// Opens what a graph is rewritten to, from a folder without its weights.
fn open(runtime: &Runtime, graph: &GraphFile, passes: &[Pass], weights: &[Weight]) -> Session {
    let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    open_unkept(runtime, graph, passes, &options, weights.to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

/// How far apart in parts of the largest.
fn apart(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let largest = a.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    a.iter().zip(b).fold(0f32, |apart, (a, b)| apart.max((a - b).abs())) / largest
}

/// On what the deep layers give, the outer ones give what the whole graph gives; on something else they give something
/// else; and of the deep ones' inputs and weights nothing is left.
fn assert_parts_are_the_whole(path: &str, weights: &[Weight]) {
    let (graph, runtime) = (graph(path), runtime());
    let output = graph.outputs[0].name.clone();
    let found = branches(&graph).expect("a readable graph");
    for (branch, told) in found.iter().enumerate() {
        let mut whole = open(&runtime, &graph, &[Pass::HandOut(branch)], weights);
        let mut outer = open(&runtime, &graph, &[Pass::Outer(branch)], weights);
        let inputs = inputs_of(&whole);
        let made = whole.run(&views(&inputs), &[&output, &told.tensor], &Cancel::new()).expect("it runs");
        let [want, deep] = <[_; 2]>::try_from(made).expect("two outputs");
        let info = outer.inputs().iter().find(|input| input.name == told.tensor).expect("an input for the deep tensor");
        let fits = info.shape.iter().zip(deep.shape()).all(|(dim, length)| dim.fixed().is_none_or(|n| n == *length));
        assert!(fits && info.shape.len() == 4, "{info} and {:?}", deep.shape());
        let mut run = |deep: &ArrayD<f32>| {
            let mut own: Vec<_> = inputs.clone();
            own.push((told.tensor.clone(), Tensor::F32(deep.clone())));
            own.retain(|(name, _)| outer.inputs().iter().any(|input| input.name == *name));
            assert_eq!(own.len(), outer.inputs().len());
            outer.run(&views(&own), &[&output], &Cancel::new()).expect("it runs").remove(0)
        };
        let far = apart(&want, &run(&deep));
        assert!(far < 1e-5, "{path}, branch {branch}: {far}");
        let far = apart(&want, &run(&deep.mapv(|v| v * 1.1 + 0.1)));
        assert!(far > 1e-4, "{path}, branch {branch}: nothing comes of the deep layers");
    }
}

#[test]
fn the_parts_compute_what_the_whole_does() {
    for path in [
        "tests/fixtures/models/sd1/unet/model.onnx",
        // With weights in a file beside it.
        "tests/fixtures/models/sd1-legacy/unet/model.onnx",
        "tests/fixtures/families/xl/unet/model.onnx",
        "tests/fixtures/families/control/unet/model.onnx",
        "tests/fixtures/models/pixel/unet/model.onnx",
        "models/shapes/unet/model.onnx",
    ] {
        assert_parts_are_the_whole(path, &[]);
    }
}

/// Weights that a LoRA changes are found where a cut leaves them, within the file and beside it.
#[test]
fn changed_weights_are_changed_in_both_parts() {
    for model in ["sd1", "sd1-legacy"] {
        let path = format!("tests/fixtures/models/{model}/unet/model.onnx");
        let lora = Lora {
            path: root("tests/golden/lora/files/diffusers.safetensors"),
            denoiser_scale: 1.0,
            text_encoder_scale: 1.0,
        };
        let graph = graph(&path);
        let weights = merge(&[lora], ComponentKind::Unet, &graph).expect("a LoRA that fits");
        assert_parts_are_the_whole(&path, &weights);
        // Were the stored ones in both, the parts would be the whole just as well.
        let (runtime, output) = (runtime(), graph.outputs[0].name.as_str());
        let [mut plain, mut changed] =
            [&[], weights.as_slice()].map(|w| open(&runtime, &graph, &[Pass::HandOut(3)], w));
        let inputs = inputs_of(&plain);
        let run = |session: &mut Session| session.run(&views(&inputs), &[output], &Cancel::new()).expect("it runs");
        assert!(apart(&run(&mut plain)[0], &run(&mut changed)[0]) > 1e-4);
    }
}

/// With the outermost branch two convolutions of a block and the first and last are left, whatever else is rewritten.
#[test]
fn the_outer_layers_are_few() {
    let graph = graph("tests/fixtures/models/sd1/unet/model.onnx");
    let scratch = tempfile::tempdir().expect("a folder");
    let count = |passes: &[Pass], operator: &str| {
        let new = rewrite(&graph, passes, &[]).expect("it is rewritten").expect("places");
        let file = scratch.path().join("model.onnx");
        std::fs::write(&file, new.bytes).expect("a file");
        let new = GraphFile::open(&file, scratch.path()).expect("a graph");
        let found = new.operators.iter().filter(|(own, _)| own.name == operator);
        (found.map(|(_, n)| n).sum::<usize>(), new.weight_bytes, new.inputs.len())
    };
    // The fourth is the shortcut, and there is no attention on this level.
    assert_eq!(count(&[Pass::Outer(0)], "Conv").0, 5);
    let attention = [Pass::Attention, Pass::Subpixel, Pass::Outer(0)];
    assert_eq!(count(&attention, "MultiHeadAttention").0, 0);
    assert_eq!(count(&[Pass::Attention, Pass::Outer(3)], "MultiHeadAttention").0, 6);
    let (_, weights, inputs) = count(&[Pass::Outer(0)], "Conv");
    assert_eq!(inputs, 3, "no tokens");
    // Constants are no weights, and few bytes.
    let beside = weights - branches(&graph).expect("branches")[0].outer_weights;
    assert!(beside < 1024, "{beside}");
    let error = rewrite(&graph, &[Pass::Outer(4)], &[]).expect_err("there are four").to_string();
    assert!(error.contains("branch 4") && error.contains("4 long skip connections"), "{error}");
}

/// The outer layers take few weights and little room, and a bound for the memory counts them beside the whole.
#[test]
fn the_memory_of_both_parts_is_counted() {
    let graph = graph("tests/fixtures/models/sd1/unet/model.onnx");
    let axes =
        [("batch_size", 1), ("height", 16), ("width", 16), ("sequence_length", 16), ("sequence", 16), ("batch", 1)];
    let axes = axes.map(|(name, length)| (name.to_owned(), length));
    let told =
        |pass| footprint(&graph, &[Pass::Attention, pass], &axes).expect("a readable graph").expect("known sizes");
    let (whole, outer) = (told(Pass::HandOut(0)), told(Pass::Outer(0)));
    assert!(outer.weights * 4 < whole.weights && outer.activations <= whole.activations, "{whole:?}, {outer:?}");
    let weights = branches(&graph).expect("branches")[0].outer_weights;
    assert!(outer.weights.abs_diff(weights) < 1024, "{outer:?} and {weights}");

    let text = std::fs::read_to_string(root(PLAIN)).expect("a pipeline");
    let need = |set: &[&str]| {
        let set = set
            .iter()
            .chain(&["device.memory=\"300 MB\"", "run.width=1024", "run.height=768"])
            .map(|&key| key.to_owned());
        let file = root(PLAIN);
        let spec = Spec::parse(&text, Some(&file), &Overrides { set: set.collect(), ..Overrides::default() });
        let error = spec.and_then(Plan::new).expect_err("too little").to_string();
        let (_, told) = error.split_once("unet needs about ").unwrap_or_else(|| panic!("{error}"));
        told.split_once(' ').and_then(|(number, _)| number.parse::<f64>().ok()).unwrap_or_else(|| panic!("{error}"))
    };
    assert!(need(&[]) < need(&["cache.deepcache={}"]));
}

/// The final latents of a pipeline, and the evaluations of all layers and of the outer ones.
struct Drawn {
    latents: ArrayD<f32>,
    evaluations: Vec<(usize, usize, usize)>,
    optimised: usize,
}

fn draw(pipeline: &str, cache: Option<&Path>, set: &[&str]) -> Drawn {
    let text = std::fs::read_to_string(root(pipeline)).expect("a pipeline");
    let folder = root(pipeline).parent().expect("a folder").to_path_buf();
    let set = set.iter().map(|&key| key.to_owned()).collect();
    let file = folder.join("pipeline.toml");
    let spec = Spec::parse(&text, Some(&file), &Overrides { set, ..Overrides::default() });
    let Plan { mut model, request, .. } = spec.and_then(Plan::new).unwrap_or_else(|error| panic!("{error}"));
    model.prepared = cache.map(Cache::new);
    let (mut latents, mut evaluations, mut optimised) = (Vec::new(), Vec::new(), 0);
    let mut observe = |event: Event<'_>| {
        match event {
            Event::Optimizing { .. } => optimised += 1,
            Event::Warning(warning) => panic!("{warning}"),
            Event::Picture(picture) => {
                latents.push(picture.latents.clone().insert_axis(Axis(0)));
                evaluations.extend(picture.evaluations.iter().map(|e| (e.made, e.outer, e.of)));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let mut opened = Pipeline::load(model, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    opened.run(&request, &Cancel::new(), &mut observe).expect("pictures");
    let views: Vec<_> = latents.iter().map(|one| one.view()).collect();
    Drawn { latents: concatenate(Axis(0), &views).expect("pictures of one size"), evaluations, optimised }
}

const PLAIN: &str = "tests/golden/pipelines/plain/pipeline.toml";

/// Kept or not, rows together, side by side or one after the other, pictures alone or in one batch: the same latents.
#[test]
fn nothing_depends_on_how_a_run_is_laid_out() {
    let deep = "cache.deepcache={interval=3, branch=1}";
    let interval = "task.text-to-image.guidance_interval=[0.2, 0.7]";
    for more in [&[][..], &[interval]] {
        let euler = "scheduler.euler={}";
        let with = |own: &[&'static str]| [&["run.steps=8", "run.images=2", euler, deep], more, own].concat();
        let plain = draw(PLAIN, None, &with(&["device.prepare=false"]));
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
        let second = draw(PLAIN, None, &[&with(&["device.prepare=false"])[..], &["run.images=1"]].concat());
        let first = plain.latents.slice_axis(Axis(0), Slice::from(..1)).to_owned();
        assert!(apart(&first, &second.latents) < 1e-5);
    }
}

/// A batch of several pictures in one call, as other providers than the processor run them.
#[test]
fn pictures_of_one_batch_have_deep_layers_of_their_own() {
    let set = ["run.steps=6", "run.images=2", "cache.deepcache={}", "device.batching=batched"];
    let draw = |batch: usize| {
        let spec = Spec::load(&root(PLAIN), &Overrides { set: set.map(str::to_owned).into(), ..Overrides::default() });
        let Plan { model, mut request, .. } = spec.and_then(Plan::new).unwrap_or_else(|error| panic!("{error}"));
        request.batch = batch;
        let mut latents = Vec::new();
        let mut observe = |event: Event<'_>| {
            if let Event::Picture(picture) = event {
                latents.push(picture.latents.clone());
            }
            ControlFlow::Continue(())
        };
        let mut opened = Pipeline::load(model, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
        opened.run(&request, &Cancel::new(), &mut observe).expect("pictures");
        latents
    };
    for (alone, together) in draw(1).iter().zip(draw(2)) {
        assert!(apart(alone, &together) < 1e-5);
    }
}

/// The outer layers are kept once, a graph of their own; the whole graph with its second output is not the plain one.
#[test]
fn the_outer_layers_are_another_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let optimised = |set: &[&str]| draw(PLAIN, Some(folder.path()), &[&["run.steps=2"], set].concat()).optimised;
    assert_eq!(optimised(&["cache.deepcache={}"]), 4);
    assert_eq!(optimised(&["cache.deepcache={interval=2}"]), 0);
    assert_eq!(optimised(&["cache.deepcache={branch=3}"]), 2);
    assert_eq!(optimised(&[]), 1);
    let entries = Cache::new(folder.path()).entries().expect("a list");
    let outer: Vec<_> = entries.iter().filter(|entry| entry.component == "unet (outer layers)").collect();
    let whole = entries.iter().filter(|entry| entry.component == "unet").map(|entry| entry.bytes()).min();
    assert_eq!(outer.len(), 2, "{entries:?}");
    assert!(outer.iter().any(|entry| Some(10 * entry.bytes()) < whole.map(|bytes| 4 * bytes)), "{entries:?}");
}

/// Tiles that do not overlap are as many pictures that know nothing of each other.
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
        ("lora/diffusers/pipeline.toml", &["run.steps=8"], (2 * 2, 6 * 2, 16)),
    ] {
        let path = format!("tests/golden/{pipeline}");
        let set = [&["run.images=1", deep], more].concat();
        let plain = draw(&path, None, &set);
        assert_eq!(plain.evaluations, [want], "{pipeline}");
        let folder = tempfile::tempdir().expect("a folder");
        let kept = draw(&path, Some(folder.path()), &[&set[..], &["device.batching=batched"]].concat());
        let far = apart(&plain.latents, &kept.latents);
        assert!(far < 1e-4, "{pipeline}: {far}");
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
