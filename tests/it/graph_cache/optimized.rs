//! Graphs that are optimized once, and the choices that have an entry of their own.

use super::{apart, entries, plan, run, seal, unsealed};
use crate::common::{models, runtime};
use ldm_ort::bundle::ComponentKind;
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::kernels::{InstructionSet, OperandType};
use ldm_ort::quantize::{WeightFormat, quantize};
use ldm_ort::rewrite::Pass;
use ldm_ort::session::Cancel;
use std::path::Path;

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

/// A denoiser that is faster on ONNX Runtime's operators for a little more rounding is asked for, and is another entry.
#[test]
fn fast_convolutions_are_another_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = run(Some(folder.path()), &[]);
    let fast = run(Some(folder.path()), &["device.fast_convolutions=true"]);
    let has_own = InstructionSet::used().has_operators(OperandType::Float32);
    assert_eq!((plain.optimized, fast.optimized), (3, if has_own { 0 } else { 2 }));
    assert!(apart(&plain, &fast) < 1e-4, "{}", apart(&plain, &fast));
}

/// Without Winograd's form in any graph, latents are as near to those of ONNX Runtime's operators as rounding allows.
#[test]
fn exact_convolutions_are_plain() {
    let folder = tempfile::tempdir().expect("a folder");
    let uses_winograd = |set: &[&str], kind| {
        let passes = plan(Some(folder.path()), set).execution.passes(kind);
        let is_of = |pass: &Pass| match pass {
            Pass::Operators(choice) => choice.filtering.is_some(),
            pass => *pass == Pass::Winograd,
        };
        passes.iter().any(is_of)
    };
    for kind in [ComponentKind::Unet, ComponentKind::VaeDecoder] {
        let has_own = InstructionSet::used().has_operators(OperandType::Float32);
        assert_eq!(uses_winograd(&[], kind), has_own || kind == ComponentKind::VaeDecoder, "{kind}");
        assert!(!uses_winograd(&["device.exact=true"], kind), "{kind}");
    }
    let (exact, unoptimized) = (run(Some(folder.path()), &["device.exact=true"]), run(None, &[]));
    assert!(apart(&unoptimized, &exact) < 2e-6, "{}", apart(&unoptimized, &exact));
}

#[test]
fn parts_that_make_room_are_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = run(None, &[]);
    for cache in [None, Some(folder.path())] {
        assert!(apart(&kept, &run(cache, &["device.offload=true"])) < 1e-5);
    }
}

/// The number of runs of the denoiser that a pipeline makes at the same time, and of measurements of that.
fn callers(cache: &Path, set: &[&str]) -> (usize, usize) {
    let mut measured = 0;
    let mut observe = |event: ExecutionEvent<'_>| {
        measured += usize::from(matches!(event, ExecutionEvent::Measuring { .. }));
    };
    let plan = plan(Some(cache), set);
    let pipeline = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    let plan = pipeline.models().next().expect("what was loaded");
    (plan.session_options(&plan.opening(&plan.model.denoiser)).callers, measured)
}

/// A model whose graphs run in ONNX Runtime's operators, since its weights are whole numbers: as `--set` says it.
fn quantized(folder: &Path) -> String {
    let model = folder.join("int8");
    quantize(&models().join("sd1"), &model, WeightFormat::Int8, &[], &Cancel::new(), &mut |_| ()).expect("a model");
    format!("model.path={:?}", model.to_str().expect("the test's folders are named in Unicode"))
}

/// Operators of our own divide each run among all threads, so that there is nothing to measure.
#[test]
fn operators_of_our_own_run_all_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    if InstructionSet::best() >= InstructionSet::Avx2 {
        for way in ["device.batching=auto", "device.batching=split"] {
            assert_eq!(callers(folder.path(), &["device.threads=2", way]), (1, 0), "{way}");
        }
    }
}

#[test]
fn the_faster_way_to_run_rows_is_measured_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = quantized(folder.path());
    let threads = ["device.threads=2", &model];
    assert_eq!(callers(folder.path(), &["device.threads=1", &model]).1, 0, "there is nothing to choose");
    assert_eq!(callers(folder.path(), &["device.threads=2", "device.batching=\"split\"", &model]), (2, 0));
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
    let model = quantized(folder.path());
    let threads = ["device.threads=3", "device.overcommit=true", &model];
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
    let split =
        run(Some(folder.path()), &["device.threads=3", "device.overcommit=true", "device.batching=split", &model]);
    assert!(apart(&batched, &split) < 1e-5, "{}", apart(&batched, &split));
    // What was measured without it is measured again.
    seal(&file, r#"{"split":2.0,"sequential":3.0}"#);
    assert_eq!(callers(folder.path(), &threads).1, 1);
    seal(&file, r#"{"split":2.0,"sequential":3.0,"batched":1.0,"tried_batched":true}"#);
    // Not where some calls have fewer rows, nor where the memory is bounded.
    for other in ["task.text-to-image.guidance_interval=[0.0, 0.5]", "device.memory_budget=\"1 GB\""] {
        assert_eq!(callers(folder.path(), &[threads[0], threads[1], threads[2], other]), (2, 0), "{other}");
    }
}
