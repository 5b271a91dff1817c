//! A graph and its parts.

use crate::common::runtime;
use ldm_ort::bundle::{ComponentKind, GraphFile};
use ldm_ort::graph_cache::open_uncached;
use ldm_ort::lora::{Lora, merge};
use ldm_ort::rewrite::{Pass, branches, rewrite};
use ldm_ort::session::{Cancel, Runtime, Session, SessionOptions};
use ldm_ort::tensor::{DType, Tensor, TensorInfo, TensorView, Weight};
use ndarray::{ArrayD, IxDyn};

use super::{apart, graph, root};

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
        // As CompVis wrote it: beside these the time is joined of sines and cosines.
        ("systems/layout/unet", 4),
        ("systems/semantic/unet", 6),
        ("models/sd1/text_encoder", 0),
        ("models/sd1/vae_decoder", 0),
        ("families/control/controlnet", 0),
        ("families/sd3/transformer", 0),
        ("families/flux-dev/transformer", 0),
    ] {
        let graph = graph(&format!("{fixtures}/{path}/model.onnx"));
        let found = branches(&graph).expect("a readable graph");
        assert_eq!(found.len(), count, "{path}: {found:?}");
        let bytes: Vec<u64> = found.iter().map(|branch| branch.shallow_weights).collect();
        assert!(bytes.is_sorted() && bytes.iter().all(|&bytes| 0 < bytes && bytes < graph.weight_bytes), "{bytes:?}");
    }
    assert_eq!(branches(&graph("models/shapes/unet/model.onnx")).expect("a readable graph").len(), 6);
}

/// Inputs for two samples of 8×16.
fn inputs_of(session: &Session) -> Vec<(String, Tensor)> {
    let value = |info: &TensorInfo| {
        // A residual of a control network is as large as the skip connection that it is added to.
        let is_deep =
            info.name.starts_with("mid_block") || info.name.contains("block_2") || info.name.contains("block_3");
        let free = |at: usize| match (at, info.shape.len()) {
            (0, _) => 2,
            (2, 4) => {
                if is_deep {
                    4
                } else {
                    8
                }
            }
            (3, 4) => {
                if is_deep {
                    8
                } else {
                    16
                }
            }
            _ => 7,
        };
        let lengths = info.shape.iter().enumerate().map(|(at, dim)| dim.fixed().unwrap_or_else(|| free(at)));
        let (shape, mut n) = (IxDyn(&lengths.collect::<Vec<_>>()), 0);
        let mut next = || {
            n += 1;
            n
        };
        match info.dtype {
            DType::I64 | DType::I32 => Tensor::I64(ArrayD::from_shape_simple_fn(shape, || next() * 7 % 20)),
            _ => Tensor::F32(ArrayD::from_shape_simple_fn(shape, || 2.0 * (next() as f32 * 12.9898).sin())),
        }
    };
    session.inputs().iter().map(|info| (info.name.clone(), value(info))).collect()
}

fn views(inputs: &[(String, Tensor)]) -> Vec<(&str, TensorView<'_>)> {
    inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect()
}

/// Opens what a graph is rewritten to, from a folder without its weights.
fn open(runtime: &Runtime, graph: &GraphFile, passes: &[Pass], weights: &[Weight]) -> Session {
    let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    open_uncached(runtime, graph, passes, &options, weights.to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

/// On what the deep layers give, the shallow ones give what the whole graph gives; on something else they give something
/// else; and of the deep ones' inputs and weights nothing is left.
fn assert_parts_are_the_whole(path: &str, weights: &[Weight]) {
    let (graph, runtime) = (graph(path), runtime());
    let output = graph.outputs[0].name.clone();
    let found = branches(&graph).expect("a readable graph");
    for (branch, told) in found.iter().enumerate() {
        let mut whole = open(&runtime, &graph, &[Pass::DeepOutput(branch)], weights);
        let mut shallow = open(&runtime, &graph, &[Pass::Shallow(branch)], weights);
        let inputs = inputs_of(&whole);
        let made = whole.run(&views(&inputs), &[&output, &told.tensor], &Cancel::new()).expect("it runs");
        let [want, deep] = <[_; 2]>::try_from(made).expect("two outputs");
        let info =
            shallow.inputs().iter().find(|input| input.name == told.tensor).expect("an input for the deep tensor");
        let fits = info.shape.iter().zip(deep.shape()).all(|(dim, length)| dim.fixed().is_none_or(|n| n == *length));
        assert!(fits && info.shape.len() == 4, "{info} and {:?}", deep.shape());
        let mut run = |deep: &ArrayD<f32>| {
            let mut own: Vec<_> = inputs.clone();
            own.push((told.tensor.clone(), Tensor::F32(deep.clone())));
            own.retain(|(name, _)| shallow.inputs().iter().any(|input| input.name == *name));
            assert_eq!(own.len(), shallow.inputs().len());
            shallow.run(&views(&own), &[&output], &Cancel::new()).expect("it runs").remove(0)
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
        "tests/fixtures/systems/layout/unet/model.onnx",
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
            [&[], weights.as_slice()].map(|w| open(&runtime, &graph, &[Pass::DeepOutput(3)], w));
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
        let new = GraphFile::open(&file).expect("a graph");
        let found = new.operators.iter().filter(|(own, _)| own.name == operator);
        (found.map(|(_, n)| n).sum::<usize>(), new.weight_bytes, new.inputs.len())
    };
    // The fourth is the shortcut, and there is no attention on this level.
    assert_eq!(count(&[Pass::Shallow(0)], "Conv").0, 5);
    let attention = [Pass::Attention, Pass::Subpixel, Pass::Shallow(0)];
    assert_eq!(count(&attention, "MultiHeadAttention").0, 0);
    assert_eq!(count(&[Pass::Attention, Pass::Shallow(3)], "MultiHeadAttention").0, 6);
    let (_, weights, inputs) = count(&[Pass::Shallow(0)], "Conv");
    assert_eq!(inputs, 3, "no tokens");
    // Constants are no weights, and few bytes.
    let beside = weights - branches(&graph).expect("branches")[0].shallow_weights;
    assert!(beside < 1024, "{beside}");
    let error = rewrite(&graph, &[Pass::Shallow(4)], &[]).expect_err("there are four").to_string();
    assert!(error.contains("branch 4") && error.contains("4 long skip connections"), "{error}");
}
