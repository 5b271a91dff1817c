//! Graphs optimized once and kept, rows of a call run in different ways, parts that make room: the same latents each
//! time.

use std::path::{Path, PathBuf};

use crate::common::{answer, ldm_ort, models};
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::{CachedGraph, GraphCache};
use ldm_ort::plan::Plan;
use ldm_ort::session::{Cancel, Runtime};
use ldm_ort::spec::{Overrides, Spec};
use ndarray::ArrayD;

/// What a run did.
struct Run {
    latents: Vec<ArrayD<f32>>,
    /// Graphs optimized.
    optimized: usize,
    warnings: Vec<String>,
}

fn runtime() -> Runtime {
    let options = ldm_ort::Engine::default().runtime_options(None);
    Runtime::load(&options).expect("ONNX Runtime is found or fetched")
}

fn plan(cache: Option<&Path>, set: &[&str]) -> Plan {
    let model = models().join("sd1");
    let text = format!(
        "[model]\npath = {:?}\n[task.text-to-image]\nprompt = \"a red circle\"\nguidance_scale = 5.0\n[run]\nsteps = 3\nseed = 7\nimages = 2\n",
        model.to_str().expect("the test's folders are named in Unicode")
    );
    let set = set.iter().map(|&key| key.to_owned()).collect();
    let spec = Spec::parse(&text, None, &Overrides { set, ..Overrides::default() }).expect("a pipeline");
    let mut plan = Plan::new(spec).expect("a plan");
    plan.execution.graph_cache = cache.map(GraphCache::new);
    plan
}

fn run(cache: Option<&Path>, set: &[&str]) -> Run {
    let plan = plan(cache, set);
    let mut run = Run { latents: Vec::new(), optimized: 0, warnings: Vec::new() };
    let mut observe = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Optimizing { .. } => run.optimized += 1,
        ExecutionEvent::Warning(warning) => run.warnings.push(warning),
        ExecutionEvent::Image(image) => run.latents.push(image.latents.clone()),
        _ => {}
    };
    let mut pipeline = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    pipeline.run(&plan, &Cancel::new(), &mut observe).expect("images");
    run
}

/// How far two runs are apart, in parts of the largest latent.
fn apart(a: &Run, b: &Run) -> f32 {
    assert_eq!((a.latents.len(), b.latents.len()), (2, 2));
    let pairs = || a.latents.iter().zip(&b.latents).flat_map(|(a, b)| a.iter().zip(b));
    let largest = pairs().map(|(a, _)| a.abs()).fold(0.0, f32::max);
    pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn a_graph_is_optimised_once_and_draws_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = run(None, &[]);
    assert_eq!(plain.optimized, 0);
    let first = run(Some(folder.path()), &[]);
    assert_eq!((first.optimized, &first.warnings), (3, &Vec::new()));
    let second = run(Some(folder.path()), &[]);
    assert_eq!(second.optimized, 0);
    assert!(apart(&plain, &first) < 1e-5, "{}", apart(&plain, &first));
    assert_eq!(apart(&first, &second), 0.0);

    let off = run(Some(folder.path()), &["device.optimize=false"]);
    assert_eq!((off.optimized, apart(&plain, &off)), (0, 0.0));
}

#[test]
fn another_size_is_another_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let wide = ["run.width=128"];
    assert_eq!(run(Some(folder.path()), &[]).optimized, 3);
    // The text encoder does not depend on the size.
    let kept = run(Some(folder.path()), &wide);
    assert_eq!(kept.optimized, 2);
    assert!(apart(&run(None, &wide), &kept) < 1e-5);

    let entries = GraphCache::new(folder.path()).entries().expect("a list");
    assert_eq!(entries.len(), 5);
    let widths: Vec<_> = entries.iter().filter(|e| e.component == "unet").flat_map(|e| &e.axes).collect();
    let is_told = |name: &str, length: usize| widths.iter().any(|(n, l)| n == name && *l == length);
    assert!(is_told("width", 8) && is_told("width", 16), "{widths:?}");
}

/// A pipeline that was opened for one size makes images of another.
#[test]
fn one_pipeline_makes_images_of_two_sizes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (small, wide) = (plan(Some(folder.path()), &[]), plan(Some(folder.path()), &["run.width=128"]));
    let mut latents = Vec::new();
    let mut observe = |event: ExecutionEvent<'_>| {
        if let ExecutionEvent::Image(image) = event {
            latents.push(image.latents.clone());
        }
    };
    let mut pipeline = Execution::load(&small, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    for plan in [&small, &wide, &small] {
        pipeline.run(plan, &Cancel::new(), &mut observe).expect("images");
    }
    assert_eq!(latents[2].shape()[2], 16);
    assert_eq!((&latents[0], &latents[1]), (&latents[4], &latents[5]));
}

#[test]
fn every_way_to_run_the_rows_draws_the_same() {
    let batched = run(None, &["device.batching=batched"]);
    for way in ["auto", "split", "sequential"] {
        let other = run(None, &[&format!("device.batching={way}")]);
        assert!(apart(&batched, &other) < 1e-5, "{way}: {}", apart(&batched, &other));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let kept = run(Some(folder.path()), &["device.batching=batched", "device.threads=2"]);
    assert!(apart(&batched, &kept) < 1e-5);
}

/// What is faster in the denoiser for a little more rounding is asked for, and is another entry.
#[test]
fn fast_convolutions_are_another_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = run(Some(folder.path()), &[]);
    let fast = run(Some(folder.path()), &["device.fast_convolutions=true"]);
    assert_eq!((plain.optimized, fast.optimized), (3, 2));
    assert!(apart(&plain, &fast) < 1e-4, "{}", apart(&plain, &fast));
}

#[test]
fn parts_that_make_room_are_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = run(None, &[]);
    for cache in [None, Some(folder.path())] {
        assert!(apart(&kept, &run(cache, &["device.offload=true"])) < 1e-5);
    }
}

/// How many runs of the denoiser a pipeline makes at the same time, and how often it measured that.
fn callers(cache: &Path, set: &[&str]) -> (usize, usize) {
    let mut measured = 0;
    let mut observe = |event: ExecutionEvent<'_>| {
        measured += usize::from(matches!(event, ExecutionEvent::Measuring { .. }));
    };
    let plan = plan(Some(cache), set);
    let pipeline = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    let plan = pipeline.models().next().expect("what was loaded");
    (plan.session_options(plan.model.denoiser.kind).callers, measured)
}

#[test]
fn the_faster_way_to_run_rows_is_measured_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let threads = ["device.threads=2"];
    assert_eq!(callers(folder.path(), &["device.threads=1"]).1, 0, "there is nothing to choose");
    assert_eq!(callers(folder.path(), &["device.threads=2", "device.batching=\"split\""]), (2, 0));
    assert_eq!(callers(folder.path(), &threads).1, 1);
    let told: Vec<_> = std::fs::read_dir(folder.path().join("measured")).expect("a folder").flatten().collect();
    let [file] = told.as_slice() else { panic!("{} measurements", told.len()) };
    for (split, sequential, want) in [(1.0, 2.0, 2), (2.0, 1.0, 1)] {
        seal(&file.path(), &format!("{{\"split\":{split},\"sequential\":{sequential}}}"));
        assert_eq!(callers(folder.path(), &threads), (want, 0));
    }
    std::fs::write(file.path(), "{").expect("a file");
    assert_eq!(callers(folder.path(), &threads).1, 1, "what cannot be read is measured again");
    let text = std::fs::read_to_string(file.path()).expect("a file").replacen("split", "spliu", 1);
    std::fs::write(file.path(), text).expect("a file");
    assert_eq!(callers(folder.path(), &threads).1, 1, "what was damaged is measured again");
}

/// With more threads than rows, one run of all rows is a choice: what is kept for it stays only if it is taken.
#[test]
fn one_run_of_all_rows_is_tried_where_threads_are_left_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let unets = || entries(folder.path()).iter().filter(|entry| entry.component == "unet").count();
    let threads = ["device.threads=3", "device.overcommit=true"];
    assert_eq!(callers(folder.path(), &threads).1, 1);
    let mut told = std::fs::read_dir(folder.path().join("measured")).expect("a folder").flatten();
    let file = told.next().expect("a measurement").path();
    let rows: serde_json::Value = serde_json::from_str(&unsealed(&file)).expect("JSON");
    let seconds = |way: &str| rows[way].as_f64().expect("seconds");
    let is_fastest = seconds("batched") < seconds("split").min(seconds("sequential"));
    assert_eq!(unets(), if is_fastest { 2 } else { 1 });
    seal(&file, r#"{"split":2.0,"sequential":3.0,"batched":1.0,"tried_batched":true}"#);
    assert_eq!(callers(folder.path(), &threads), (1, 0));
    let batched = run(Some(folder.path()), &threads);
    assert_eq!(unets(), 2);
    let split = run(Some(folder.path()), &["device.threads=3", "device.overcommit=true", "device.batching=split"]);
    assert!(apart(&batched, &split) < 1e-5, "{}", apart(&batched, &split));
    // What was measured without it is measured again.
    seal(&file, r#"{"split":2.0,"sequential":3.0}"#);
    assert_eq!(callers(folder.path(), &threads).1, 1);
    seal(&file, r#"{"split":2.0,"sequential":3.0,"batched":1.0,"tried_batched":true}"#);
    // Not where some calls have fewer rows, nor where the memory is bounded.
    for other in ["task.text-to-image.guidance_interval=[0.0, 0.5]", "device.memory_budget=\"1 GB\""] {
        assert_eq!(callers(folder.path(), &[threads[0], threads[1], other]), (2, 0), "{other}");
    }
}

fn entries(folder: &Path) -> Vec<CachedGraph> {
    GraphCache::new(folder).entries().expect("a list")
}

/// The files of the UNet's entry.
fn files(folder: &Path) -> [PathBuf; 3] {
    let entry = entries(folder).into_iter().find(|entry| entry.component == "unet").expect("a UNet");
    ["entry.json", "model.onnx", "model.weights"].map(|name| entry.folder().join(name))
}

#[test]
fn what_is_damaged_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = run(Some(folder.path()), &[]);
    type Damage = fn(&[PathBuf; 3]);
    let damages: [(&str, Damage); 5] = [
        ("no card", |[card, ..]| std::fs::remove_file(card).unwrap()),
        ("half a card", |[card, ..]| std::fs::write(card, "{").unwrap()),
        ("no weights", |[.., weights]| std::fs::remove_file(weights).unwrap()),
        ("half the weights", |[.., weights]| {
            let file = std::fs::File::options().write(true).open(weights).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("other bytes of the same number", |[_, graph, _]| {
            let length = std::fs::metadata(graph).unwrap().len();
            std::fs::write(graph, vec![0; length as usize]).unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage(&files(folder.path()));
        assert_eq!(entries(folder.path()).len(), 2, "{what}");
        let again = run(Some(folder.path()), &[]);
        assert_eq!((again.optimized, apart(&first, &again)), (1, 0.0), "{what}");
    }
}

/// Writes a small file of the cache with the checksum that it ends with.
fn seal(path: &Path, text: &str) {
    std::fs::write(path, format!("{text}\n// crc32 {:08x}\n", crc32fast::hash(text.as_bytes()))).expect("a file");
}

/// A small file of the cache without its checksum.
fn unsealed(path: &Path) -> String {
    let whole = std::fs::read_to_string(path).expect("a file");
    whole.rsplit_once("\n// crc32 ").expect("a sealed file").0.to_owned()
}

/// Flips a bit of a file of the UNet's entry, and lets its card say that size and times are those of the changed file: what
/// is left of damage on the disk, of which no time tells.
fn flip(folder: &Path, name: &str, at: impl Fn(usize) -> usize) {
    let [card, graph, weights] = files(folder);
    let path = if name == "model.onnx" { graph } else { weights };
    let mut bytes = std::fs::read(&path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    let modified = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let changed = 0;
    let text = unsealed(&card);
    // The lines of the card about this file: its name, its bytes, and the two times.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let first = lines.iter().position(|line| line.contains(&format!("\"name\": \"{name}\""))).expect("the file");
    for (key, time) in [("modified", modified.to_string()), ("changed", changed.to_string())] {
        let line = lines[first..].iter_mut().find(|line| line.contains(&format!("\"{key}\""))).expect("a time");
        let comma = if line.ends_with(',') { "," } else { "" };
        *line = format!("\"{key}\": {time}{comma}");
    }
    seal(&card, &lines.join("\n"));
}

/// A pipeline on a cache that checks files of up to `first` bytes before they are opened, run once.
fn run_checked(folder: &Path, first: u64) -> (Run, Result<(), ldm_ort::Error>) {
    let mut plan = plan(None, &[]);
    plan.execution.graph_cache = Some(GraphCache::new(folder).checking_first(first));
    let mut run = Run { latents: Vec::new(), optimized: 0, warnings: Vec::new() };
    let mut observe = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Optimizing { .. } => run.optimized += 1,
        ExecutionEvent::Image(image) => run.latents.push(image.latents.clone()),
        _ => {}
    };
    let mut pipeline = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    let done = pipeline.run(&plan, &Cancel::new(), &mut observe).map(|_| ());
    (run, done)
}

#[test]
fn a_flipped_bit_in_a_small_file_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = run(Some(folder.path()), &[]);
    for (name, at) in [("model.weights", 2), ("model.onnx", 3), ("model.weights", 1_000_000)] {
        flip(folder.path(), name, |length| length / at);
        assert_eq!(entries(folder.path()).len(), 3, "{name}: the card still fits the files");
        let (again, done) = run_checked(folder.path(), u64::MAX);
        done.expect("images");
        assert_eq!((again.optimized, apart(&first, &again)), (1, 0.0), "{name}");
    }
}

/// Large files are checked in the background: the run ends before an image is handed out, and the next makes them again.
#[test]
fn a_flipped_bit_in_a_large_file_ends_the_run_before_an_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = run(Some(folder.path()), &[]);
    flip(folder.path(), "model.weights", |length| length / 2);
    let (damaged, done) = run_checked(folder.path(), 0);
    let error = done.expect_err("the weights are damaged");
    assert_eq!((error.exit_code(), damaged.latents.len(), damaged.optimized), (1, 0, 0), "{error}");
    let text = error.to_string();
    assert!(["model.weights", "is damaged", "unet", "makes it again"].iter().all(|word| text.contains(word)), "{text}");

    let (again, done) = run_checked(folder.path(), 0);
    done.expect("images");
    assert_eq!((again.optimized, apart(&first, &again)), (1, 0.0));
    let (sound, done) = run_checked(folder.path(), 0);
    done.expect("images");
    assert_eq!((sound.optimized, sound.latents.len()), (0, 2));
}

/// A pipeline whose graph turned out to be damaged closes it and what it made, so that its next run is a sound one; no
/// preview shows what a damaged graph makes.
#[test]
fn a_pipeline_recovers_from_a_damaged_graph() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = run(Some(folder.path()), &[]);
    for set in [&[][..], &["output.preview=1"]] {
        flip(folder.path(), "model.weights", |length| length / 2);
        let mut plan = plan(None, set);
        let cache = GraphCache::new(folder.path()).checking_first(0);
        plan.execution.graph_cache = Some(cache.clone());
        let mut again = Run { latents: Vec::new(), optimized: 0, warnings: Vec::new() };
        let previews = std::cell::Cell::new(0);
        let mut observe = |event: ExecutionEvent<'_>| match event {
            ExecutionEvent::Optimizing { .. } => again.optimized += 1,
            ExecutionEvent::Image(image) => again.latents.push(image.latents.clone()),
            ExecutionEvent::Preview { .. } => previews.set(previews.get() + 1),
            _ => {}
        };
        let mut pipeline = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
        let error = pipeline.run(&plan, &Cancel::new(), &mut observe).expect_err("the weights are damaged");
        assert!(error.to_string().contains("is damaged"), "{error}");
        assert_eq!((cache.damages(), previews.get()), (1, 0));
        pipeline.run(&plan, &Cancel::new(), &mut observe).expect("images");
        assert_eq!((again.optimized, apart(&first, &again)), (1, 0.0));
        assert_eq!(previews.get() > 0, !set.is_empty());
    }
}

/// What a process that was killed leaves behind is removed by the next that wants the same graph.
#[test]
fn what_is_half_written_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    run(Some(folder.path()), &[]);
    let unet = entries(folder.path()).into_iter().find(|entry| entry.component == "unet").expect("a UNet");
    let half = folder.path().join(format!("unfinished-{}-abc", unet.key));
    std::fs::rename(unet.folder(), &half).unwrap();
    assert_eq!(run(Some(folder.path()), &[]).optimized, 1);
    assert!(!half.exists());
}

#[test]
fn several_processes_at_once_do_not_clash() {
    let (folder, runtime) = (tempfile::tempdir().expect("a folder"), runtime());
    let pipeline = folder.path().join("pipeline.toml");
    std::fs::write(
        &pipeline,
        format!(
            "[model]\npath = {:?}\n[task.text-to-image]\nprompt = \"a red circle\"\n[run]\nsteps = 2\nseed = 7\n",
            models().join("sd1").to_str().expect("Unicode")
        ),
    )
    .unwrap();
    let start = |name: &str| {
        let mut command = ldm_ort(folder.path());
        command.args(["run", "pipeline.toml", "--save-latents", name]);
        command.env_remove("LDM_ORT_OPTIMIZE").env("ORT_DYLIB_PATH", runtime.path());
        command.env("LDM_ORT_CACHE_DIR", folder.path().join("cache"));
        std::thread::spawn(move || answer(command))
    };
    let names = ["a.npy", "b.npy", "c.npy"];
    for answer in names.map(start) {
        let answer = answer.join().expect("an answer");
        assert_eq!(answer.code, Some(0), "{answer}");
    }
    let latents = names.map(|name| std::fs::read(folder.path().join(name)).unwrap());
    assert!(latents.iter().all(|other| *other == latents[0]));
    assert_eq!(entries(&folder.path().join("cache/graphs")).len(), 3);
}

#[test]
fn the_command_line_optimizes_lists_trims_and_clears() {
    let (folder, runtime) = (tempfile::tempdir().expect("a folder"), runtime());
    let (cache, model) = (folder.path().join("cache"), folder.path().join("model"));
    copy(&models().join("sd1"), &model);
    let text = "[model]\npath = \"model\"\n[task.text-to-image]\nprompt = \"a\"\n[run]\nsteps = 1\n";
    std::fs::write(folder.path().join("p.toml"), text).unwrap();
    let say = |arguments: &[&str]| {
        let mut command = ldm_ort(folder.path());
        command.args(arguments).env_remove("LDM_ORT_OPTIMIZE").env("LDM_ORT_CACHE_DIR", &cache);
        command.env("ORT_DYLIB_PATH", runtime.path()).env("NO_COLOR", "1");
        let answer = answer(command);
        (answer.code, answer.stdout, answer.stderr)
    };
    let (code, list, _) = say(&["cache", "list"]);
    assert!(code == Some(0) && list.starts_with("no optimized graphs in "), "{list}");

    let (code, made, error) = say(&["optimize", "p.toml"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(["text_encoder", "unet", "vae_decoder"].iter().all(|name| made.contains(name)), "{made}");
    assert!(error.contains("optimizing unet for this machine, once"), "{error}");
    let (code, _, error) = say(&["run", "p.toml"]);
    assert!(code == Some(0) && !error.contains("optimizing"), "{error}");
    let (code, _, error) = say(&["optimize", "p.toml", "--set", "device.optimize=false"]);
    assert!(code == Some(2) && error.contains("none of its graphs"), "{error}");

    let (_, list, _) = say(&["cache", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(3));
    assert!(list[0]["bytes"].as_u64() > Some(0) && list[0]["stale"].is_null());

    let (code, sound, error) = say(&["cache", "verify"]);
    assert!(code == Some(0) && error.is_empty(), "{error}");
    // Three optimized graphs, and the three of the model whose digests are remembered.
    assert_eq!((sound.matches("ok  ").count(), sound.matches("model file").count()), (6, 3), "{sound}");
    flip(&cache.join("graphs"), "model.weights", |length| length - 1);
    let (code, found, error) = say(&["cache", "verify"]);
    assert!(code == Some(1) && error.contains("1 of 6 checked are damaged"), "{error}");
    assert_eq!((found.matches("ok  ").count(), found.matches("damaged  unet").count()), (5, 1), "{found}");
    let (code, _, error) = say(&["run", "p.toml"]);
    assert!(code == Some(0) && error.matches("optimizing").count() == 1, "{error}");
    let (code, list, _) = say(&["cache", "verify", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!((code, list.as_array().map(Vec::len)), (Some(0), Some(6)));

    let (code, freed, _) = say(&["cache", "clear", "--stale"]);
    assert!(code == Some(0) && freed.starts_with("0 B freed"), "{freed}");
    std::fs::remove_dir_all(model.join("unet")).unwrap();
    let (_, list, _) = say(&["cache", "list"]);
    assert_eq!(list.matches("(its graph is gone)").count(), 1, "{list}");
    say(&["cache", "clear", "--stale"]);
    assert_eq!(entries(&cache.join("graphs")).len(), 2);
    let (code, trimmed, _) = say(&["cache", "trim", "--to", "1 B"]);
    assert!(code == Some(0) && trimmed.contains("freed in ") && trimmed.trim_end().ends_with("0 B left"), "{trimmed}");
    assert!(entries(&cache.join("graphs")).is_empty());
    let (code, ..) = say(&["cache", "clear"]);
    assert!(code == Some(0) && entries(&cache.join("graphs")).is_empty());
}

/// A cache that cannot be written to does not stop a run.
#[test]
fn where_nothing_can_be_cached_graphs_are_opened_as_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let run = run(Some(&file.join("cache")), &[]);
    assert_eq!((run.optimized, run.latents.len()), (0, 2));
    assert_eq!(run.warnings.len(), 1, "{:?}", run.warnings);
    assert!(run.warnings.iter().any(|warning| warning.contains("cannot be created")), "{:?}", run.warnings);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &place);
        } else {
            std::fs::copy(&path, &place).unwrap();
        }
    }
}

/// Another process may clear the cache at any time.
#[test]
fn clearing_the_cache_fails_nobody_who_opens_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = GraphCache::new(folder.path());
    let runtime = runtime();
    let Plan { execution, .. } = plan(Some(folder.path()), &[]);
    let opening = execution.openings().into_iter().next().expect("the text encoder");
    let options = execution.session_options(opening.kind);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let cleared = std::thread::scope(|scope| {
        let clearing = scope.spawn(|| {
            let mut cleared = 0;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                cleared += usize::from(cache.clear(|_| true).expect("it can be cleared") > 0);
            }
            cleared
        });
        let opened: Vec<_> = (0..30)
            .map(|_| cache.open(&runtime, opening.graph, &opening.passes, &options, &mut |_| {}).map(|_| ()))
            .collect();
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        let cleared = clearing.join().expect("no panic");
        opened.into_iter().for_each(|opened| opened.expect("it opens all the same"));
        cleared
    });
    assert!(cleared > 3, "only {cleared} entries were removed");
}

/// A run that opens a graph a second time later on goes on without its file.
#[test]
fn a_run_goes_on_once_its_graphs_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = plan(Some(folder.path()), &["device.offload=false", "task.text-to-image.guidance_scale=1.0"]);
    let mut images = 0;
    let mut observe = |event: ExecutionEvent<'_>| {
        images += usize::from(matches!(event, ExecutionEvent::Image(_)));
        if matches!(event, ExecutionEvent::Preparing { .. }) {
            GraphCache::new(folder.path()).clear(|_| true).expect("it can be cleared");
        }
    };
    let mut pipeline = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    pipeline.run(&plan, &Cancel::new(), &mut observe).expect("images");
    pipeline.run(&plan, &Cancel::new(), &mut observe).expect("images once more");
    assert_eq!(images, 4);
}
