//! `ldm-ort check`.

use std::io::Write;

use super::args::{CheckArgs, Global};
use super::interrupt::Interrupt;
use super::output;
use super::prepared;
use super::progress::Progress;
use super::run::load_runtime;
use crate::error::Result;
use crate::pipeline::{Pipeline, Saver};
use crate::plan::Plan;
use crate::spec::Spec;

/// Checks a pipeline as far as that goes without running it, and with `--open` opens its graphs too.
///
/// # Errors
/// Whatever is wrong with the pipeline file or the model directory; with `--open`, with the runtime and the providers.
pub fn check(args: &CheckArgs, global: &Global, out: &mut dyn Write) -> Result<()> {
    let spec = Spec::load(&args.pipeline, &args.overrides.to_overrides())?;
    let mut plan = Plan::new(spec)?;
    let of_prompts = plan.model.check_prompts(plan.request.task.as_ref())?;
    for warning in plan.model.warnings().into_iter().chain(of_prompts) {
        output::say(&format!("warning: {warning}"));
    }
    Saver::check(&plan.spec.output.dir)?;
    let request = &plan.request;
    output::text(
        out,
        &format!(
            "{}: {} on {}, {} picture{} of {}×{} pixels, {} steps of {}\n",
            args.pipeline.display(),
            request.task.name(),
            plan.model.dir.display(),
            request.pictures(),
            if request.pictures() == 1 { "" } else { "s" },
            request.width,
            request.height,
            request.steps,
            request.scheduler.entry.name,
        ),
    )?;
    if !args.open {
        return output::text(out, "nothing wrong with it, as far as can be told without opening the graphs (--open)\n");
    }
    let interrupt = Interrupt::install()?;
    let mut progress = Progress::new(global.quiet, interrupt.flag());
    let runtime = load_runtime(global, &plan, &interrupt)?;
    plan.model.prepared = prepared::cache(global)?;
    let cancel = interrupt.cancel();
    Pipeline::load(plan.model, &runtime, &cancel, &mut progress)?.open_all(&cancel, &mut progress)?;
    output::text(out, &format!("its graphs open on ONNX Runtime {}\n", runtime.version()))
}
