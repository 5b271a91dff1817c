//! `ldm-ort optimize` and `ldm-ort cache`.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::HumanBytes;
use serde_json::json;

use super::args::{CacheAction, Global, OptimizeArgs};
use super::interrupt::Interrupt;
use super::output;
use super::progress::Progress;
use super::standard_input::load_spec;
use crate::error::{Error, Result};
use crate::graph_cache::{CachedGraph, GraphCache, Trimmed, Verified};
use crate::plan::{ExecutionPlan, ModelSources};

/// Optimizes the graphs of a pipeline, and lists them.
///
/// # Errors
/// Whatever is wrong with the pipeline, the model directory or the runtime; [`Error::Io`] if the cache cannot be written.
pub fn optimize(args: &OptimizeArgs, global: &Global, out: &mut dyn Write) -> Result<()> {
    // As for `ldm-ort run`, Ctrl-C isn't taken over while standard input may be waited for.
    let spec = load_spec(&args.pipeline, args.overrides.to_overrides())?;
    output::warn(spec.old_names.warnings());
    let interrupt = Interrupt::install()?;
    let mut progress = Progress::new(global.quiet);
    let engine = global.library.engine()?;
    let cancel = interrupt.cancel();
    let sources = ModelSources::open(&spec)?;
    let (plan, runtime) = engine.plan(spec, &sources, &cancel, &mut |event| progress.notice(event))?;
    let openings = |own: &ExecutionPlan| -> Vec<(String, bool)> {
        let openings = own.openings().into_iter();
        openings.map(|opening| (opening.name(), own.cache_for(opening.kind).is_some())).collect()
    };
    let all: Vec<_> = plan.executions().flat_map(openings).collect();
    let left: Vec<_> = all.iter().filter(|(_, is_optimized)| !is_optimized).map(|(name, _)| name).collect();
    if left.len() == all.len() {
        return Err(Error::input(
            args.pipeline.display().to_string(),
            "none of its graphs can be optimized ahead",
            "only graphs on the CPU with the weights that they store are, and none with [device] optimize = false",
        ));
    }
    let graphs = engine.optimize(&plan, &runtime, &cancel, &mut |event| progress.notice(event))?;
    progress.clear();
    for name in left {
        output::say(&format!("{name} is opened as exported: it is not on the CPU, or its weights are changed"));
    }
    output::text(out, &table(&graphs))
}

/// Lists, verifies, trims or clears the cache.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, or an entry cannot be removed.
pub fn run(action: &CacheAction, global: &Global, out: &mut dyn Write) -> Result<()> {
    let engine = global.library.engine()?;
    output::warn(engine.take_warnings());
    let Some(cache) = engine.optimized_graphs()? else { return Ok(()) };
    match action {
        CacheAction::List { json: true } => {
            let entry = |entry: &CachedGraph| {
                json!({
                    "component": entry.component,
                    "source": entry.source,
                    "axes": entry.axes.iter().map(|(name, length)| (name.clone(), json!(length))).collect::<serde_json::Map<_, _>>(),
                    "bytes": entry.bytes(),
                    "runtime": entry.runtime,
                    "processor": entry.processor,
                    "made": entry.made,
                    "used": since_1970(cache.last_use(entry)),
                    "seconds": entry.seconds,
                    "stale": entry.stale(),
                    "folder": entry.folder(),
                })
            };
            let entries: Vec<_> = cache.entries()?.iter().map(entry).collect();
            output::text(out, &format!("{}\n", json!(entries)))
        }
        CacheAction::List { json: false } => {
            let entries = cache.entries()?;
            let sum = entries.iter().map(CachedGraph::bytes).sum();
            let text = match entries.len() {
                0 => format!("no optimized graphs in {}\n", cache.folder().display()),
                _ => format!("{}{} in {}\n", table(&entries), HumanBytes(sum), cache.folder().display()),
            };
            output::text(out, &text)
        }
        &CacheAction::Trim { to } => {
            let Trimmed { freed, left } = cache.trim(to)?;
            let in_use = if left > to { "; the rest is in use" } else { "" };
            let (freed, left) = (HumanBytes(freed), HumanBytes(left));
            output::text(out, &format!("{freed} freed in {}, {left} left{in_use}\n", cache.folder().display()))
        }
        &CacheAction::Verify { json } => verify(&cache, json, out),
        CacheAction::Clear { stale } => {
            let freed = cache.clear(|entry| !stale || entry.stale().is_some())?;
            output::text(out, &format!("{} freed in {}\n", HumanBytes(freed), cache.folder().display()))
        }
    }
}

/// Checks all that the cache holds.
///
/// # Errors
/// [`Error::Io`] if something is damaged, after all of it was checked.
fn verify(cache: &GraphCache, json: bool, out: &mut dyn Write) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut all = Vec::new();
    cache.verify(&interrupt.cancel(), |verified| all.push(verified.clone()))?;
    if json {
        let part = |part: &Verified| {
            json!({
                "path": part.path,
                "component": part.component,
                "bytes": part.bytes,
                "damaged": part.damage.as_ref().map(|damage| json!({ "path": damage.path, "problem": damage.problem })),
            })
        };
        output::text(out, &format!("{}\n", json!(all.iter().map(part).collect::<Vec<_>>())))?;
    } else {
        for part in &all {
            let what = part.component.as_deref().unwrap_or("model file");
            let bytes = HumanBytes(part.bytes).to_string();
            let line = match &part.damage {
                None => format!("ok       {what:<20} {bytes:>10}  {}\n", part.path.display()),
                Some(damage) => {
                    format!("damaged  {what:<20} {bytes:>10}  {} {}\n", damage.path.display(), damage.problem)
                }
            };
            output::text(out, &line)?;
        }
    }
    let damaged = all.iter().filter(|part| part.damage.is_some());
    let (graphs, models): (Vec<_>, Vec<_>) = damaged.partition(|part| part.component.is_some());
    if graphs.is_empty() && models.is_empty() {
        return Ok(());
    }
    let mut problem = format!("{} of {} checked are damaged", graphs.len() + models.len(), all.len());
    if !graphs.is_empty() {
        problem += "; optimized graphs are made again by the next run";
    }
    if !models.is_empty() {
        problem += "; copy or download the damaged model files again";
    }
    Err(Error::io(cache.folder(), "verifying", std::io::Error::new(std::io::ErrorKind::InvalidData, problem)))
}

fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn table(entries: &[CachedGraph]) -> String {
    let line = |entry: &CachedGraph| {
        let axes: Vec<_> = entry.axes.iter().map(|(name, length)| format!("{name}={length}")).collect();
        let stale = entry.stale().map(|why| format!("  ({why})")).unwrap_or_default();
        format!(
            "{:<20} {:>10}  {:>5.1} s  ONNX Runtime {}  {}{stale}\n    {}\n",
            entry.component,
            HumanBytes(entry.bytes()).to_string(),
            entry.seconds,
            entry.runtime,
            if axes.is_empty() { "any size".to_owned() } else { axes.join(" ") },
            entry.source.display(),
        )
    };
    entries.iter().map(line).collect()
}
