//! A cache that several processes use, list, clear, or cannot write to.

use super::{entries, flip, plan, run};
use crate::common::{answer, copy_folder, ldm_ort, models, runtime};
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::plan::Plan;
use ldm_ort::session::Cancel;

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
    copy_folder(&models().join("sd1"), &model);
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

/// Another process may clear the cache at any time.
#[test]
fn clearing_the_cache_fails_nobody_who_opens_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = GraphCache::new(folder.path());
    let runtime = runtime();
    let Plan { execution, .. } = plan(Some(folder.path()), &[]);
    let opening = execution.openings().into_iter().next().expect("the text encoder");
    let options = execution.session_options(&opening);
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
