//! Entries that are damaged or incomplete.

use super::{Run, apart, entries, files, flip, plan, run};
use crate::common::runtime;
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::session::Cancel;
use std::path::{Path, PathBuf};

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

/// The files that a killed process leaves are removed by the next that wants the same graph.
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
