//! Opens and runs graphs on a real ONNX Runtime, found as the program finds it (and fetched if the machine has none).

use crate::common::{root, runtime};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ldm_ort::Error;
use ldm_ort::session::{
    Cancel, Env, GraphRun, LibrarySource, ProviderChoice, ProviderPlace, Runtime, RuntimeOptions, Session,
    SessionOptions, Verdict, search,
};
use ldm_ort::tensor::{DType, Dim, TensorInfo, TensorView};
use ndarray::{Array4, ArrayD, IxDyn, arr0, arr1};

fn graph(name: &str) -> PathBuf {
    root().join("tests/fixtures/graphs").join(format!("{name}.onnx"))
}

fn open(name: &str) -> Session {
    Session::open(&runtime(), &graph(name), &SessionOptions { component: name.into(), ..Default::default() }).unwrap()
}

fn open_error(name: &str) -> String {
    let error = Session::open(&runtime(), &graph(name), &SessionOptions::default()).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

/// Values that every element type except bool represents exactly.
fn latents() -> Array4<f32> {
    Array4::from_shape_fn((2, 4, 3, 5), |(b, c, y, x)| (b * 60 + c * 15 + y * 5 + x) as f32 - 50.0)
}

#[test]
fn every_element_type_goes_in_and_comes_out() {
    let x = latents();
    for name in ["f32", "f16", "bf16", "f64", "i64", "i32"] {
        let mut session = open(&format!("identity_{name}"));
        let y = session.run(&[("x", x.view().into())], &["y"], &Cancel::new()).unwrap();
        assert_eq!(y, [x.clone().into_dyn()], "{name}");
        let ints = x.mapv(|v| v as i64);
        let y = session.run(&[("x", ints.view().into())], &["y"], &Cancel::new()).unwrap();
        assert_eq!(y, [x.clone().into_dyn()], "{name} from int64");
    }
    let mut session = open("identity_bool");
    let bits = x.mapv(|v| v > 0.0);
    let y = session.run(&[("x", bits.view().into())], &["y"], &Cancel::new()).unwrap();
    assert_eq!(y, [x.mapv(|v| f32::from(v > 0.0)).into_dyn()]);
}

#[test]
fn half_precision_rounds_to_nearest() {
    let x = ArrayD::from_shape_vec(IxDyn(&[1, 4, 1, 1]), vec![0.1, -1.0 / 3.0, 1e-8, 70000.0]).unwrap();
    let y = open("identity_f16").run(&[("x", x.view().into())], &["y"], &Cancel::new()).unwrap();
    assert_eq!(y[0].iter().copied().collect::<Vec<_>>(), [0.099975586, -0.33325195, 0.0, f32::INFINITY]);
}

#[test]
fn a_view_in_another_order_is_read_as_it_looks() {
    let x = latents();
    let turned = x.view().permuted_axes([0, 1, 3, 2]);
    for name in ["f32", "f16"] {
        let y = open(&format!("identity_{name}")).run(&[("x", turned.into())], &["y"], &Cancel::new()).unwrap();
        assert_eq!(y[0], turned.to_owned().into_dyn(), "{name}");
    }
}

#[test]
fn inputs_and_outputs_are_told() {
    let session = open("unet");
    let free = |name: &str| Dim::Free(name.into());
    let latent = vec![free("batch"), Dim::Fixed(4), free("height"), free("width")];
    assert_eq!(
        session.inputs(),
        [
            TensorInfo { name: "sample".into(), dtype: DType::F32, shape: latent },
            TensorInfo { name: "timestep".into(), dtype: DType::I32, shape: vec![free("batch")] },
            TensorInfo { name: "scale".into(), dtype: DType::F16, shape: vec![] },
        ]
    );
    assert_eq!(session.outputs().iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["out_sample", "sum"]);
    assert_eq!(session.placement().by_provider(), [("cpu".to_owned(), 6)].into());
}

#[test]
fn runs_with_several_inputs_and_chosen_outputs() {
    let (x, t, s) = (latents(), arr1(&[10_i64, 20]), arr0(0.5_f32));
    let inputs = [("timestep", t.view().into()), ("scale", s.view().into()), ("sample", x.view().into())];
    let mut session = open("unet");
    let expected = Array4::from_shape_fn(x.raw_dim(), |(b, c, h, w)| x[(b, c, h, w)] * 0.5 + [10.0, 20.0][b]);
    let y = session.run(&inputs, &["sum", "out_sample"], &Cancel::new()).unwrap();
    assert_eq!(y, [arr0(x.sum()).into_dyn(), expected.clone().into_dyn()]);

    let mut out = vec![0.0; x.len()];
    for _ in 0..3 {
        out.fill(0.0);
        session.run_into(&inputs, "out_sample", &mut out, &Cancel::new()).unwrap();
        assert_eq!(out, expected.as_slice().unwrap());
    }
    let error = session.run_into(&inputs, "out_sample", &mut out[1..], &Cancel::new()).unwrap_err().to_string();
    assert!(error.contains("output out_sample: expected 119 values, found [2, 4, 3, 5] with 120"), "{error}");

    // A denoiser whose output has the right number of values in another shape, such as height and width swapped.
    for (shape, fits) in [(vec![2, 4, 3, 5], true), (vec![2, 4, 5, 3], false), (vec![2, 60], false)] {
        let inputs = vec![("timestep", t.view().into()), ("scale", s.view().into()), ("sample", x.view().into())];
        let run = GraphRun { inputs, out: &mut out, shape: Some(shape.clone()), second_output: None };
        let ran = session.run_each(vec![run], "out_sample", &Cancel::new());
        assert_eq!(ran.is_ok(), fits, "{shape:?}");
        if let Err(error) = ran {
            let told = format!("output out_sample: expected the shape {shape:?}, found [2, 4, 3, 5]");
            assert!(error.to_string().contains(&told), "{error}");
        }
    }
}

#[test]
fn a_scalar_goes_in_and_comes_out() {
    let t = arr0(981.0_f32);
    let y = open("scalar").run(&[("timestep", t.view().into())], &["y"], &Cancel::new()).unwrap();
    assert_eq!(y, [t.into_dyn()]);
}

#[test]
fn what_the_graph_does_not_take_is_told_before_it_runs() {
    let (x, t, s) = (latents(), arr1(&[10_i64, 20]), arr0(0.5_f32));
    let flat = arr1(&[1.0_f32]);
    let wrong_channels = Array4::<f32>::zeros((1, 3, 8, 8));
    let (big, odd) = (arr1(&[1_i64 << 31, 0]), arr1(&[0.5_f32, 0.0]));
    let mut session = open("unet");
    let mut error = |inputs: &[(&str, TensorView<'_>)], outputs: &[&str]| {
        let error = session.run(inputs, outputs, &Cancel::new()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let scale = || ("scale", TensorView::from(s.view()));
    let sample = || ("sample", TensorView::from(x.view()));
    let timestep = || ("timestep", TensorView::from(t.view()));

    let e = error(&[("sample", flat.view().into()), timestep(), scale()], &["sum"]);
    assert!(e.contains("expected input sample float32 [batch, 4, height, width], found float32 [1]"), "{e}");
    let e = error(&[("sample", wrong_channels.view().into()), timestep(), scale()], &["sum"]);
    assert!(e.contains("found float32 [1, 3, 8, 8]"), "{e}");
    let e = error(&[sample(), ("timestep", big.view().into()), scale()], &["sum"]);
    assert!(e.contains("input timestep: value 2147483648 does not fit int32"), "{e}");
    let e = error(&[sample(), ("timestep", odd.view().into()), scale()], &["sum"]);
    assert!(e.contains("input timestep: value 0.5 is not an integer"), "{e}");
    let e = error(&[sample(), scale()], &["sum"]);
    assert!(e.contains("no value is given for input timestep int32 [batch]"), "{e}");
    let e = error(&[sample(), timestep(), scale(), ("mask", x.view().into())], &["sum"]);
    assert!(e.contains("no input mask; its inputs are sample, timestep, scale"), "{e}");
    let e = error(&[sample(), sample(), timestep(), scale()], &["sum"]);
    assert!(e.contains("input sample is given twice"), "{e}");
    let e = error(&[sample(), timestep(), scale()], &["noise"]);
    assert!(e.contains("no output noise; its outputs are out_sample, sum"), "{e}");
}

#[test]
fn what_is_not_a_graph_is_told_what_it_is() {
    for (name, expected) in [
        ("page", "is a web page, not an ONNX graph"),
        ("pointer", "is a Git LFS pointer, not an ONNX graph"),
        ("empty", "is empty"),
        ("truncated", "is not a whole ONNX graph"),
        ("garbage", "is not a whole ONNX graph"),
        ("none", "does not exist"),
    ] {
        let error = open_error(name);
        assert!(error.contains(expected) && error.contains(&format!("{name}.onnx")), "{error}");
    }
}

#[test]
fn a_run_is_stopped_from_another_thread() {
    let mut session = open("loop");
    let rounds = arr0(i64::MAX);
    let cancel = Cancel::new();
    let other = cancel.clone();
    let begin = Instant::now();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        other.cancel();
    });
    let result = session.run(&[("rounds", rounds.view().into())], &["y"], &cancel);
    assert!(matches!(result, Err(Error::Interrupted { at_step: None })), "{result:?}");
    assert!(begin.elapsed() < Duration::from_secs(20));
    stopper.join().unwrap();

    // Cancelling is permanent; the session continues with another switch.
    let ten = arr0(10_i64);
    let result = session.run(&[("rounds", ten.view().into())], &["y"], &cancel);
    assert!(matches!(result, Err(Error::Interrupted { .. })));
    let y = session.run(&[("rounds", ten.view().into())], &["y"], &Cancel::new()).unwrap();
    assert_eq!(y, [arr0(10.0_f32).into_dyn()]);
}

#[test]
fn a_thrown_switch_stops_an_opening() {
    let options = SessionOptions::default();
    options.cancel.cancel();
    let result = Session::open(&runtime(), &graph("unet"), &options);
    assert!(matches!(result, Err(Error::Interrupted { .. })));
}

#[test]
fn a_session_moves_to_another_thread() {
    let mut session = open("identity_f32");
    let x = latents();
    let y = std::thread::spawn(move || {
        let x = latents();
        session.run(&[("x", x.view().into())], &["y"], &Cancel::new()).unwrap()
    });
    assert_eq!(y.join().unwrap(), [x.into_dyn()]);
}

#[test]
fn a_provider_that_cannot_be_used_is_an_error() {
    let open_on = |names: &[&str]| {
        let providers = names.iter().map(|name| ProviderChoice::new(*name)).collect();
        let options = SessionOptions { providers, ..SessionOptions::default() };
        Session::open(&runtime(), &graph("unet"), &options).map(|_| ())
    };
    let error = open_on(&["qnn", "cpu"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let error = error.to_string();
    assert!(error.contains("provider qnn: ") && error.contains("hint: get "), "{error}");
    let error = open_on(&["cpu", "cuda"]).unwrap_err().to_string();
    assert!(error.contains("comes before cuda"), "{error}");
    let error = open_on(&["cudaa"]).unwrap_err().to_string();
    assert!(error.contains("did you mean cuda?"), "{error}");
    open_on(&["cpu"]).unwrap();
}

#[test]
fn every_provider_says_whether_it_can_be_used() {
    let statuses = ldm_ort::session::provider_statuses(&runtime());
    assert_eq!(statuses.len(), ldm_ort::session::PROVIDERS.len());
    let cpu = statuses.iter().find(|s| s.name == "cpu").unwrap();
    assert_eq!((cpu.place, &cpu.obstacle), (Some(ProviderPlace::Runtime), &None));
    assert!(
        cpu.devices.iter().any(|device| device.kind == "CPU" && device.name().ends_with("CPU")),
        "{:?}",
        cpu.devices
    );
    assert!(statuses.iter().all(|s| s.obstacle.as_ref().is_none_or(|(problem, _)| !problem.is_empty())));
}

#[test]
fn a_copy_that_the_process_holds_is_taken() {
    let runtime = runtime();
    let nowhere = tempfile::tempdir().unwrap();
    let env = Env { cache_dir: Some(nowhere.path().to_path_buf()), ..Env::default() };
    let search = search(&RuntimeOptions { env, ..RuntimeOptions::default() });
    let (path, version) = search.selected().unwrap();
    assert_eq!(path.canonicalize().unwrap(), runtime.path().canonicalize().unwrap());
    assert_eq!(version, runtime.version());
    let taken = search.candidates.iter().find(|c| matches!(c.verdict, Verdict::Selected(_))).unwrap();
    assert_eq!(taken.source, LibrarySource::Loaded);
}

#[test]
fn a_process_holds_one_runtime() {
    let first = runtime();
    let again = RuntimeOptions { path: Some(first.path().to_path_buf()), ..RuntimeOptions::default() };
    assert_eq!(Runtime::load(&again).unwrap().path(), first.path());
    let other = RuntimeOptions { path: Some(graph("unet")), ..RuntimeOptions::default() };
    let error = Runtime::load(&other).unwrap_err().to_string();
    assert!(error.contains("this process already uses"), "{error}");
}

/// Returns the output of `ldm-ort runtime` with `args`, or its error, with the cache `cache` and ORT_DYLIB_PATH
/// `library`.
fn printed(args: &[&str], cache: &Path, library: Option<&Path>) -> Result<String, (Option<i32>, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ldm-ort"));
    command.arg("runtime").args(args).env("LDM_ORT_CACHE_DIR", cache).env_remove("ORT_DYLIB_PATH");
    command.envs(library.map(|path| ("ORT_DYLIB_PATH", path)));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err((output.status.code(), text(output.stderr))) }
}

#[test]
fn the_search_is_shown_with_its_reasons() {
    let (runtime, cache) = (runtime(), tempfile::tempdir().unwrap());
    let text = printed(&[], cache.path(), Some(runtime.path())).unwrap();
    assert!(text.contains("  --runtime: not given\n"), "{text}");
    let taken = format!("* ORT_DYLIB_PATH: {}: taken, version {}\n", runtime.path().display(), runtime.version());
    assert!(text.contains(&taken), "{text}");
    assert!(text.contains("  loaded already: no copy is loaded in this process\n"), "{text}");
    assert!(text.contains(&format!("  cache: nothing in {}", cache.path().join("runtime").display())), "{text}");
    assert!(text.ends_with("taken because ORT_DYLIB_PATH names it\n"), "{text}");

    let output = Command::new(env!("CARGO_BIN_EXE_ldm-ort"))
        .args(["runtime", "--runtime", "nowhere.so"])
        .env("LDM_ORT_CACHE_DIR", cache.path())
        .env("ORT_DYLIB_PATH", runtime.path())
        .output()
        .unwrap();
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("nowhere.so (--runtime) does not exist"), "{error}");
    assert!(text.contains("  --runtime: ") && text.contains("nowhere.so: does not exist\n"), "{text}");
    assert!(text.contains("ORT_DYLIB_PATH: ") && text.contains(": not checked\n"), "{text}");
    assert!(text.contains("none is taken: the one that was named cannot be used"), "{text}");
}

#[test]
fn the_fetched_builds_are_listed() {
    let (runtime, cache) = (runtime(), tempfile::tempdir().unwrap());
    let elsewhere = format!("* taken from elsewhere: {}\n", runtime.path().display());
    let list = || printed(&["list"], cache.path(), Some(runtime.path())).unwrap();
    assert_eq!(list(), format!("no package was fetched yet\n{elsewhere}"));
    let folder = cache.path().join("runtime/1.31.1-cuda");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("libonnxruntime.so"), vec![0; 1_500_000]).unwrap();
    assert_eq!(list(), format!("  cuda      1.31.1      1.5 MB  {}\n{elsewhere}", folder.display()));
}

#[test]
fn a_build_is_installed_once_and_never_offline() {
    let cache = tempfile::tempdir().unwrap();
    let (code, error) = printed(&["install", "cuda", "--offline"], cache.path(), None).unwrap_err();
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("the network may not be used") && error.contains("onnxruntime-gpu==1.31.1"), "{error}");
    let folder = cache.path().join("runtime/1.31.1-cuda");
    std::fs::create_dir_all(&folder).unwrap();
    let text = printed(&["install", "cuda", "--offline"], cache.path(), None).unwrap();
    assert_eq!(text, format!("ONNX Runtime 1.31.1 (cuda) was there already: {}\n", folder.display()));
}

/// ONNX Runtime's answers before a graph is opened agree with its errors when one is.
#[test]
fn a_runtime_tells_what_it_takes() {
    let runtime = runtime();
    let opsets = |versions: &[(&str, i64)]| versions.iter().map(|(d, v)| ((*d).to_owned(), *v)).collect();
    let usual = opsets(&[("", 17), ("com.microsoft", 1)]);
    assert_eq!(runtime.refuses_format(8, &usual), None);
    assert!(runtime.refuses_format(99, &usual).unwrap().starts_with("Unsupported model IR version: 99, max supported"));
    for (domain, called) in [("", "ai.onnx"), ("com.microsoft", "com.microsoft"), ("ai.onnx.ml", "ai.onnx.ml")] {
        let reason = runtime.refuses_format(8, &opsets(&[(domain, 99)])).unwrap();
        assert!(reason.starts_with(&format!("Current official support for domain {called} is till opset")), "{reason}");
    }
    // An unknown domain is not an error itself; its operators are.
    assert_eq!(runtime.refuses_format(8, &opsets(&[("", 17), ("com.example", 3)])), None);
    for (domain, operator, is_defined) in [
        ("", "Conv", true),
        ("", "RMSNormalization", false),
        ("", "Foo", false),
        ("com.microsoft", "GroupNorm", true),
        ("com.microsoft", "MultiHeadAttention", true),
        ("com.microsoft", "Foo", false),
        ("com.example", "Conv", false),
    ] {
        assert_eq!(runtime.defines_operator(&usual, domain, operator), is_defined, "{domain}:{operator}");
    }
    for operator in ["MatMul", "Gemm", "Conv", "ConvTranspose"] {
        assert_eq!(runtime.refuses_product(&usual, operator, DType::F32), None, "{operator}");
        assert!(runtime.refuses_product(&usual, operator, DType::Bf16).is_some(), "{operator}");
    }
    assert_eq!(runtime.refuses_product(&usual, "MatMul", DType::F64), None);
    runtime.try_provider(&ProviderChoice::new("cpu")).unwrap();
    let missing = runtime.try_provider(&ProviderChoice::new(if cfg!(windows) { "coreml" } else { "directml" }));
    assert!(missing.unwrap_err().to_string().contains("exists only on"));
}

/// The table of operators without a CPU kernel lists existing operators.
#[test]
fn operators_without_a_cpu_kernel_are_known_to_the_runtime() {
    let runtime = runtime();
    let opsets = [(String::new(), 17), ("com.microsoft".to_owned(), 1)].into();
    let unknown: Vec<_> = ldm_ort::bundle::operators_without_cpu_kernel()
        .filter(|operator| !runtime.defines_operator(&opsets, "com.microsoft", operator))
        .collect();
    assert!(unknown.is_empty() || runtime.version() != ldm_ort::session::PINNED_VERSION, "{unknown:?}");
}

/// The nodes of a component's graph by provider, as `check --open` and `run --json` have them.
#[test]
fn the_provider_of_each_node_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden/pipelines/plain/pipeline.toml");
    let mut check = crate::common::ldm_ort(folder.path());
    check.arg("check").arg(&pipeline).arg("--open");
    let answer_of_check = crate::common::answer(check);
    assert_eq!(answer_of_check.code, Some(0), "{answer_of_check}");
    let mut run = crate::common::ldm_ort(folder.path());
    run.arg("run").arg(&pipeline).args(["--steps", "1", "--json", "--output", "images"]);
    let answer_of_run = crate::common::answer(run);
    assert_eq!(answer_of_run.code, Some(0), "{answer_of_run}");
    let object: serde_json::Value = serde_json::from_str(answer_of_run.stdout.trim()).expect("an object");
    for component in ["text_encoder", "unet", "vae_decoder"] {
        let count = object["nodes"][component]["cpu"].as_u64().expect("a number");
        assert!(count > 10, "{component}: {count}");
        assert_eq!(object["nodes"][component].as_object().map(serde_json::Map::len), Some(1), "{answer_of_run}");
        let line = format!("{component}: {count} nodes on cpu\n");
        assert!(answer_of_check.stdout.contains(&line), "{line}{answer_of_check}");
    }
}
