//! Graphs optimized once and cached, rows of a call run in different ways, parts that make room: the same latents each
//! time.

mod damage;
mod optimized;
mod sharing;
mod size_limit;

use crate::common::{models, runtime};
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::{CachedGraph, GraphCache};
use ldm_ort::plan::Plan;
use ldm_ort::session::Cancel;
use ldm_ort::spec::{Overrides, Spec};
use ndarray::ArrayD;
use std::path::{Path, PathBuf};

/// The acts of a run.
struct Run {
    latents: Vec<ArrayD<f32>>,
    /// Graphs optimized.
    optimized: usize,
    warnings: Vec<String>,
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

/// The distance of two runs, in parts of the largest latent.
fn apart(a: &Run, b: &Run) -> f32 {
    assert_eq!((a.latents.len(), b.latents.len()), (2, 2));
    let pairs = || a.latents.iter().zip(&b.latents).flat_map(|(a, b)| a.iter().zip(b));
    let largest = pairs().map(|(a, _)| a.abs()).fold(0.0, f32::max);
    pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

fn entries(folder: &Path) -> Vec<CachedGraph> {
    GraphCache::new(folder).entries().expect("a list")
}

/// The files of the UNet's entry.
fn files(folder: &Path) -> [PathBuf; 3] {
    let entry = entries(folder).into_iter().find(|entry| entry.component == "unet").expect("a UNet");
    ["entry.json", "model.onnx", "model.weights"].map(|name| entry.folder().join(name))
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
