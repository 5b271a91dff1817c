//! The size of the graph cache: its limit, eviction of the least recently used entries, and folders that are read-only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::common::{models, runtime};
use ldm_ort::bundle::ComponentKind;
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::graph_cache::{CachedGraph, GraphCache, GraphCacheEvent, SizeLimit};
use ldm_ort::plan::Plan;
use ldm_ort::session::{Cancel, Runtime, Session};
use ldm_ort::spec::{Overrides, Spec};

fn plan(set: &[&str]) -> Plan {
    let text = format!(
        "[model]\npath = {:?}\n[task.text-to-image]\nprompt = \"a red circle\"\n[run]\nsteps = 1\nseed = 7\n",
        models().join("sd1").to_str().expect("the test's folders are named in Unicode")
    );
    let set = set.iter().map(|&key| key.to_owned()).collect();
    Plan::new(Spec::parse(&text, None, &Overrides { set, ..Overrides::default() }).expect("a pipeline"))
        .expect("a plan")
}

/// A cache with a plan's graphs, opened one by one.
struct Cached {
    runtime: Runtime,
    plan: Plan,
    cache: GraphCache,
}

impl Cached {
    fn new(folder: &Path) -> Self {
        Self { runtime: runtime(), plan: plan(&[]), cache: GraphCache::new(folder) }
    }

    fn limited_to(self, bytes: u64) -> Self {
        Self { cache: self.cache.limited_to(SizeLimit::Bytes(bytes)), ..self }
    }

    /// Opens a graph; the problems are those for which it was not cached.
    fn open(&self, kind: ComponentKind) -> (Session, Vec<String>) {
        let model = &self.plan.execution;
        let opening = model.openings().into_iter().find(|opening| opening.kind == kind).expect("the component");
        let mut problems = Vec::new();
        let mut observe = |event: GraphCacheEvent<'_>| {
            if let GraphCacheEvent::Uncached { problem } = event {
                problems.push(problem);
            }
        };
        let options = model.session_options(&opening);
        let session = self.cache.open(&self.runtime, opening.graph, &opening.passes, &options, &mut observe);
        (session.expect("it opens"), problems)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.entries().into_iter().map(|entry| entry.component).collect();
        names.sort();
        names
    }

    fn entries(&self) -> Vec<CachedGraph> {
        self.cache.entries().expect("entries")
    }

    /// Puts the last use of an entry into the past.
    fn age(&self, component: &str, seconds: u64) {
        let entries = self.entries();
        let entry = entries.iter().find(|entry| entry.component == component).expect("the entry");
        let used = entry.folder().with_extension("use");
        let file = std::fs::File::options().write(true).open(used).expect("the use file");
        file.set_modified(SystemTime::now() + Duration::from_secs(1000) - Duration::from_secs(seconds))
            .expect("a time");
    }
}

const KINDS: [ComponentKind; 3] = [ComponentKind::TextEncoder, ComponentKind::Unet, ComponentKind::VaeDecoder];

#[test]
fn the_least_recently_used_graphs_are_removed_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let cached = Cached::new(folder.path());
    KINDS.iter().for_each(|kind| drop(cached.open(*kind)));
    assert_eq!(cached.names(), ["text_encoder", "unet", "vae_decoder"]);
    let bytes: u64 = cached.entries().iter().map(CachedGraph::bytes).sum();
    assert_eq!(cached.cache.trim(10 * bytes).expect("it can be trimmed").freed, 0);
    // It was made before the others, and used after them.
    for (component, seconds) in [("unet", 300), ("vae_decoder", 200), ("text_encoder", 100)] {
        cached.age(component, seconds);
    }
    let trimmed = cached.cache.trim(bytes - 1).expect("it can be trimmed");
    assert_eq!(cached.names(), ["text_encoder", "vae_decoder"]);
    assert!(trimmed.freed > 0 && trimmed.left > 0 && trimmed.left < bytes + 65536, "{trimmed:?}");
    // Opening it is a use.
    cached.age("text_encoder", 900);
    drop(cached.open(ComponentKind::TextEncoder));
    cached.age("vae_decoder", 2000);
    cached.cache.trim(trimmed.left - 1).expect("it can be trimmed");
    assert_eq!(cached.names(), ["text_encoder"]);
    assert_eq!(cached.cache.trim(0).expect("it can be trimmed").left, 0);
    assert!(cached.names().is_empty());
}

#[test]
fn a_graph_in_use_is_not_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let cached = Cached::new(folder.path());
    let (text_encoder, problems) = cached.open(ComponentKind::TextEncoder);
    assert!(problems.is_empty(), "{problems:?}");
    drop(cached.open(ComponentKind::Unet));
    // Another process has its own handles, as has another cache here.
    let other = GraphCache::new(folder.path());
    assert!(other.trim(0).expect("it can be trimmed").left > 0);
    assert_eq!(cached.names(), ["text_encoder"]);
    drop(text_encoder);
    assert_eq!(other.trim(0).expect("it can be trimmed").left, 0);
    // An entry that was optimized ahead is in use as long as the answer lives.
    let model = &cached.plan.execution;
    let opening = model.openings().into_iter().next().expect("the text encoder");
    let options = model.session_options(&opening);
    let entry = other.optimize(&cached.runtime, opening.graph, &opening.passes, &options, &mut |_| {});
    let entry = entry.expect("it can be cached");
    assert!(entry.is_some() && other.trim(0).expect("it can be trimmed").left > 0);
    drop(entry);
    assert_eq!(other.trim(0).expect("it can be trimmed").left, 0);
}

#[test]
fn a_new_graph_takes_the_place_of_the_least_recently_used_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let cached = Cached::new(folder.path());
    drop(cached.open(ComponentKind::TextEncoder));
    drop(cached.open(ComponentKind::VaeDecoder));
    cached.age("text_encoder", 100);
    cached.age("vae_decoder", 900);
    let bytes = |component: &str| {
        let entry = cached.entries().into_iter().find(|entry| entry.component == component).expect("the entry");
        listing(entry.folder()).values().map(|(bytes, _)| bytes).sum::<u64>()
    };
    let openings = cached.plan.execution.openings();
    let unet = openings.iter().find(|opening| opening.kind == ComponentKind::Unet).expect("a denoiser");
    // Room for it and one of the two that are there.
    let limit = unet.graph.weight_bytes + unet.graph.file_bytes + bytes("text_encoder") + bytes("vae_decoder") / 2;
    let cached = cached.limited_to(limit);
    let (_unet, problems) = cached.open(ComponentKind::Unet);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(cached.names(), ["text_encoder", "unet"]);
}

struct Run {
    optimized: usize,
    images: usize,
    warnings: Vec<String>,
}

fn run(cache: &GraphCache, set: &[&str]) -> Run {
    let mut plan = plan(set);
    plan.set_graph_cache(Some(cache));
    let mut run = Run { optimized: 0, images: 0, warnings: Vec::new() };
    let mut observe = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Optimizing { .. } => run.optimized += 1,
        ExecutionEvent::Warning(warning) => run.warnings.push(warning),
        ExecutionEvent::Image(_) => run.images += 1,
        _ => {}
    };
    let mut pipeline = Execution::load(&plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    pipeline.run(&plan, &Cancel::new(), &mut observe).expect("an image");
    run
}

#[test]
fn graphs_beyond_the_limit_run_uncached_with_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = GraphCache::new(folder.path()).limited_to(SizeLimit::Bytes(1000));
    let run = run(&cache, &[]);
    assert_eq!((run.optimized, run.images), (0, 1));
    assert_eq!(run.warnings.len(), 3, "{:?}", run.warnings);
    for warning in &run.warnings {
        assert!(warning.contains("is opened as exported, not from the graph cache: "), "{warning}");
        assert!(warning.contains("limited to 0.0 MB") && warning.contains("LDM_ORT_GRAPH_CACHE_SIZE"), "{warning}");
    }
    assert!(cache.entries().expect("entries").is_empty());
}

/// All files below a folder, with sizes and times.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let metadata = entry.metadata().expect("a file");
        if metadata.is_dir() {
            files.extend(listing(&entry.path()));
        }
        files.insert(entry.path(), (metadata.len(), metadata.modified().expect("a time")));
    }
    files
}

#[test]
fn a_read_only_cache_opens_its_graphs_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("graphs");
    let made = run(&GraphCache::new(&root), &["device.batching=sequential"]);
    assert_eq!((made.optimized, made.images, made.warnings.len()), (3, 1, 0), "{:?}", made.warnings);
    let before = listing(folder.path());
    let cache = GraphCache::new(&root).read_only();
    let same = run(&cache, &["device.batching=sequential"]);
    assert_eq!((same.optimized, same.images, same.warnings), (0, 1, Vec::new()));
    assert_eq!(listing(folder.path()), before);
    // Three graphs of another size: one warning, and nothing is written either.
    let other = run(&cache, &["device.batching=sequential", "run.width=64", "run.height=32"]);
    assert_eq!((other.optimized, other.images, other.warnings.len()), (0, 1, 1), "{:?}", other.warnings);
    assert!(
        other.warnings[0].contains("graph cache in ") && other.warnings[0].contains("read-only"),
        "{:?}",
        other.warnings
    );
    assert_eq!(listing(folder.path()), before);
    // The measurement of rows is not written either.
    run(&cache, &["run.images=2"]);
    assert_eq!(listing(folder.path()), before);
    // Removing what it holds is for others.
    let none = GraphCache::new(folder.path().join("none")).read_only();
    assert_eq!((run(&none, &[]).images, folder.path().join("none").exists()), (1, false));
}
