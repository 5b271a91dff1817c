//! Quantized models and their images.

use std::path::{Path, PathBuf};

use crate::common::{Answer, answer, copy_folder, ldm_ort, models, root};
use ldm_ort::Error;
use ldm_ort::bundle::{ComponentKind, GraphFile};
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::{CachedGraph, GraphCache};
use ldm_ort::plan::Plan;
use ldm_ort::quantize::{QuantizedGraph, WeightFormat, quantize};
use ldm_ort::rewrite::{Pass, rewrite};
use ldm_ort::session::{Cancel, Runtime, Session, SessionOptions};
use ldm_ort::spec::{Overrides, Spec};
use ldm_ort::tensor::DType;
use ndarray::ArrayD;

fn golden() -> PathBuf {
    root().join("tests/golden/quantize")
}

fn narrowed(model: &Path, output: &Path, weights: WeightFormat) -> Vec<QuantizedGraph> {
    quantize(model, output, weights, &[], &Cancel::new(), &mut |_| ()).expect("a model directory is written")
}

/// Returns a model's final latents, and its cached graphs.
fn draw(model: &Path, cache: &Path) -> (Vec<f32>, Vec<CachedGraph>) {
    let text = format!(
        "[model]\npath = {:?}\n[task.text-to-image]\nprompt = \"a red circle\"\nguidance_scale = 5.0\n[run]\nsteps = 3\nseed = 7\n",
        model.to_str().expect("the test's folders are named in Unicode")
    );
    let spec = Spec::parse(&text, None, &Overrides::default()).expect("a pipeline");
    let mut plan = Plan::new(spec).expect("a plan");
    let cache = GraphCache::new(cache);
    plan.execution.graph_cache = Some(cache.clone());
    let mut latents = Vec::new();
    let mut observe = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Warning(warning) => panic!("{warning}"),
        ExecutionEvent::Image(image) => latents.extend(image.latents.iter()),
        _ => {}
    };
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("ONNX Runtime is found or fetched");
    let mut pipeline = Execution::load(&plan, &runtime, &Cancel::new(), &mut observe).expect("a pipeline");
    pipeline.run(&plan, &Cancel::new(), &mut observe).expect("an image");
    (latents, cache.entries().expect("the cache can be read"))
}

/// Returns the size of the denoiser's cached weights in bytes.
fn kept(entries: &[CachedGraph]) -> u64 {
    let unet = entries.iter().find(|entry| entry.component == "unet").expect("the denoiser is kept");
    std::fs::metadata(unet.folder().join("model.weights")).expect("its weights are beside it").len()
}

/// Whole images are close to those of float32, and ONNX Runtime's optimized graph keeps the weights quantized.
#[test]
fn a_model_draws_nearly_the_same_from_fewer_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = models().join("sd1");
    let (want, _) = draw(&model, &folder.path().join("cache"));
    // What operators of our own read is padded.
    let full = GraphFile::open(&model.join("unet/model.onnx")).expect("a graph").weight_bytes;
    let largest = want.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    // Weights have errors of 2⁻¹² to 2⁻¹¹ of their size, or 1/127 to 1/254 of the largest of their block; some layers
    // accumulate a few times as much. The factors of 8-bit products also have an error of 1/255.
    for (weights, relative, apart, bytes) in [
        (WeightFormat::Half, 4.9e-4, 1e-3, 0.5..0.75),
        (WeightFormat::Int8, 8e-3, 1e-2, 0.25..0.62),
        (WeightFormat::DynamicInt8, 8e-3, 2e-2, 0.25..1.0),
    ] {
        let place = folder.path().join(weights.name());
        let outcomes = narrowed(&model, &place, weights);
        assert_eq!(outcomes.iter().map(|o| o.component).collect::<Vec<_>>(), ["text_encoder", "unet"]);
        for outcome in &outcomes {
            assert!(outcome.skipped.is_empty(), "{outcome:?}");
            if weights == WeightFormat::DynamicInt8 {
                // The text encoder has no matrix that is large enough.
                assert_eq!(outcome.tensors, if outcome.component == "unet" { 8 } else { 0 }, "{outcome:?}");
                continue;
            }
            assert!(outcome.tensors > 0 && outcome.unknown == 0, "{outcome:?}");
            assert!(outcome.relative_error > 1e-4 && outcome.relative_error < relative, "{outcome:?}");
        }
        let (got, entries) = draw(&place, &folder.path().join(format!("cache-{}", weights.name())));
        let off = want.iter().zip(&got).fold(0f32, |off, (a, b)| off.max((a - b).abs())) / largest;
        println!("{weights:?}: off by {off:.1e}, kept {} of {full}", kept(&entries));
        assert!(off > 0.0 && off < apart, "{weights:?}: {off:e}");
        let share = kept(&entries) as f64 / full as f64;
        assert!(bytes.contains(&share), "{weights:?}: {share} of the bytes are kept");
    }
}

/// An evaluation equals numpy's result for the same formula, and ONNX Runtime fuses each product into one operator.
#[test]
fn products_of_8_bits_are_those_of_numpy() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, narrow) = (models().join("sd1"), folder.path().join("dynamic"));
    narrowed(&plain, &narrow, WeightFormat::DynamicInt8);
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("ONNX Runtime is found or fetched");
    let numbers = |shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|n: usize| (n as f64).sin() as f32).collect();
        ArrayD::from_shape_vec(shape, values).expect("as many as the shape has")
    };
    let time = ArrayD::from_elem(Vec::new(), 500f32);
    let inputs =
        [("sample", numbers(&[1, 4, 4, 4])), ("encoder_hidden_states", numbers(&[1, 5, 16])), ("timestep", time)];
    let want = std::fs::read(golden().join("dynamic-int8.json")).expect("a golden");
    let want: Vec<f64> = serde_json::from_slice(&want).expect("a list");
    let apart = |mut session: Session| {
        let inputs = inputs.each_ref().map(|(name, array)| (*name, array.view().into()));
        let made = session.run(&inputs, &["out_sample"], &Cancel::new()).expect("an evaluation");
        let got: Vec<f64> = made.iter().flatten().map(|&value| value.into()).collect();
        assert_eq!(got.len(), want.len());
        let squares: f64 = got.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum();
        (squares / want.iter().map(|b| b * b).sum::<f64>()).sqrt()
    };
    let cache = GraphCache::new(folder.path().join("cache"));
    let open = |model: &Path| GraphFile::open(&model.join("unet/model.onnx")).expect("a graph");
    let lengths = [("batch_size", 1), ("height", 4), ("width", 4), ("sequence_length", 5)];
    let axes = lengths.map(|(name, length)| (name.to_owned(), length)).to_vec();
    let config = vec![("session.x64quantprecision".to_owned(), "1".to_owned())];
    let options = SessionOptions { axes, config, ..SessionOptions::default() };
    let as_it_lies = |model: &Path| Session::open(&runtime, &open(model).path, &options).expect("a session");
    let prepared = cache.open(&runtime, &open(&narrow), &[Pass::Attention], &options, &mut |_| ()).expect("a session");
    let [plain, narrow, prepared] = [as_it_lies(&plain), as_it_lies(&narrow), prepared].map(apart);
    println!("off by {narrow:.1e}, prepared {prepared:.1e}, float32 {plain:.1e}");
    // A number rounded the other way has an error of 1/255, one of some thousands.
    assert!(narrow < 1e-4 && prepared < 1e-4 && plain > 1e-3, "{narrow:e} {prepared:e} {plain:e}");

    let entries = cache.entries().expect("the cache can be read");
    let kept = GraphFile::open(&entries[0].folder().join("model.onnx")).expect("a graph");
    let products = kept.operators.iter().filter(|(o, _)| o.domain == "com.microsoft" && o.name.contains("MatMul"));
    assert_eq!(products.map(|(_, count)| count).sum::<usize>(), 8, "{:?}", kept.operators);
}

/// The stored values equal numpy's for the same weights.
#[test]
fn blocks_and_scales_are_those_of_numpy() {
    let folder = tempfile::tempdir().expect("a folder");
    narrowed(&models().join("sd1"), &folder.path().join("int8"), WeightFormat::Int8);
    let want: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden().join("int8.json")).expect("a golden")).expect("JSON");
    for (component, digest) in want["sha256"].as_object().expect("a digest a component") {
        let graph = folder.path().join("int8").join(component).join("model.onnx");
        let beside = std::fs::read(graph.with_extension("onnx_data")).expect("weights");
        let got = <sha2::Sha256 as sha2::Digest>::digest(&beside);
        let got: String = got.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(Some(got.as_str()), digest.as_str(), "{component}");
    }
}

/// Attention and inputs are found as before. Convolutions with weights dequantized at every run are not rewritten;
/// those of a graph with 8-bit products are.
#[test]
fn narrow_graphs_are_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = models().join("sd1");
    let open = |model: &Path, component: &str| {
        let path = model.join(component).join("model.onnx");
        GraphFile::open(&path).expect("a graph")
    };
    let old = open(&model, "unet");
    for weights in [WeightFormat::Half, WeightFormat::Int8, WeightFormat::DynamicInt8] {
        let place = folder.path().join(weights.name());
        narrowed(&model, &place, weights);
        let new = open(&place, "unet");
        assert_eq!((&new.inputs, &new.outputs), (&old.inputs, &old.outputs));
        assert_eq!(new.convolved_channels, old.convolved_channels);
        assert_eq!(open(&place, "text_encoder").table_rows, open(&model, "text_encoder").table_rows);
        let rewritten = rewrite(&new, &[Pass::Attention, Pass::Subpixel], &[]).expect("a graph").expect("places");
        let convolutions = usize::from(weights == WeightFormat::DynamicInt8);
        assert_eq!(rewritten.report, [(Pass::Attention, 8), (Pass::Subpixel, convolutions)], "{weights:?}");
        // The unchanged files are there too.
        for file in ["model_index.json", "vae_decoder/model.onnx", "tokenizer/vocab.json"] {
            assert_eq!(std::fs::read(model.join(file)).ok(), std::fs::read(place.join(file)).ok(), "{file}");
        }
    }
}

/// A LoRA changes quantized weights.
#[test]
fn loras_need_the_weights_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("dynamic");
    narrowed(&models().join("sd1"), &place, WeightFormat::DynamicInt8);
    let lora = golden().with_file_name("lora/files/diffusers.safetensors");
    let text = format!("[model]\npath = {place:?}\n[task.text-to-image]\nprompt = \"\"\n[[lora]]\npath = {lora:?}\n");
    let spec = Spec::parse(&text, None, &Overrides::default()).expect("a pipeline");
    let error = Plan::new(spec).expect_err("no such modules").to_string();
    assert!(error.contains("fused or quantized") && error.contains("MatMulInteger ×8"), "{error}");
}

/// Weights beyond the range of half precision stay float32, and are reported.
#[test]
fn what_does_not_fit_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model");
    copy_folder(&models().join("sd1"), &model);
    let path = model.join("unet/model.onnx");
    let graph = GraphFile::open(&path).expect("a graph");
    let weights = ldm_ort::bundle::ModuleWeights::open(&graph).expect("weights");
    let weight = weights.modules.iter().find(|w| w.shape.iter().product::<usize>() >= 1024).expect("a large one");
    let mut values = weights.read(weight).expect("its values");
    let old: Vec<u8> = values.iter().take(16).flat_map(|v| v.to_le_bytes()).collect();
    values[3] = 70000.0;
    let mut bytes = std::fs::read(&path).expect("the graph");
    let at = bytes.windows(old.len()).position(|part| part == old).expect("its values are in the file");
    bytes[at + 12..at + 16].copy_from_slice(&70000f32.to_le_bytes());
    let name = weight.name.clone();
    drop(weights);
    std::fs::write(&path, bytes).expect("the graph");

    let outcomes = narrowed(&model, &folder.path().join("half"), WeightFormat::Half);
    let unet = outcomes.iter().find(|outcome| outcome.component == "unet").expect("the denoiser");
    let [kept] = unet.skipped.as_slice() else { panic!("{unet:?}") };
    assert_eq!(kept.tensor, name);
    assert!(kept.reason.contains("1 of its values are beyond 65504"), "{kept:?}");
    let new = GraphFile::open(&folder.path().join("half/unet/model.onnx")).expect("a graph");
    assert!(new.weight_types.iter().any(|(dtype, _)| *dtype == DType::F16), "{:?}", new.weight_types);
    // Blocks of 8 bits have no such limit.
    let outcomes = narrowed(&model, &folder.path().join("int8"), WeightFormat::Int8);
    assert!(outcomes.iter().all(|outcome| outcome.skipped.is_empty()), "{outcomes:?}");
}

#[test]
fn nothing_is_left_of_what_was_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let (output, cancel) = (folder.path().join("out"), Cancel::new());
    let mut stop = |_| cancel.cancel();
    let stopped = quantize(&models().join("sd1"), &output, WeightFormat::Half, &[], &cancel, &mut stop);
    assert!(matches!(stopped, Err(Error::Interrupted { .. })), "{stopped:?}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

fn call(folder: &Path, arguments: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.arg("quantize").args(arguments);
    let answer = answer(command);
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    answer
}

#[test]
fn the_command_prints_what_it_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = models().join("sd1").display().to_string();
    let said = call(folder.path(), &[&model, "--weights", "half", "--component", "unet", "--output", "out", "--json"]);
    assert_eq!(said.code, Some(0), "{said}");
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    let [unet] = json.as_array().expect("a list").as_slice() else { panic!("{json}") };
    assert_eq!((unet["component"].as_str(), unet["graph"].as_str()), (Some("unet"), Some("unet/model.onnx")));
    let bytes = |key: &str| unet[key].as_u64().expect("bytes");
    assert!(bytes("bytes_after") < bytes("bytes_before"), "{json}");
    let on_disk = ["model.onnx", "model.onnx_data"]
        .map(|file| std::fs::metadata(folder.path().join("out/unet").join(file)).expect("a file").len());
    assert_eq!(bytes("bytes_after"), on_disk.iter().sum::<u64>());

    let again = call(folder.path(), &[&model, "--weights", "int8", "--output", "out"]);
    assert_eq!(again.code, Some(2), "{again}");
    assert!(again.stderr.contains("out already exists"), "{again}");
    let plain = call(folder.path(), &[&model, "--weights", "int8", "--output", "plain"]);
    assert!(plain.stdout.contains("unet") && plain.stdout.contains(" tensors, weights changed"), "{plain}");
}

#[test]
fn what_cannot_be_done_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let sd1 = models().join("sd1").display().to_string();
    let half = root().join("models/shapes").display().to_string();
    let cases: [(&[&str], &[&str]); 6] = [
        (&[&sd1, "--weights", "int4"], &["--weights", "MatMulNBits", "use int8"]),
        (&[&sd1, "--weights", "dynamic-int8", "--component", "text_encoder"], &["MatMul alone", "float32"]),
        (&[&sd1, "--weights", "int7"], &["unknown weight format \"int7\"", "half, int8 or dynamic-int8"]),
        (&[&sd1, "--weights", "half", "--component", "eye"], &["no component \"eye\"", "unet"]),
        (&[&sd1, "--weights", "half", "--component", "transformer"], &["transformer", "text_encoder"]),
        (&[&half, "--weights", "half"], &["nothing to quantize", "float16"]),
    ];
    for (arguments, says) in cases {
        let said = call(folder.path(), &[arguments, &["--output", "out"]].concat());
        assert_eq!(said.code, Some(2), "{said}");
        for part in says {
            assert!(said.stderr.contains(part), "{part:?} is not said: {said}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "{arguments:?} leaves something");
    }
    assert_eq!(ComponentKind::from_name("eye"), None);
}
