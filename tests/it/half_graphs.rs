//! Models whose graphs compute in half precision.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use half::f16;
use ldm_ort::bundle::{ComponentKind, GraphFile};
use ldm_ort::quantize::{ActivationFormat, Float32Nodes, GraphFormat, QuantizedGraph, WeightFormat, quantize};
use ldm_ort::rewrite::{Pass, footprint};
use ldm_ort::session::{Cancel, Optimization, Session, SessionOptions};
use ldm_ort::tensor::TensorView;
use ndarray::ArrayD;

use crate::common::{Answer, answer, copy_folder, ldm_ort, models, npy, root, runtime};

const HALF: GraphFormat = GraphFormat { weights: WeightFormat::Half, activations: ActivationFormat::Half };

fn halved(model: &Path, output: &Path, components: &[ComponentKind]) -> Vec<QuantizedGraph> {
    quantize(model, output, HALF, components, &Cancel::new(), &mut |_| ()).expect("a model directory is written")
}

/// Copies a case of `tests/golden` into `folder`, with its model and the graphs that are elsewhere in `folder/model`.
fn copy_case(case: &Path, folder: &Path) {
    copy_folder(case, folder);
    let mut component = None;
    let mut text = String::new();
    for line in std::fs::read_to_string(case.join("pipeline.toml")).expect("a pipeline").lines() {
        let value = line.split_once(" = \"").map(|(key, value)| (key, case.join(value.trim_end_matches('"'))));
        match (line.strip_prefix("[model.").map(|name| name.trim_end_matches(']')), value, component.as_deref()) {
            (Some(name), ..) => component = Some(name.to_owned()),
            (_, Some(("path", path)), None) if text.ends_with("[model]\n") => {
                copy_folder(&path, &folder.join("model"));
                text += "path = \"half\"\n";
            }
            (_, Some(("path", path)), None) => text += &format!("path = {path:?}\n"),
            (_, Some(("graph", graph)), Some(name)) => {
                std::fs::copy(graph, folder.join("model").join(name).join("model.onnx")).expect("a graph");
            }
            (_, None, Some(_)) if line.is_empty() => {
                component = None;
                text += "\n";
            }
            _ => text += &format!("{line}\n"),
        }
    }
    std::fs::write(folder.join("pipeline.toml"), text).expect("a pipeline");
}

/// Runs a pipeline file in `folder`.
fn run(folder: &Path, pipeline: &str, output: &str, is_optimized: bool) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(["run", pipeline, "--save-latents", &format!("{output}.npy"), "--output", output]);
    command.env("LDM_ORT_OPTIMIZE", if is_optimized { "1" } else { "0" });
    command.env("LDM_ORT_CACHE_DIR", folder.join("cache")).env("ORT_DYLIB_PATH", runtime().path());
    answer(command)
}

/// Draws the case in `folder`, and returns its latents.
fn draw(folder: &Path, is_optimized: bool) -> npy::Array {
    let said = run(folder, "pipeline.toml", "drawn", is_optimized);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(!said.stderr.contains("opened as exported"), "{said}");
    npy::read(&folder.join("drawn.npy"))
}

/// The latents of each family are no farther from float32's than those of diffusers in half precision are
/// (`scripts/goldens/golden_half.py`), and as near to diffusers' in half precision as the two errors explain.
#[test]
fn every_family_rounds_no_more_than_diffusers_does() {
    let golden = root().join("tests/golden");
    let errors = std::fs::read(golden.join("half/half.json")).expect("errors");
    let errors: BTreeMap<String, f64> = serde_json::from_slice(&errors).expect("numbers by name");
    assert!(errors.len() >= 15, "{errors:?}");
    let queue = Mutex::new(errors.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) {
            scope.spawn(|| {
                while let Some((name, error)) = { queue.lock().expect("no worker panicked").next() } {
                    compare(&name, error);
                }
            });
        }
    });
}

/// Compares a case with float32, from which diffusers' own latents in half precision are `error` away, and with those.
fn compare(name: &str, error: f64) {
    let golden = root().join("tests/golden");
    let case = ["families", "pipelines"].map(|suite| golden.join(suite).join(name));
    let case = case.iter().find(|case| case.is_dir()).expect("a case");
    let folder = tempfile::tempdir().expect("a folder");
    copy_case(case, folder.path());
    let outcomes = halved(&folder.path().join("model"), &folder.path().join("half"), &[]);
    assert!(outcomes.iter().all(|outcome| outcome.half_nodes > float32_nodes(outcome)), "{outcomes:?}");
    let (single, half) = (npy::read(&case.join("latents.npy")), npy::read(&golden.join(format!("half/{name}.npy"))));
    for is_optimized in [false, true] {
        let drawn = draw(folder.path(), is_optimized);
        let [own, apart] = [drawn.relative_error(&single), drawn.relative_error(&half)];
        println!("{name}: {own:.1e} from float32, diffusers {error:.1e}; {apart:.1e} from diffusers in half precision");
        // An optimized graph computes in float32, on weights that half precision holds in some models.
        assert!(own <= error && (is_optimized || own > 1e-6), "{name}: {own:e}, diffusers {error:e}");
        assert!(apart <= 1.5 * error, "{name}: {apart:e}");
    }
}

fn float32_nodes(outcome: &QuantizedGraph) -> usize {
    outcome.float32_nodes.iter().map(|kept| kept.nodes).sum()
}

/// Multiplies the first stored tensor of this shape in a graph by 2^15, which takes what is computed with it beyond half
/// precision's range. Normalizations follow, so that float32 goes on with usual numbers.
fn amplify(graph: &Path, shape: [u8; 4]) {
    // The tags of a dimension, the type, the name and the values in `TensorProto`.
    let [dim, dtype, name, raw] = [0x08, 0x10, 0x42, 0x4a];
    let mut bytes = std::fs::read(graph).expect("the graph");
    let dims: Vec<u8> = shape.iter().flat_map(|n| [dim, *n]).collect();
    let found = bytes.windows(dims.len() + 3).position(|part| {
        part.starts_with(&dims)
            && part[dims.len()] == dtype
            && [1, 10].contains(&part[dims.len() + 1])
            && part[dims.len() + 2] == name
    });
    let at = found.expect("a tensor of this shape") + dims.len() + 1;
    let is_half = bytes[at] == 10;
    let mut at = at + 3 + usize::from(bytes[at + 2]);
    assert_eq!(bytes[at], raw, "the values follow the name");
    // Their length, in seven bits a byte.
    while bytes[at + 1] > 127 {
        at += 1;
    }
    let count = shape.iter().map(|n| usize::from(*n)).product::<usize>();
    for value in bytes[at + 2..].chunks_exact_mut(if is_half { 2 } else { 4 }).take(count) {
        if is_half {
            let louder = f16::from_f32(f16::from_le_bytes(value.try_into().expect("two bytes")).to_f32() * 32768.0);
            value.copy_from_slice(&louder.to_le_bytes());
        } else {
            let louder = f32::from_le_bytes(value.try_into().expect("four bytes")) * 32768.0;
            value.copy_from_slice(&louder.to_le_bytes());
        }
    }
    std::fs::write(graph, bytes).expect("the graph");
}

/// Says in the VAE's configurations if diffusers is to run it in float32.
fn force_upcast(model: &Path, is_forced: bool) {
    for folder in ["vae_decoder", "vae_encoder"] {
        let path = model.join(folder).join("config.json");
        let text = std::fs::read_to_string(&path).expect("a configuration");
        let [from, to] = [!is_forced, is_forced].map(|forced| format!("\"force_upcast\": {forced}"));
        std::fs::write(&path, text.replace(&from, &to)).expect("a configuration");
    }
}

/// Graphs in bfloat16, of which the CPU has no products, compute in float32 on the weights that they store: what diffusers
/// draws in float32 with weights rounded to bfloat16 (`scripts/goldens/golden_bfloat16.py`). The exporter rounds the
/// constants of GELU as well, by up to 1.3e-3, which operators of our own have exact: the transformer does,
/// optimized, and T5 does not.
#[test]
fn bfloat16_graphs_compute_in_float32_on_the_cpu() {
    let golden = root().join("tests/golden");
    let folder = tempfile::tempdir().expect("a folder");
    copy_case(&golden.join("families/sd3"), folder.path());
    let text = std::fs::read_to_string(folder.path().join("pipeline.toml")).expect("a pipeline");
    std::fs::write(folder.path().join("pipeline.toml"), text.replace("\"half\"", "\"model\"")).expect("a pipeline");
    for name in ["transformer", "text_encoder_3"] {
        let graph = folder.path().join("model").join(name).join("model.onnx");
        std::fs::copy(golden.join(format!("bfloat16/{name}.onnx")), graph).expect("a graph");
    }
    let mut check = ldm_ort(folder.path());
    check.args(["check", "pipeline.toml"]);
    let check = answer(check);
    let told = "text_encoder_3, transformer compute in float32, not in bfloat16";
    assert!(check.stdout.contains(told), "{check}");
    for is_optimized in [false, true] {
        let apart = draw(folder.path(), is_optimized).relative_error(&npy::read(&golden.join("bfloat16/latents.npy")));
        println!("{apart:.1e}");
        assert!(apart < if is_optimized { 2e-5 } else { 7e-5 }, "{apart:e}");
    }
}

/// A VAE in half precision runs in float32 if its configuration has `force_upcast`, as in diffusers, and what half
/// precision cannot hold is an error that names it otherwise. The weights are some that half precision holds, so that
/// float32 arithmetic on them makes what the float32 graph makes.
#[test]
fn a_vae_is_run_in_float32_where_its_configuration_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path();
    copy_case(&root().join("tests/golden/families/xl-image-to-image-defaults"), place);
    let text = std::fs::read_to_string(place.join("pipeline.toml")).expect("a pipeline");
    std::fs::write(place.join("single.toml"), text.replace("\"half\"", "\"model\"")).expect("a pipeline");
    amplify(&place.join("model/vae_decoder/model.onnx"), [8, 4, 3, 3]);
    let kinds = [ComponentKind::VaeDecoder, ComponentKind::VaeEncoder];
    let refused = quantize(&place.join("model"), &place.join("half"), HALF, &kinds, &Cancel::new(), &mut |_| ());
    let refused = refused.expect_err("the VAE needs float32").to_string();
    assert!(refused.contains("vae_decoder/config.json has force_upcast"), "{refused}");
    force_upcast(&place.join("model"), false);
    halved(&place.join("model"), &place.join("half"), &kinds);

    let axes =
        [("batch", 1), ("latent_height", 8), ("latent_width", 8)].map(|(name, length)| (name.to_owned(), length));
    let activations = |model: &str, passes: &[Pass]| {
        let graph = GraphFile::open(&place.join(model).join("vae_decoder/model.onnx")).expect("a graph");
        footprint(&graph, passes, &axes).expect("a graph").expect("its nodes are sorted").activations
    };
    let [single, half, upcast] =
        [activations("model", &[]), activations("half", &[]), activations("half", &[Pass::Float32])];
    assert!(
        half < single && upcast >= single,
        "{single} bytes, {half} in half precision, {upcast} of those in float32"
    );

    let pixels = |output: &str| {
        let file =
            std::fs::read_dir(place.join(output)).expect("a folder").next().expect("an image").expect("an entry");
        image::open(file.path()).expect("an image").to_rgb8().into_raw()
    };
    // Optimized graphs of the CPU compute more of it in float32.
    let said = run(place, "pipeline.toml", "none", false);
    assert_eq!(said.code, Some(1), "{said}");
    for part in ["output sample of the vae_decoder holds", "non-finite", "half precision", "sdxl-vae-fp16-fix"] {
        assert!(said.stderr.contains(part), "{part:?} is not said: {said}");
    }
    force_upcast(&place.join("half"), true);
    let mut check = ldm_ort(place);
    check.args(["check", "pipeline.toml"]);
    let check = answer(check);
    assert!(
        check
            .stdout
            .contains("vae_decoder computes in float32, not in half precision: its config.json has force_upcast"),
        "{check}"
    );
    for is_optimized in [false, true] {
        let outputs = ["single", "half"].map(|name| format!("{name}-{is_optimized}"));
        for (pipeline, output) in ["single.toml", "pipeline.toml"].into_iter().zip(&outputs) {
            let said = run(place, pipeline, output, is_optimized);
            assert_eq!(said.code, Some(0), "{said}");
        }
        let [single, half] = outputs.each_ref().map(|output| pixels(output));
        assert!(single.iter().zip(&half).all(|(a, b)| a.abs_diff(*b) <= 1) && single.iter().any(|v| *v != single[0]));
        let [single, half] = outputs.map(|output| npy::read(&place.join(output).with_extension("npy")));
        let apart = half.relative_error(&single);
        println!("optimized {is_optimized}: latents {apart:.1e} apart");
        assert!(apart < if is_optimized { 5e-6 } else { 1e-7 }, "{apart:e}");
    }
}

/// Scores of attention stay float32 in a model whose configuration asks for that, and are half precision in another.
#[test]
fn scores_are_float32_where_the_configuration_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let scores = |is_upcast: bool| {
        let [model, half] = ["model", "half"].map(|name| folder.path().join(format!("{name}-{is_upcast}")));
        copy_folder(&models().join("sd2v"), &model);
        let path = model.join("unet/config.json");
        let text = std::fs::read_to_string(&path).expect("a configuration");
        let [from, to] = [false, is_upcast].map(|upcast| format!("\"upcast_attention\": {upcast}"));
        assert!(text.contains(&from), "{text}");
        std::fs::write(&path, text.replace(&from, &to)).expect("a configuration");
        let [unet] = halved(&model, &half, &[ComponentKind::Unet]).try_into().expect("one graph");
        let kept = unet.float32_nodes.iter().find(|kept| kept.reason.contains("upcast_attention"));
        let run = ["run", half.to_str().expect("Unicode"), "-p", "a red circle", "--steps", "2"];
        let mut command = ldm_ort(folder.path());
        command.args(run).args(["--output", "out"]);
        let said = answer(command);
        assert_eq!(said.code, Some(0), "{said}");
        kept.map_or(0, |kept| kept.nodes)
    };
    assert_eq!(scores(false), 0);
    // A softmax and a product for each of the eight attentions, and the scales between.
    let kept = scores(true);
    assert!(kept >= 16, "{kept}");
}

/// What leaves half precision's range in the denoiser is named with its step.
#[test]
fn values_beyond_half_precision_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path();
    copy_case(&root().join("tests/golden/pipelines/plain"), place);
    let graph = place.join("model/unet/model.onnx");
    amplify(&graph, [8, 4, 3, 3]);
    halved(&place.join("model"), &place.join("half"), &[ComponentKind::Unet]);
    let said = run(place, "pipeline.toml", "none", false);
    assert_eq!(said.code, Some(1), "{said}");
    for part in ["output out_sample of the unet at step ", "non-finite", "ldm-ort quantize --weights half"] {
        assert!(said.stderr.contains(part), "{part:?} is not said: {said}");
    }
}

/// Nodes with rules of their own: a mask of large numbers, branches, `Resize`, fills, draws, sums, 8-bit values, a constant in
/// both precisions, and an inner tensor that is an output.
#[test]
fn every_kind_of_node_is_converted() {
    let folder = tempfile::tempdir().expect("a folder");
    let [model, half] = ["model", "half"].map(|name| folder.path().join(name));
    copy_folder(&models().join("sd1"), &model);
    std::fs::copy(root().join("tests/fixtures/graphs/mixed.onnx"), model.join("unet/model.onnx")).expect("a graph");
    let [unet] = halved(&model, &half, &[ComponentKind::Unet]).try_into().expect("one graph");
    for reason in ["branches", "running sums", "whole numbers", "for float32 alone"] {
        assert!(unet.float32_nodes.iter().any(|kept| kept.reason.contains(reason)), "{reason}: {unet:?}");
    }
    assert_eq!(unet.skipped.iter().map(|kept| kept.tensor.as_str()).collect::<Vec<_>>(), ["lowest"], "{unet:?}");
    let numbers = |shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|n: usize| (n as f64).sin() as f32).collect();
        ArrayD::from_shape_vec(shape, values).expect("as many as the shape has")
    };
    for time in [20.0, 5.0] {
        let time = ArrayD::from_elem(Vec::new(), time);
        let inputs =
            [("sample", numbers(&[1, 4, 8, 8])), ("encoder_hidden_states", numbers(&[1, 5, 16])), ("timestep", time)];
        let want = evaluated(&model, &inputs, Optimization::None);
        let largest = want.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        for optimization in [Optimization::None, Optimization::All] {
            let pairs = want.iter().zip(evaluated(&half, &inputs, optimization));
            let off = pairs.fold(0f32, |off, (a, b)| off.max((a - b).abs())) / largest;
            println!("off by {off:.1e}");
            assert!(off > 0.0 && off < 2e-3, "{off:e}");
        }
    }
}

/// Both outputs of the UNet.
fn evaluated(model: &Path, inputs: &[(&str, ArrayD<f32>); 3], optimization: Optimization) -> Vec<f32> {
    let options = SessionOptions { optimization, ..SessionOptions::default() };
    let mut session = Session::open(&runtime(), &model.join("unet/model.onnx"), &options).expect("a session");
    let inputs = inputs.each_ref().map(|(name, array)| (*name, TensorView::F32(array.view())));
    let made = session.run(&inputs, &["out_sample", "mixed"], &Cancel::new()).expect("an evaluation");
    made.into_iter().flatten().collect()
}

/// Weights beyond half precision's range stay float32 with what computes by them, and bounds of masks become those of
/// half precision.
#[test]
fn weights_beyond_half_precision_stay_float32() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path();
    copy_case(&root().join("tests/golden/pipelines/plain"), place);
    let graph = place.join("model/unet/model.onnx");
    (0..2).for_each(|_| amplify(&graph, [8, 4, 3, 3]));
    let [unet] =
        halved(&place.join("model"), &place.join("half"), &[ComponentKind::Unet]).try_into().expect("one graph");
    let [kept] = unet.skipped.as_slice() else { panic!("{unet:?}") };
    assert!(kept.tensor.ends_with("conv_in.weight") && kept.reason.contains("beyond 65504"), "{kept:?}");
    let weights = |kept: &&Float32Nodes| kept.reason.contains("of a weight or a constant");
    assert_eq!(unet.float32_nodes.iter().find(weights).map(|kept| kept.nodes), Some(1), "{unet:?}");
}

#[test]
fn formats_that_do_not_go_together_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = models().join("sd1").display().to_string();
    for (arguments, says) in [
        (["int8", "half"], ["half activations need half weights", "--weights half"]),
        (["half", "bf16"], ["bfloat16", "precision = \"bf16\""]),
        (["half", "int8"], ["unknown activation format \"int8\"", "float32 or half"]),
    ] {
        let [weights, activations] = arguments;
        let mut command = ldm_ort(folder.path());
        command.args(["quantize", &model, "--weights", weights, "--activations", activations, "--output", "out"]);
        let said = answer(command);
        assert_eq!(said.code, Some(2), "{said}");
        assert!(says.iter().all(|part| said.stderr.contains(part)), "{said}");
        assert!(!folder.path().join("out").exists(), "{said}");
    }
}
