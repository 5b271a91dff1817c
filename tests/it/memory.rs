//! A run's memory use: the estimates from a graph, and the measures taken if memory is short.

use std::path::{Path, PathBuf};

use crate::common::{answer, ldm_ort, models, root, runtime};
use ldm_ort::bundle::GraphFile;
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::kernels::{InstructionSet, OperandType};
use ldm_ort::plan::{DeviceMemory, MemoryBudget, Plan};
use ldm_ort::rewrite::{Footprint, Pass, footprint};
use ldm_ort::session::Cancel;
use ldm_ort::spec::{Overrides, Spec};
use ldm_ort::tiles::Tiles;
use ndarray::ArrayD;

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

fn plan(set: &[&str]) -> Result<Plan, String> {
    plan_of(&models().join("sd1"), set)
}

fn plan_of(model: &Path, set: &[&str]) -> Result<Plan, String> {
    let text = format!(
        "[model]\npath = {:?}\n[task.text-to-image]\nprompt = \"a red circle\"\nguidance_scale = 5.0\n[run]\nsteps = 2\nseed = 7\n",
        model.to_str().expect("the test's folders are named in Unicode")
    );
    let set = set.iter().map(|&key| key.to_owned()).collect();
    let spec = Spec::parse(&text, None, &Overrides { set, ..Overrides::default() });
    spec.and_then(Plan::new).map_err(|error| error.to_string())
}

#[test]
fn a_graph_is_measured_node_by_node() {
    let path = fixture("rewrite/winograd.onnx");
    let graph = GraphFile::open(&path).expect("a graph");
    let axes = [("batch".to_owned(), 1), ("height".to_owned(), 20), ("width".to_owned(), 12)];
    let told = |passes: &[Pass]| footprint(&graph, passes, &axes).expect("a readable graph");
    // An image with one channel becomes one with 256 channels, then is convolved with 256×256×3×3 weights computed from
    // stored ones.
    let (one, many, weights) = (20 * 12 * 4, 256 * 20 * 12 * 4, 256 * 256 * 9 * 4);
    let plain = Footprint { weights: 2 * 256 * 4 + weights, activations: 2 * many, in_place: 2 * many, unknown: 0 };
    assert!(one < many, "the small image is gone when there are most");
    assert_eq!(told(&[]), Some(plain));
    // 36 numbers for 9 weights, and for 16 pixels twice.
    let more = 2 * many + 2 * many * 36 / 16;
    let fast = Footprint { weights: plain.weights + weights * 3, activations: more, in_place: more, unknown: 0 };
    assert_eq!(told(&[Pass::Winograd]), Some(fast));
    let free = footprint(&graph, &[], &[]).expect("a readable graph").expect("nodes in order");
    assert!(free.unknown > 0 && free.activations == 0 && free.weights == plain.weights, "of free axes: {free:?}");
}

/// Operators that compute many values from a few, when the graph is opened or at run time.
#[test]
fn operators_that_make_large_outputs_count() {
    use crate::bundle::writer::{F32, I64, Model};
    const LARGE: u64 = 1024 * 1024;
    let graph = |large: &str, inputs: &[&str]| {
        let model = Model::new().input("x", F32, "1, 1").input("chosen", I64, "1048576").output("out", F32, "1, 1");
        let model = model.whole("sides", &[1024, 1024], true).whole("first", &[0], true);
        let model = model.whole("count", &[LARGE as i64], true).whole("pads", &[0, 0, 1023, 1023], true);
        let model = model.whole("from", &[0], false).whole("to", &[LARGE as i64], false).whole("by", &[1], false);
        let model = model.node(large, inputs, &["large"]).node("Gather", &["large", "first"], &["small"]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, model.node("Equal", &["small", "x"], &["out"]).build()).expect("a file");
        let graph = GraphFile::open(&path).expect("a graph");
        footprint(&graph, &[], &[]).expect("a readable graph").expect("nodes in order")
    };
    for (large, inputs, width) in [
        ("ConstantOfShape", &["sides"][..], 4),
        ("Range", &["from", "to", "by"], 8),
        ("Expand", &["x", "sides"], 4),
        ("Tile", &["x", "sides"], 4),
        ("Pad", &["x", "pads"], 4),
        ("Gather", &["x", "chosen"], 4),
    ] {
        let told = graph(large, inputs);
        assert!(told.activations >= width * LARGE && told.in_place >= width * LARGE, "{large}: {told:?}");
        assert_eq!(told.unknown, 0, "{large}");
    }
    let told = graph("NonZero", &["x"]);
    assert!(told.unknown > 0 && told.activations < width_of_inputs(LARGE), "{told:?}");
}

/// Little more than the list of indices.
fn width_of_inputs(large: u64) -> u64 {
    8 * large + 1024
}

#[test]
fn a_run_that_does_not_fit_the_free_memory_is_refused() {
    let large =
        |more: &[&str]| plan(&[&["run.width=2048", "run.height=2048"], more].concat()).expect("a plan").execution;
    let model = large(&[]);
    let need = model.memory_need().expect("readable graphs");
    assert!(need.private > 50_000_000 && need.component.starts_with("vae_decoder"), "{need:?}");
    assert_eq!(model.check_free_memory(need.private + need.mapped).expect("it fits"), None);
    let refused = |free| model.check_free_memory(free).expect_err("it doesn't fit");
    let error = refused(need.private - 1);
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.starts_with("memory: vae_decoder needs ") && text.contains("device.overcommit = true"), "{text}");
    let warned = large(&["device.overcommit=true"]).check_free_memory(need.private - 1).expect("it's started");
    assert!(warned.is_some_and(|warning| warning.contains("vae_decoder needs")));
    // Weights of optimized graphs are mapped.
    let mut prepared = large(&[]);
    prepared.graph_cache = Some(GraphCache::new("cache"));
    let need = prepared.memory_need().expect("readable graphs");
    assert!(need.mapped > 100_000, "{need:?}");
    let warned = prepared.check_free_memory(need.private + need.mapped - 1).expect("it's slow only");
    assert!(warned.is_some_and(|warning| warning.contains("read from the disk again and again")));
    // Runs that work today on a machine with little memory still do.
    let usual = plan(&[]).expect("a plan").execution;
    assert_eq!(usual.check_free_memory(64_000_000).expect("it fits"), None);
}

#[test]
fn what_does_not_fit_whole_is_given_up_piece_by_piece() {
    let told = |memory: &str| {
        let plan = plan(&["run.width=1024", "run.height=768", &format!("device.memory={memory:?}")]);
        plan.map(|plan| plan.execution.memory_budget.expect("memory is kept within bounds"))
    };
    assert_eq!(told("10 GB"), Ok(MemoryBudget::default()));
    let (mut last, mut least) = (usize::MAX, 0);
    for memory in ["350 MB", "320 MB", "300 MB"] {
        let memory_budget = told(memory).unwrap();
        // Operators of our own have one row at a time under any budget.
        let is_alone = memory_budget.denoises_alone || InstructionSet::used().has_operators(OperandType::Float32);
        assert!(is_alone && memory_budget.decodes_plainly, "{memory}: {memory_budget:?}");
        let tiles = memory_budget.tiles.expect("tiles");
        assert!(tiles.size < last && tiles.stride < tiles.size, "{memory}: {tiles:?} after {last}");
        // Tiles overlap as little as possible.
        let area = tiles.area(96, 128);
        assert!(area > least && area > 96 * 128, "{memory}: {tiles:?}, {area} after {least}");
        (last, least) = (tiles.size, area);
    }
    for (side, part) in [("1024", "text_encoder needs about"), ("4096", "unet needs about")] {
        let sides = [format!("run.width={side}"), format!("run.height={side}")];
        let memory = if side == "1024" { "100 MB" } else { "320 MB" };
        let error = plan(&[&sides[0], &sides[1], &format!("device.memory_budget={memory:?}")]).unwrap_err();
        assert!(error.starts_with("device.memory_budget: ") && error.contains(part), "{error}");
    }
}

#[test]
fn memory_is_no_promise_where_graphs_are_opened_as_they_lie() {
    let error = plan(&["device.memory_budget=\"10 GB\"", "device.optimize=false"]).unwrap_err();
    assert!(error.contains("device.memory_budget: is kept to by graphs that are optimized ahead"), "{error}");
    let plan = plan(&["device.memory_budget=\"10 GB\""]).expect("a plan");
    let ignore = &mut |_: ExecutionEvent<'_>| {};
    let error = Execution::load(&plan, &runtime(), &Cancel::new(), ignore).err().expect("no cache").to_string();
    assert!(error.contains("there is no cache to keep them in"), "{error}");
}

/// Returns the latents and the pixels of an image, and the warnings.
fn draw(cache: &Path, memory_budget: Option<MemoryBudget>) -> (ArrayD<f32>, Vec<u8>, Vec<String>) {
    let shapes = root().join("models/shapes");
    let mut plan = plan_of(&shapes, &["run.width=128", "run.height=96"]).expect("a plan");
    (plan.execution.graph_cache, plan.execution.memory_budget) = (Some(GraphCache::new(cache)), memory_budget);
    let (mut drawn, mut warnings) = (None, Vec::new());
    let mut observe = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Warning(warning) => warnings.push(warning),
        ExecutionEvent::Image(image) => drawn = Some((image.latents.clone(), image.pixels.data().to_vec())),
        _ => {}
    };
    let pipeline = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    pipeline.finish(&plan, &Cancel::new(), &mut observe).expect("an image");
    let (latents, pixels) = drawn.expect("an image");
    (latents, pixels, warnings)
}

#[test]
fn what_is_given_up_shows_in_tiles_alone() {
    let cache = tempfile::tempdir().expect("a folder");
    let (latents, pixels, warnings) = draw(cache.path(), None);
    assert_eq!(warnings, Vec::<String>::new());
    let alone = MemoryBudget { denoises_alone: true, decodes_plainly: true, tiles: None };
    let (same, close, warnings) = draw(cache.path(), Some(alone));
    assert_eq!(warnings, Vec::<String>::new());
    // Another number of threads rounds differently.
    let largest = latents.iter().fold(0f32, |m, v| m.max(v.abs()));
    let apart = latents.iter().zip(&same).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
    assert!(apart < 1e-5, "{apart:e}");
    let furthest = |other: &[u8]| pixels.iter().zip(other).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest(&close) <= Some(1), "{:?}", furthest(&close));
    let tiles = MemoryBudget { tiles: Some(Tiles { size: 16, stride: 12 }), ..alone };
    let (again, near, warnings) = draw(cache.path(), Some(tiles));
    assert_eq!(again, same);
    assert_eq!(near.len(), pixels.len());
    let off: u64 = pixels.iter().zip(&near).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    let mean = off as f64 / pixels.len() as f64;
    println!("tiles are off by {mean:.2} of 255 in the mean, {:?} at most", furthest(&near));
    assert!(mean > 0.0 && mean < 3.0, "{mean}");
    assert!(matches!(warnings.as_slice(), [one] if one.contains("decoded in tiles of 64×64 pixels")), "{warnings:?}");
}

#[test]
fn the_command_line_tells_what_was_held() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = folder.path().join("pipeline.toml");
    let model = models().join("sd1");
    let text = format!(
        "[model]\npath = {:?}\n[task.text-to-image]\nprompt = \"a\"\n[run]\nsteps = 1\n",
        model.display().to_string()
    );
    std::fs::write(&pipeline, text).expect("a file");
    let run = |more: &[&str]| {
        let mut command = ldm_ort(folder.path());
        command.arg("run").arg(&pipeline).args(more).env_remove("LDM_ORT_OPTIMIZE");
        command.env("LDM_ORT_CACHE_DIR", folder.path()).env("ORT_DYLIB_PATH", runtime().path());
        answer(command)
    };
    let told = run(&["--memory", "--set", "device.memory_budget=\"2 GB\""]);
    if cfg!(target_os = "linux") {
        assert_eq!(told.code, Some(0), "{told}");
        for row in ["open unet", "open vae_decoder", "preparing", "denoising", "decoding", "at most"] {
            assert!(told.stderr.lines().any(|line| line.starts_with(row)), "{row}: {told}");
        }
    }
    let told = run(&["--set", "device.memory_budget=\"1 MB\""]);
    assert_eq!(told.code, Some(2), "{told}");
    assert!(told.stderr.contains("device.memory_budget: text_encoder needs about"), "{told}");
}

/// Runs the tiny Stable Diffusion at 1024×768 pixels on ONNX Runtime's operators, of which decoding takes about 1.2 GB and
/// denoising 0.3, and returns the answer, the image's object and its pixels. `kilobytes` is the most private memory of the
/// process, which the system enforces.
#[cfg(target_os = "linux")]
fn run_within(
    folder: &Path,
    kilobytes: Option<u32>,
    more: &[&str],
) -> (crate::common::Answer, serde_json::Value, Vec<u8>) {
    let mut command = ldm_ort(folder);
    command.arg("run").arg(models().join("sd1")).args(["-p", "a red circle", "--steps", "1", "--seed", "1", "--json"]);
    command
        .args([
            "--width",
            "1024",
            "--height",
            "768",
            "--set",
            "task.text-to-image.guidance_scale=1",
            "--set",
            "device.threads=1",
        ])
        .args(more);
    let limit = kilobytes.map_or("unlimited".to_owned(), |kilobytes| kilobytes.to_string());
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -d \"$0\" && exec \"$@\"", &limit]).arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.env("ORT_DYLIB_PATH", runtime().path());
    limited.current_dir(folder).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let told = answer(limited);
    let object: serde_json::Value = told
        .stdout
        .lines()
        .last()
        .map_or_else(|| serde_json::Value::Null, |line| serde_json::from_str(line).expect("an object"));
    let pixels = object["path"]
        .as_str()
        .map_or_else(Vec::new, |path| image::open(folder.join(path)).expect("an image").into_rgb8().into_raw());
    (told, object, pixels)
}

/// The first limit, and the run within it, that ends with an image. ONNX Runtime loses a region of its arena if it gets the region
/// and then no memory for the list of its chunks, so that a limit by a few percent above a region's size ends any process.
#[cfg(target_os = "linux")]
fn first_to_finish<T>(
    limits: &[u32],
    run: impl Fn(Option<u32>) -> (crate::common::Answer, serde_json::Value, T),
) -> (Option<u32>, (crate::common::Answer, serde_json::Value, T)) {
    let mut runs = limits.iter().map(|&limit| (Some(limit), run(Some(limit))));
    runs.find(|(_, (told, ..))| told.code == Some(0)).expect("a run that ends with an image")
}

#[cfg(target_os = "linux")]
#[test]
fn an_image_that_finds_no_memory_is_decoded_in_tiles() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |limit, more: &[&str]| run_within(folder.path(), limit, more);
    let (told, object, whole) = run(None, &[]);
    assert_eq!((told.code, &object["decode_tile"]), (Some(0), &serde_json::Value::Null), "{told}");
    let (told, object, asked) = run(None, &["--set", "run.decode_tile=64"]);
    assert_eq!((told.code, &object["decode_tile"]), (Some(0), &64.into()), "{told}");
    assert!(!told.stderr.contains("warning"), "{told}");
    // Tiles of 512×512 pixels take 0.2 GB.
    let (limit, (told, object, tiled)) =
        first_to_finish(&[700_000, 680_000, 720_000, 850_000], |limit| run(limit, &[]));
    assert_eq!((told.code, &object["decode_tile"]), (Some(0), &64.into()), "{told}");
    for says in [
        "no memory is left: vae_decoder",
        "decoded in tiles of 512×512 pixels",
        "run.decode_tile = 64",
        "1 image in tiles",
    ] {
        assert!(told.stderr.contains(says), "{says}: {told}");
    }
    assert!(tiled == asked && tiled != whole, "the tiles are those of the key");
    // The record asks for the same tiles.
    let image = folder.path().join(object["path"].as_str().expect("a path"));
    let record = ldm_ort::metadata::read_record(&image).expect("a record");
    assert_eq!(record.decode_tile, Some(64));
    assert!(record.pipeline.contains("decode_tile = 64"), "{}", record.pipeline);
    // Graphs that stay loaded are unloaded first, which leaves the image as it is.
    let keys = ["--images", "2", "--set", "device.offload=false", "--set", "device.free_activations=false"];
    let limits = [1_500_000, 1_450_000, 1_550_000, 1_600_000];
    let (_, (told, object, second)) = first_to_finish(&limits, |limit| run(limit, &keys));
    assert!(
        told.code == Some(0) && told.stderr.contains("the other graphs are unloaded, and the image is decoded again"),
        "{told}"
    );
    assert!(object["decode_tile"].is_null() && !told.stderr.contains("in tiles"), "{told}");
    let (told, _, expected) = run(None, &["--images", "2"]);
    assert!(told.code == Some(0) && second == expected, "{told}");
    // Tiles can be forbidden.
    let (told, ..) = run(limit, &["--set", "run.decode_tile=0"]);
    assert!(told.code == Some(1) && told.stderr.contains("error: memory: no memory is left: vae_decoder"), "{told}");
    assert!(!told.stderr.contains("in tiles of"), "{told}");
}

/// The bytes that a line of `--memory` says were private.
#[cfg(target_os = "linux")]
fn private(line: &str) -> f64 {
    let words: Vec<_> = line.split_whitespace().collect();
    let number: f64 = words[1].parse().expect("a number");
    number
        * match words[2] {
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            other => panic!("{other}: {line}"),
        }
}

#[cfg(target_os = "linux")]
#[test]
fn activations_are_freed_between_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let between = |frees: bool| {
        let mut command = ldm_ort(folder.path());
        command.arg("run").arg(root().join("models/shapes")).args([
            "-p",
            "a red circle",
            "--steps",
            "1",
            "--seed",
            "1",
        ]);
        command.args([
            "--images",
            "2",
            "--width",
            "384",
            "--height",
            "384",
            "--memory",
            "--set",
            "device.offload=false",
        ]);
        command.args(["--set", &format!("device.free_activations={frees}")]);
        let told = answer(command);
        assert_eq!(told.code, Some(0), "{told}");
        let rows: Vec<_> = told.stderr.lines().filter(|line| line.starts_with("preparing")).map(private).collect();
        rows[1]
    };
    let (freed, kept) = (between(true), between(false));
    println!("between two images {:.0} MB private, or {:.0} MB", freed / 1e6, kept / 1e6);
    assert!(freed < kept / 2.0, "{freed} and {kept}");
}

#[test]
fn a_device_without_room_for_all_weights_unloads_graphs() {
    let mut execution = plan(&["device.provider=cuda"]).expect("a plan").execution;
    let memory = |bytes| [("cuda".to_owned(), DeviceMemory { device: "a GPU".into(), bytes })].into();
    assert!(execution.keeps_open(&|_| false) && execution.offload_remark().is_none());
    execution.device_memory = memory(8 << 30);
    assert!(execution.keeps_open(&|_| false) && execution.offload_remark().is_none());
    execution.device_memory = memory(500_000);
    let remark = execution.offload_remark().expect("a remark");
    assert!(!execution.keeps_open(&|_| true), "all of the device's memory counts, whatever is open");
    assert!(
        remark.starts_with("each graph is unloaded after it has run: the weights are 0.00 GB, and a GPU has"),
        "{remark}"
    );
    execution.device.offload = Some(false);
    assert!(execution.keeps_open(&|_| false) && execution.offload_remark().is_none());
    // What is elsewhere does not count.
    let on_cpu = plan(&["device.provider=cuda", "device.unet.provider=cpu"]).expect("a plan").execution;
    assert!(on_cpu.openings().iter().any(|opening| !on_cpu.frees_activations(opening.kind)));
    assert!(on_cpu.frees_activations(on_cpu.model.denoiser.kind));
}

#[test]
fn noise_of_all_steps_counts_where_the_loop_is_on_the_device() {
    let fits = |memory: &str, more: &[&str]| {
        let memory = format!("device.memory_budget={memory:?}");
        let keys = ["run.width=1024", "run.height=768", "run.steps=500", &memory];
        plan(&[&keys, more].concat()).map(|plan| plan.execution.memory_budget.expect("a budget").denoises_alone)
    };
    let on_device = "device.denoising_loop=device";
    // 500 steps of 96×128 latents of 4 channels are 98 MB, and twice as much while they are copied.
    let noisy = ["scheduler.euler-ancestral={}", on_device];
    let least = (300..900).step_by(20).find(|megabytes| fits(&format!("{megabytes} MB"), &[on_device]).is_ok());
    let more = (300..900).step_by(20).find(|megabytes| fits(&format!("{megabytes} MB"), &noisy).is_ok());
    let (least, more) = (least.expect("it fits"), more.expect("it fits"));
    assert!((160..=240).contains(&(more - least)), "{least} MB and {more} MB");
}

/// A budget is planned for weights as they are packed.
#[test]
fn a_budget_has_room_for_weights_of_fewer_bits() {
    let fits = |precision: &str, megabytes: usize| {
        let keys = [format!("device.precision={precision}"), format!("device.memory_budget=\"{megabytes} MB\"")];
        plan_of(&root().join("models/shapes"), &keys.each_ref().map(String::as_str)).is_ok()
    };
    let least = |precision| (250..600).find(|&megabytes| fits(precision, megabytes)).expect("some budget");
    assert!(!InstructionSet::used().has_bf16() || least("bf16") < least("float32"));
}
