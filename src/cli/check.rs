//! `ldm-ort check`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::args::{CheckArgs, Global};
use super::interrupt::Interrupt;
use super::output::{self, warn as warnings};
use super::progress::Progress;
use super::run::LATENTS;
use super::standard_input::load_spec;
use crate::engine::{Engine, Event, Saver};
use crate::error::{Error, Result, count_of};
use crate::execution::ComponentVerification;

use crate::memory;
use crate::plan::{DefaultValue, ExecutionPlan, ModelPlan, Plan, RunPlan};

/// Checks a pipeline as far as that goes without running it, and with `--open` opens its graphs too, or with `--verify` compares them
/// with the CPU.
///
/// Everything that depends on ONNX Runtime (its providers, the formats and operators it takes) is checked if there is one
/// on this machine; none is fetched for that.
///
/// # Errors
/// Whatever is wrong with the pipeline file, the model directory, the files it names, the runtime or the providers.
pub fn check(args: &CheckArgs, global: &Global, out: &mut dyn Write) -> Result<()> {
    let (mut nothing, results) = (std::io::sink(), out);
    // With --json, stdout is for objects alone.
    let out: &mut dyn Write = if args.json { &mut nothing } else { &mut *results };
    let spec = load_spec(&args.pipeline, args.overrides.to_overrides())?;
    let mut plan = Plan::new(spec)?;
    let engine = global.library.engine()?;
    warnings(engine.take_warnings());
    plan.set_graph_cache(engine.optimized_graphs()?.as_ref());
    plan.require_cache()?;
    plan.check_inputs()?;
    for dir in (0..=plan.stages.len()).filter_map(|stages| plan.spec.folder(stages)) {
        Saver::check(dir)?;
    }
    if let Some(path) = &args.save_latents {
        output::require_place("--save-latents", path, "npy", LATENTS)?;
    }
    let runtime = engine.find_runtime(&plan.spec)?;
    match &runtime {
        Some(runtime) => {
            warnings(plan.fit_runtime(runtime)?);
            plan.check_operators(runtime)?;
        }
        None => plan.fit_pinned_runtime()?,
    }
    warn("", &plan.execution, &plan.request, &[])?;
    for stage in &plan.stages {
        warn(&format!("{}: ", stage.key), &stage.execution, &stage.request, &stage.warnings)?;
    }
    describe(&args.pipeline, &plan, out)?;
    if args.verify {
        return verify(plan, &engine, (global, args.json), results);
    }
    if !args.open {
        let without = match runtime {
            Some(_) => "opening the graphs (--open)",
            None => "ONNX Runtime, which is not on this machine yet (ldm-ort runtime install)",
        };
        return output::text(out, &format!("nothing wrong with it, as far as can be told without {without}\n"));
    }
    open(plan, &engine, global, out)
}

/// Prints the pipeline that would run: its models and sizes, what is corrected and decided for it, and its defaults.
fn describe(pipeline: &Path, plan: &Plan, out: &mut dyn Write) -> Result<()> {
    output::text(out, &format!("{}: {}\n", pipeline.display(), summary(&plan.model, &plan.request)))?;
    corrections("", &plan.request, out)?;
    for stage in &plan.stages {
        let summary = summary(&stage.model, &stage.request);
        output::text(
            out,
            &format!("{}: {summary}, beginning with the {} of the stage before\n", stage.key, stage.hand.name()),
        )?;
        corrections(&format!("{}: ", stage.key), &stage.request, out)?;
    }
    let models = || std::iter::once(("", &*plan.model)).chain(plan.stages.iter().map(|s| (s.key.as_str(), &*s.model)));
    for (key, model) in models() {
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        if model.decodes_tiny() {
            output::text(out, &format!("{key}images are decoded by tiny_vae_decoder\n"))?;
        }
        for kind in &model.upcast {
            let told = "computes in float32, not in half precision: its config.json has force_upcast";
            output::text(out, &format!("{key}{kind} {told}\n"))?;
        }
        if let Some(preview) = &model.preview {
            let every = if preview.every == 1 { "step".to_owned() } else { count_of(preview.every, "step") };
            output::text(out, &format!("{key}previews every {every} are made {}\n", preview.source))?;
        }
    }
    for plan in plan.executions() {
        for remark in plan.widening_remarks().into_iter().chain(plan.offload_remark()) {
            output::text(out, &format!("{remark}\n"))?;
        }
    }
    for (key, model) in models() {
        output::text(out, &defaults(key, model))?;
    }
    Ok(())
}

/// Opens all graphs, on the ONNX Runtime of this machine or one that is fetched for that.
fn open(mut plan: Plan, engine: &Engine, global: &Global, out: &mut dyn Write) -> Result<()> {
    let cancel = Interrupt::install()?.cancel();
    let mut progress = Progress::new(global.quiet);
    // A graph that is compared with the CPU first is opened twice.
    let (mut stage, mut placements) = (String::new(), Vec::<(String, String)>::new());
    let mut notice = |event| {
        match &event {
            Event::Stage { key, .. } => stage = format!("{key}."),
            Event::Loading { component, nodes, .. } if !nodes.is_empty() => {
                let name = format!("{stage}{component}");
                placements.retain(|(known, _)| *known != name);
                placements.push((name, placement(nodes)));
            }
            _ => {}
        }
        progress.notice(event);
    };
    let runtime = engine.load_runtime(&plan.spec, &cancel, &mut notice)?;
    warnings(plan.fit_runtime(&runtime)?);
    let opened = engine.try_open(&plan, &runtime, &cancel, &mut notice);
    for (name, placement) in &placements {
        output::text(out, &format!("{name}: {placement}\n"))?;
    }
    opened?;
    output::text(out, &format!("its graphs open on ONNX Runtime {}\n", runtime.version()))
}

/// The number of nodes that each provider took, such as `312 nodes on webgpu, 4 nodes on cpu`.
fn placement(nodes: &BTreeMap<String, usize>) -> String {
    let mut nodes: Vec<_> = nodes.iter().collect();
    nodes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let parts = nodes.iter().map(|(provider, count)| format!("{} on {provider}", count_of(**count, "node")));
    parts.collect::<Vec<_>>().join(", ")
}

/// Compares each component with the CPU, on the ONNX Runtime of this machine or one that is fetched for that.
fn verify(mut plan: Plan, engine: &Engine, (global, json): (&Global, bool), out: &mut dyn Write) -> Result<()> {
    let cancel = Interrupt::install()?.cancel();
    let mut progress = Progress::new(global.quiet);
    let mut printed = Ok(());
    let runtime = engine.load_runtime(&plan.spec, &cancel, &mut |event| progress.notice(event))?;
    warnings(plan.fit_runtime(&runtime)?);
    let bars = progress.bars();
    let verifications = engine.verify(&plan, &runtime, &cancel, &mut |event| match event {
        Event::Verified(verification) if printed.is_ok() => {
            let line = if json { verification.to_json().to_string() } else { verification.to_line() };
            printed = bars.suspend(|| output::text(out, &format!("{line}\n")));
        }
        other => progress.notice(other),
    })?;
    printed?;
    let mut wrong: Vec<_> = verifications.iter().filter_map(ComponentVerification::error).collect();
    match wrong.len() {
        0 => Ok(()),
        1 => Err(wrong.remove(0)),
        _ => Err(Error::Several(wrong)),
    }
}

/// The values of keys that the pipeline file leaves open, a line each.
fn defaults(stage: &str, model: &ModelPlan) -> String {
    let stage = if stage.is_empty() { String::new() } else { format!("{stage}.") };
    let value = |default: &DefaultValue| format!("{stage}{} = {}", default.key, default.value);
    let width = model.defaults.iter().map(|default| value(default).len()).max().unwrap_or(0);
    let line = |default: &DefaultValue| format!("    {:width$}  # {}\n", value(default), default.source);
    model.defaults.iter().map(line).collect()
}

/// Tells what is worth knowing of one model's part of a pipeline.
fn warn(stage: &str, plan: &ExecutionPlan, request: &RunPlan, more: &[String]) -> Result<()> {
    let of_prompts = plan.model.check_prompts(request.task.as_ref())?;
    let of_memory = match memory::available() {
        Some(free) => plan.check_free_memory(free)?,
        None => None,
    };
    for warning in plan.warnings().iter().chain(&of_prompts).chain(more).chain(&of_memory) {
        output::say(&format!("warning: {stage}{warning}"));
    }
    Ok(())
}

/// Prints the values of a scheduler's configuration that the pipeline class of the task corrects.
fn corrections(stage: &str, request: &RunPlan, out: &mut dyn Write) -> Result<()> {
    let mut corrections = request.scheduler.corrections.iter();
    corrections.try_for_each(|correction| output::text(out, &format!("{stage}scheduler: {correction}\n")))
}

/// Returns the lines about one model.
fn summary(model: &ModelPlan, request: &RunPlan) -> String {
    format!(
        "{} on {}, {} of {}×{} pixels, {} of {}",
        request.task.name(),
        model.dir.display(),
        count_of(request.total_images(), "image"),
        request.width,
        request.height,
        count_of(request.steps, "step"),
        request.scheduler.entry.name,
    )
}
