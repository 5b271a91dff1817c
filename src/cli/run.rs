//! `ldm-ort run`.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use ndarray::{Axis, stack};

use super::args::{Global, RunArgs};
use super::compare;
use super::contact_sheet::ContactSheets;
use super::interrupt::Interrupt;
use super::memory::Watch;
use super::output::{self, warn};
use super::preview::Previews;
use super::progress::Progress;
use super::remaining;
use super::requests;
use super::requests::read_prompts_file;
use super::standard_input::{NAME, load_spec, read_prompts};
use super::writer::{ImageWriter, Pace, Presentation, Writing};
use crate::denoise::Evaluations;
use crate::engine::{Event, Pipeline, Replay, Request, Saver, model_spec};
use crate::error::{Error, Result, count_of};
use crate::execution::Timings;
use crate::npy;
use crate::plan::FLOAT32;
use crate::plan::Plan;
use crate::session::Cancel;
use crate::spec::Spec;

/// Runs a pipeline: loads it, makes its images, writes each as soon as it is finished and while the next is made.
///
/// `out` receives the images' paths, or with `--json` an object for each; everything else goes to standard error.
///
/// # Errors
/// Whatever is wrong with the pipeline, the model directory, the runtime or the run.
pub fn run(args: &RunArgs, global: &Global, out: &mut (dyn Write + Send)) -> Result<()> {
    // Standard input may be waited for, which Ctrl-C ends at once as long as it isn't taken over.
    let (spec, replay) = read_spec(args)?;
    let interrupt = Interrupt::install()?;
    let cancel = interrupt.cancel();
    let started = Instant::now();
    check_outputs(args, &spec)?;
    requests::check(args)?;
    let form = args.form()?;
    let memory = args.memory.then(Watch::new).transpose()?;
    let mut watched = Watched {
        progress: Progress::new(global.quiet || args.json),
        pace: Pace::new(started),
        memory,
        previews: None,
        waited: Duration::ZERO,
    };
    let engine = global.library.engine()?;
    let mut pipeline = engine.open_for_one_run(spec, &cancel, &mut |event| watched.notice(event))?;
    let mut request = Request::new();
    if let Some(replay) = &replay {
        warn(replay.prepare(&mut pipeline)?);
        request = replay.request(&pipeline.plan().spec);
    }
    let (requests, most_images) = requests::split(args, request, &pipeline)?;
    let plan = pipeline.plan();
    let saver = |dir: &Path| Saver::new(dir).map(|saver| saver.with_form(form.0, form.1.clone()));
    let savers = (0..=plan.stages.len()).map(|stages| plan.spec.folder(stages).map(&saver).transpose());
    let mut writer = ImageWriter {
        savers: savers.collect::<Result<Vec<_>>>()?,
        json: args.json,
        out,
        bars: watched.progress.bars(),
        replay,
        latents: args.save_latents.as_ref().map(|_| Vec::new()),
        shown: if args.compare { Presentation::Later(Vec::new()) } else { Presentation::Alone },
        previews: None,
        first_index: 0,
        sheets: contact_sheets(args, most_images)?,
    };
    let (found, opened) = pipeline.opening_seconds();
    let precision = pipeline.precision();
    let (timings, full_timings) = make(pipeline, &requests, args.compare, &mut writer, &mut watched, &cancel)?;
    let Watched { memory, waited, .. } = watched;
    if let Some(memory) = memory {
        memory.print();
    }
    write_collected(args, writer, global.quiet)?;
    if !global.quiet {
        summary(&precision, &timings, found, opened, waited.as_secs_f64(), started.elapsed().as_secs_f64());
        if let Some(full) = full_timings {
            output::say(&format!("with all evaluations: {}", denoising(&full)));
        }
    }
    Ok(())
}

/// Makes the images, and with `--compare` each a second time with all evaluations.
fn make(
    mut pipeline: Pipeline,
    requests: &[Request],
    compares: bool,
    writer: &mut ImageWriter<'_>,
    watched: &mut Watched,
    cancel: &Cancel,
) -> Result<(Timings, Option<Timings>)> {
    if !compares {
        return Ok((make_all(pipeline, requests, "", writer, watched, cancel)?, None));
    }
    // The images of fewer evaluations come first, so that what a first run pays for does not count in their favor.
    let seed = pipeline.plan().request.seed;
    let requests: Vec<_> = requests.iter().map(|request| request.clone().seed(seed)).collect();
    let timings = make_some(&mut pipeline, &requests, requests.len(), "", writer, watched, cancel)?;
    writer.shown.show_beside();
    writer.first_index = 0;
    let requests: Vec<_> = requests.into_iter().map(Request::all_evaluations).collect();
    Ok((timings, Some(make_all(pipeline, &requests, compare::SUFFIX, writer, watched, cancel)?)))
}

/// Makes the images of the requests, and unloads each graph after its last use.
fn make_all(
    mut pipeline: Pipeline,
    requests: &[Request],
    suffix: &'static str,
    writer: &mut ImageWriter<'_>,
    watched: &mut Watched,
    cancel: &Cancel,
) -> Result<Timings> {
    let Some((last, others)) = requests.split_last() else { return Ok(Timings::default()) };
    let mut timings = make_some(&mut pipeline, others, 1, suffix, writer, watched, cancel)?;
    begin_request(&pipeline.plan_of(last)?, suffix, writer, watched);
    watched.progress.begin_request(0);
    let run = |observer: &mut dyn FnMut(Event)| pipeline.run_last(last, cancel, observer);
    requests::add_timings(&mut timings, &run_watched(run, writer, watched, cancel)?);
    Ok(timings)
}

/// Makes the images of the requests, after which at least `left` more follow.
fn make_some(
    pipeline: &mut Pipeline,
    requests: &[Request],
    left: usize,
    suffix: &'static str,
    writer: &mut ImageWriter<'_>,
    watched: &mut Watched,
    cancel: &Cancel,
) -> Result<Timings> {
    let mut timings = Timings::default();
    for (at, request) in requests.iter().enumerate() {
        let plan = pipeline.plan_of(request)?;
        begin_request(&plan, suffix, writer, watched);
        watched.progress.begin_request(requests.len() - at - 1 + left);
        let run = |observer: &mut dyn FnMut(Event)| pipeline.run(request, cancel, observer);
        requests::add_timings(&mut timings, &run_watched(run, writer, watched, cancel)?);
        writer.first_index += plan.request.total_images();
    }
    Ok(timings)
}

/// Requires that what the run writes can be written, and that there is something to compare, before anything is opened.
fn check_outputs(args: &RunArgs, spec: &Spec) -> Result<()> {
    if args.compare {
        compare::require_fewer_evaluations(spec)?;
    }
    for dir in (0..=spec.stages.len()).filter_map(|stages| spec.folder(stages)) {
        Saver::check(dir)?;
    }
    match &args.save_latents {
        Some(path) => output::require_place("--save-latents", path, "npy", LATENTS),
        None => Ok(()),
    }
}

/// The parts of the command that see the events of a run.
struct Watched {
    progress: Progress,
    pace: Pace,
    memory: Option<Watch>,
    previews: Option<Previews>,
    /// The time that the run waited for images to be written.
    waited: Duration,
}

impl Watched {
    fn notice(&mut self, event: Event) {
        self.pace.notice(&event);
        self.memory.iter_mut().for_each(|memory| memory.notice(&event));
        self.progress.notice(event);
    }
}

/// Writes the files that hold something of all images: the latents and the contact sheets.
fn write_collected(args: &RunArgs, writer: ImageWriter<'_>, is_quiet: bool) -> Result<()> {
    if let Some((path, latents)) = args.save_latents.as_ref().zip(writer.latents) {
        let views: Vec<_> = latents.iter().map(|l| l.view()).collect();
        let all = stack(Axis(0), &views).map_err(|e| Error::input("--save-latents", e.to_string(), ""))?;
        npy::write_f32(path, all.view().into_dyn())?;
    }
    if let Some((sheets, saver)) = writer.sheets.zip(writer.savers.last().and_then(Option::as_ref)) {
        for path in sheets.write(saver)?.iter().filter(|_| !is_quiet) {
            output::say(&format!("contact sheet: {}", path.display()));
        }
    }
    Ok(())
}

/// The contact sheets of a sweep. A sweep of too many images has none.
fn contact_sheets(args: &RunArgs, most_images: usize) -> Result<Option<ContactSheets>> {
    if args.sweep.is_empty() {
        return Ok(None);
    }
    let sheets = ContactSheets::new(requests::sweeps(args)?, most_images);
    if sheets.is_none() {
        warn(["no contact sheet is written: the sweep has too many images for one"]);
    }
    Ok(sheets)
}

/// Begins a request: has previews of its images written from now on, and removed with the images, if it asks for any, and
/// its images added to the contact sheets.
fn begin_request(plan: &Plan, suffix: &'static str, writer: &mut ImageWriter<'_>, watched: &mut Watched) {
    let models = std::iter::once(&plan.model).chain(plan.stages.iter().map(|stage| &stage.model));
    let asks = models.into_iter().any(|model| model.preview.is_some());
    let saver = writer.savers.last().and_then(Option::as_ref).filter(|_| asks);
    watched.previews = saver.map(|saver| Previews::new(plan, saver, suffix, writer.first_index));
    writer.previews.clone_from(&watched.previews);
    if let Some(sheets) = &mut writer.sheets {
        sheets.begin_request(plan.request.images);
    }
}

/// Lets `run` make its images. Each is written while the next are made; when this returns, all are.
fn run_watched(
    run: impl FnOnce(&mut dyn FnMut(Event)) -> Result<Timings>,
    writer: &mut ImageWriter<'_>,
    watched: &mut Watched,
    cancel: &Cancel,
) -> Result<Timings> {
    std::thread::scope(|scope| {
        let mut writing = Writing::begin(scope, writer, cancel)?;
        let result = run(&mut |event| {
            writing.notice(&event, &watched.pace);
            let preview = match &event {
                Event::Preview { image, width, height, rgb, .. } => {
                    watched.previews.iter_mut().for_each(|previews| previews.write(*image, *width, *height, rgb));
                    true
                }
                _ => false,
            };
            watched.notice(event);
            if preview {
                watched.pace.pause();
            }
        });
        watched.progress.clear();
        watched.waited += writing.finish()?;
        result
    })
}

/// The content of the file of `--save-latents`, for errors.
pub(super) const LATENTS: &str = "latents are written as a NumPy array";

/// The pipeline of the command line: a file with flags over it, or the record in an image.
fn read_spec(args: &RunArgs) -> Result<(Spec, Option<Replay>)> {
    let mut overrides = args.to_overrides();
    if let Some(file) = &args.prompts_file {
        if file.as_os_str() == NAME && args.uses_standard_input() {
            return Err(Error::input(
                "--prompts-file -",
                "standard input is named more than once, and it can be read once",
                "give one of them as a file or as text",
            ));
        }
        overrides.prompts.extend(read_prompts_file(file)?);
    }
    match (&args.pipeline, &args.from) {
        (Some(dir), _) if dir.is_dir() => Ok((model_spec(dir, &read_prompts(overrides, 0)?)?, None)),
        (Some(path), _) => Ok((load_spec(path, overrides)?, None)),
        (None, Some(image)) => {
            let (replay, spec, warnings) = Replay::read(image, &read_prompts(overrides, 0)?)?;
            warn(warnings);
            Ok((spec, Some(replay)))
        }
        (None, None) => Err(Error::input(
            "ldm-ort run",
            "no pipeline file was named",
            "name one (ldm-ort run pipeline.toml), a model directory, or an image made by ldm-ort (--from IMAGE.png)",
        )),
    }
}

fn summary(precision: &str, timings: &Timings, found: f64, opened: f64, saving: f64, total: f64) {
    let Timings { open, prepare, preview, decode, tiled, .. } = *timings;
    let tiles = if tiled > 0 { format!(" ({} in tiles)", count_of(tiled, "image")) } else { String::new() };
    let opened = opened + open;
    let mut denoising = denoising(timings);
    if preview > 0.0 {
        denoising.push_str(&format!(" · previews {preview:.2} s"));
    }
    output::say(&format!(
        "{}runtime {found:.2} s · model {opened:.2} s · prompts {prepare:.2} s · {denoising} · decoding {decode:.2} s{tiles} · \
         writing {saving:.2} s · in all {total:.2} s",
        if precision == FLOAT32 { String::new() } else { format!("{precision} · ") }
    ));
}

/// Returns the seconds of denoising, its steps, and its evaluations of the model if some were left out.
fn denoising(timings: &Timings) -> String {
    let Timings { denoise, calls, evaluations, .. } = *timings;
    let rate = if calls > 0 { remaining::rate(denoise / calls as f64) } else { String::new() };
    let evaluations = match evaluations {
        Evaluations { made, shallow: 0, total } if made < total => {
            format!(", {made} of {}", count_of(total, "evaluation"))
        }
        Evaluations { made, shallow, total } if made < total => {
            format!(", {made} of {total} evaluations and {shallow} of the shallow layers alone")
        }
        _ => String::new(),
    };
    format!("denoising {denoise:.2} s ({}{evaluations}, {rate})", count_of(calls, "step"))
}
