//! `ldm-ort check`.

use std::io::Write;

use super::args::{CheckArgs, Global};
use super::interrupt::Interrupt;
use super::output;
use super::prepared;
use super::progress::Progress;
use super::run::load_runtime;
use super::standard_input::load_spec;
use crate::error::Result;
use crate::memory;
use crate::pipeline::{Saver, Stages};
use crate::plan::{ModelPlan, Plan, Request};

/// Checks a pipeline as far as that goes without running it, and with `--open` opens its graphs too.
///
/// # Errors
/// Whatever is wrong with the pipeline file or the model directory; with `--open`, with the runtime and the providers.
pub fn check(args: &CheckArgs, global: &Global, out: &mut dyn Write) -> Result<()> {
    let spec = load_spec(&args.pipeline, args.overrides.to_overrides())?;
    let mut plan = Plan::new(spec)?;
    plan.keep_prepared(prepared::cache(global)?.as_ref());
    warn("", &plan.model, &plan.request, &[])?;
    for stage in &plan.stages {
        warn(&format!("{}: ", stage.key), &stage.model, &stage.request, &stage.warnings)?;
    }
    for dir in (0..=plan.stages.len()).filter_map(|stages| plan.spec.folder(stages)) {
        Saver::check(dir)?;
    }
    output::text(out, &format!("{}: {}\n", args.pipeline.display(), summary(&plan.model, &plan.request)))?;
    for stage in &plan.stages {
        let summary = summary(&stage.model, &stage.request);
        output::text(
            out,
            &format!("{}: {summary}, beginning with the {} of the stage before\n", stage.key, stage.hand.name()),
        )?;
    }
    let models = std::iter::once(("", &plan.model)).chain(plan.stages.iter().map(|s| (s.key.as_str(), &s.model)));
    for (key, model) in models {
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        if model.decodes_small() {
            output::text(out, &format!("{key}pictures are decoded by small_decoder\n"))?;
        }
        if let Some(preview) = &model.preview {
            let every = preview.every;
            output::text(out, &format!("{key}previews every {every} steps are made {}\n", preview.source))?;
        }
    }
    if !args.open {
        return output::text(out, "nothing wrong with it, as far as can be told without opening the graphs (--open)\n");
    }
    let interrupt = Interrupt::install()?;
    let mut progress = Progress::new(global.quiet, interrupt.flag());
    let runtime = load_runtime(global, &plan, &interrupt)?;
    let cancel = interrupt.cancel();
    Stages::load(&plan, &runtime, &cancel, &mut progress)?.open_all(&plan, &cancel, &mut progress)?;
    output::text(out, &format!("its graphs open on ONNX Runtime {}\n", runtime.version()))
}

/// Tells what is worth knowing of one model's part of a pipeline.
fn warn(stage: &str, model: &ModelPlan, request: &Request, more: &[String]) -> Result<()> {
    let of_prompts = model.check_prompts(request.task.as_ref())?;
    let of_memory = match memory::available() {
        Some(free) => model.check_free_memory(free)?,
        None => None,
    };
    for warning in model.warnings().iter().chain(&of_prompts).chain(more).chain(&of_memory) {
        output::say(&format!("warning: {stage}{warning}"));
    }
    Ok(())
}

/// What one model does.
fn summary(model: &ModelPlan, request: &Request) -> String {
    format!(
        "{} on {}, {} picture{} of {}×{} pixels, {} steps of {}",
        request.task.name(),
        model.dir.display(),
        request.pictures(),
        if request.pictures() == 1 { "" } else { "s" },
        request.width,
        request.height,
        request.steps,
        request.scheduler.entry.name,
    )
}
