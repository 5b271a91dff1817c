//! `ldm-ort run`.

use std::io::Write;
use std::time::{Duration, Instant};

use ndarray::{Axis, stack};

use super::args::{Global, RunArgs};
use super::compare;
use super::graph_cache;
use super::interrupt::Interrupt;
use super::memory::Watch;
use super::output;
use super::preview::Previews;
use super::progress::Progress;
use super::replay::Replay;
use super::runtime;
use super::standard_input::{load_spec, read_prompts};
use super::writer::{ImageWriter, Pace, Shown, Writing};
use crate::denoise::Evaluations;
use crate::error::{Error, Result, count_of};
use crate::execution::{Event, Execution, Observer, Recorder, Saver, Timings};
use crate::npy;
use crate::plan::Plan;
use crate::session::{self, Flavor, Runtime, RuntimeOptions};
use crate::spec::Spec;

/// Runs a pipeline: loads it, makes its images, writes each as soon as it is finished and while the next is made.
///
/// `out` gets the images' paths, or with `--json` an object for each; everything else goes to standard error.
///
/// # Errors
/// Whatever is wrong with the pipeline, the model directory, the runtime or the run.
pub fn run(args: &RunArgs, global: &Global, out: &mut (dyn Write + Send)) -> Result<()> {
    // Standard input may be waited for, which Ctrl-C ends at once as long as it isn't taken over.
    let (spec, replay) = read_spec(args)?;
    let interrupt = Interrupt::install()?;
    let mut progress = Progress::new(global.quiet || args.json, interrupt.flag());
    let started = Instant::now();

    let mut memory = args.memory.then(Watch::new).transpose()?;
    let mut plan = Plan::new(spec)?;
    if let Some(replay) = &replay {
        replay.prepare(&mut plan)?;
    }
    let mut full = if args.compare { Some(compare::full(&plan)?) } else { None };
    let savers = (0..=plan.stages.len()).map(|stages| plan.spec.folder(stages).map(Saver::new).transpose());
    let savers = savers.collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.save_latents {
        output::require_place("--save-latents", path, "npy", LATENTS)?;
    }

    plan.set_graph_cache(graph_cache::cache(global)?.as_ref());
    plan.require_cache()?;
    let runtime = load_runtime(global, &plan, &interrupt)?;
    fit(&mut plan, &runtime)?;
    if let Some(full) = &mut full {
        full.fit_runtime(&runtime)?;
    }
    if let Some(replay) = &replay {
        replay.compare_engine(&plan, &runtime);
    }
    let found = started.elapsed().as_secs_f64();
    let opening = Instant::now();
    let recorder = Recorder::new(&plan, &runtime);
    let recorder = match &replay {
        Some(replay) => replay.recorder(recorder),
        None => recorder,
    };
    let mut load = |event: Event<'_>| {
        memory.iter_mut().for_each(|memory| memory.notice(&event));
        progress.notice(event)
    };
    let mut stages = Execution::load(&plan, &runtime, &interrupt.cancel(), &mut load)?;
    let opened = opening.elapsed().as_secs_f64();

    let mut writer = ImageWriter {
        savers,
        recorder,
        json: args.json,
        out,
        bars: progress.bars(),
        replay,
        latents: args.save_latents.as_ref().map(|_| Vec::new()),
        shown: if full.is_some() { Shown::Later(Vec::new()) } else { Shown::Alone },
        previews: None,
    };
    let (pace, waited) = (Pace::new(started), Duration::ZERO);
    let mut watched = Watched { progress: &mut progress, pace, memory, previews: None, waited };
    let cancel = interrupt.cancel();
    // The images of fewer evaluations come first: what a first run pays for must not count in their favour.
    preview(&plan, "", &mut writer, &mut watched);
    let (timings, full_timings) = match &full {
        None => {
            let run = |observer: &mut dyn Observer| stages.finish(&plan, &cancel, observer);
            (run_watched(run, &mut writer, &mut watched)?, None)
        }
        Some(full) => {
            let run = |observer: &mut dyn Observer| stages.run(&plan, &cancel, observer);
            let timings = run_watched(run, &mut writer, &mut watched)?;
            writer.recorder = writer.recorder.of(full);
            writer.shown = writer.shown.beside_the_next();
            preview(full, compare::SUFFIX, &mut writer, &mut watched);
            let run = |observer: &mut dyn Observer| stages.finish(full, &cancel, observer);
            (timings, Some(run_watched(run, &mut writer, &mut watched)?))
        }
    };
    let Watched { memory, waited, .. } = watched;
    if let Some(memory) = memory {
        memory.print();
    }
    if let Some((path, latents)) = args.save_latents.as_ref().zip(writer.latents) {
        let views: Vec<_> = latents.iter().map(|l| l.view()).collect();
        let all = stack(Axis(0), &views).map_err(|e| Error::input("--save-latents", e.to_string(), ""))?;
        npy::write_f32(path, all.view().into_dyn())?;
    }
    if !global.quiet {
        summary(&timings, found, opened, waited.as_secs_f64(), started.elapsed().as_secs_f64());
        if let Some(full) = full_timings {
            output::say(&format!("with all evaluations: {}", denoising(&full)));
        }
    }
    Ok(())
}

/// What sees the events of a run.
struct Watched<'a> {
    progress: &'a mut Progress,
    pace: Pace,
    memory: Option<Watch>,
    previews: Option<Previews>,
    /// How long the run waited for images to be written.
    waited: Duration,
}

/// Has previews of this plan's images written from now on, and removed with the images, where it asks for any.
fn preview(plan: &Plan, suffix: &'static str, writer: &mut ImageWriter<'_>, watched: &mut Watched<'_>) {
    let models = std::iter::once(&plan.model).chain(plan.stages.iter().map(|stage| &stage.model));
    let asks = models.into_iter().any(|model| model.preview.is_some());
    let saver = writer.savers.last().and_then(Option::as_ref).filter(|_| asks);
    watched.previews = saver.map(|saver| Previews::new(plan, saver, suffix));
    writer.previews.clone_from(&watched.previews);
}

/// Lets `run` make its images. Each is written while the next are made; when this returns, all are.
fn run_watched(
    run: impl FnOnce(&mut dyn Observer) -> Result<Timings>,
    writer: &mut ImageWriter<'_>,
    watched: &mut Watched<'_>,
) -> Result<Timings> {
    std::thread::scope(|scope| {
        let mut writing = Writing::begin(scope, writer)?;
        let result = run(&mut |event: Event<'_>| {
            watched.pace.notice(&event);
            watched.memory.iter_mut().for_each(|memory| memory.notice(&event));
            writing.notice(&event, &watched.pace)?;
            let Event::Preview { index, pixels, .. } = &event else { return watched.progress.notice(event) };
            watched.previews.iter_mut().for_each(|previews| previews.write(*index, pixels));
            let flow = watched.progress.notice(event);
            watched.pace.pause();
            flow
        });
        watched.progress.clear();
        watched.waited += writing.finish()?;
        result
    })
}

/// The pipeline of the command line: a file with flags over it, or the record in an image.
fn read_spec(args: &RunArgs) -> Result<(Spec, Option<Replay>)> {
    let overrides = args.to_overrides();
    match (&args.pipeline, &args.from) {
        (Some(path), _) => Ok((load_spec(path, overrides)?, None)),
        (None, Some(image)) => {
            let (replay, spec) = Replay::read(image, &read_prompts(overrides, 0)?)?;
            Ok((spec, Some(replay)))
        }
        (None, None) => Err(Error::input(
            "ldm-ort run",
            "no pipeline file was named",
            "name one (ldm-ort run pipeline.toml), or an image made by ldm-ort (--from IMAGE.png)",
        )),
    }
}

/// The content of the file of `--save-latents`, for errors.
pub(super) const LATENTS: &str = "latents are written as a NumPy array";

/// Fits a plan to this machine, and says which providers are skipped.
pub(super) fn fit(plan: &mut Plan, runtime: &Runtime) -> Result<()> {
    for note in plan.fit_runtime(runtime)? {
        output::say(&format!("warning: {note}"));
    }
    Ok(())
}

/// The runtime that a plan's run would load, if it is on this machine.
///
/// # Errors
/// [`Error::Runtime`] if it was named and cannot be used.
pub(super) fn found_runtime(global: &Global, plan: &Plan) -> Result<Option<Runtime>> {
    let options = RuntimeOptions { offline: true, ..global.library.to_options(flavor(&plan.spec)) };
    let search = session::search(&options);
    match (search.error(), search.selected()) {
        (Some(error), _) => Err(error),
        (None, None) => Ok(None),
        (None, Some(_)) => Runtime::load(&options).map(Some),
    }
}

/// Finds or fetches the runtime that a plan's providers need.
pub(super) fn load_runtime(global: &Global, plan: &Plan, interrupt: &Interrupt) -> Result<Runtime> {
    let options = global.library.to_options(flavor(&plan.spec));
    runtime::load(&RuntimeOptions { cancel: interrupt.cancel(), ..options }, global.quiet)
}

/// The build of the runtime that the providers of a pipeline need, the first of those that there are for this machine.
fn flavor(spec: &Spec) -> Option<Flavor> {
    let devices = std::iter::once(&spec.device).chain(spec.stages.iter().map(|stage| &stage.spec.device));
    let names = devices.flat_map(|device| device.providers.iter().chain(device.components.values().flatten()));
    let mut flavors = names.filter_map(|name| session::find_provider(name).ok()?.flavor);
    flavors.find(|flavor| *flavor != Flavor::Cpu && flavor.is_built_here())
}

fn summary(timings: &Timings, found: f64, opened: f64, saving: f64, total: f64) {
    let Timings { open, prepare, preview, decode, .. } = *timings;
    let opened = opened + open;
    let mut denoising = denoising(timings);
    if preview > 0.0 {
        denoising.push_str(&format!(" · previews {preview:.2} s"));
    }
    output::say(&format!(
        "runtime {found:.2} s · model {opened:.2} s · prompts {prepare:.2} s · {denoising} · decoding {decode:.2} s · \
         writing {saving:.2} s · in all {total:.2} s"
    ));
}

/// How long denoising took, for how many steps, and of how many evaluations of the model where some were left out.
fn denoising(timings: &Timings) -> String {
    let Timings { denoise, calls, evaluations, .. } = *timings;
    let rate = if denoise > 0.0 { calls as f64 / denoise } else { 0.0 };
    let evaluations = match evaluations {
        Evaluations { made, shallow: 0, of } if made < of => format!(", {made} of {}", count_of(of, "evaluation")),
        Evaluations { made, shallow, of } if made < of => {
            format!(", {made} of {of} evaluations and {shallow} of the shallow layers alone")
        }
        _ => String::new(),
    };
    format!("denoising {denoise:.2} s ({}{evaluations}, {rate:.1}/s)", count_of(calls, "step"))
}
