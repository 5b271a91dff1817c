//! `ldm-ort run`.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use ndarray::{ArrayD, Axis, stack};
use serde_json::{Value, json};

use super::args::{Global, RunArgs};
use super::compare::{self, Comparison, Made};
use super::interrupt::Interrupt;
use super::memory::Watch;
use super::output;
use super::prepared;
use super::preview::Previews;
use super::progress::Progress;
use super::runtime;
use crate::denoise::Evaluations;
use crate::error::{Error, Result};
use crate::metadata::{self, FewerEvaluations, Record};
use crate::npy;
use crate::pipeline::{Event, Observer, Picture, Recorder, Saver, Stages, Timings};
use crate::plan::Plan;
use crate::session::{self, Flavour, Runtime, RuntimeOptions};
use crate::spec::Spec;

/// Runs a pipeline: loads it, makes its pictures, writes each as soon as it is finished.
///
/// `out` gets the pictures' paths, or with `--json` an object for each; everything else goes to standard error.
///
/// # Errors
/// Whatever is wrong with the pipeline, the model directory, the runtime or the run.
pub fn run(args: &RunArgs, global: &Global, out: &mut dyn Write) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut progress = Progress::new(global.quiet || args.json, interrupt.flag());
    let started = Instant::now();

    let mut memory = args.memory.then(Watch::new).transpose()?;
    let (spec, record) = read_spec(args)?;
    let mut plan = Plan::new(spec)?;
    if let Some(record) = &record {
        // Where the pictures share a file, the record holds the whole pipeline, and this is one of its pictures.
        plan.request.only = plan.spec.shares_a_file().then_some(record.index);
        let now = plan.spec.input_digests()?;
        for (key, digest) in &record.inputs {
            if now.get(key) != Some(digest) {
                output::say(&format!(
                    "warning: {key} is not the file that the picture was made with; it will be another picture"
                ));
            }
        }
    }
    let full = if args.compare { Some(compare::full(&plan)?) } else { None };
    let savers = (0..=plan.stages.len()).map(|stages| plan.spec.folder(stages).map(Saver::new).transpose());
    let savers = savers.collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.save_latents {
        output::require_place("--save-latents", path, "latents.npy")?;
    }

    plan.keep_prepared(prepared::cache(global)?.as_ref());
    let runtime = load_runtime(global, &plan, &interrupt)?;
    let found = started.elapsed().as_secs_f64();
    let opening = Instant::now();
    let recorder = Recorder::new(&plan, &runtime);
    let mut load = |event: Event<'_>| {
        memory.iter_mut().for_each(|memory| memory.notice(&event));
        progress.notice(event)
    };
    let mut stages = Stages::load(&plan, &runtime, &interrupt.cancel(), &mut load)?;
    let opened = opening.elapsed().as_secs_f64();

    let mut writer = PictureWriter {
        savers,
        recorder,
        args,
        out,
        made_with: record.map(|record| models_of(&record)),
        latents: Vec::new(),
        shown: if full.is_some() { Shown::Later(Vec::new()) } else { Shown::Alone },
        seconds: 0.0,
        failed: None,
        pace: Pace::new(started),
        memory,
        previews: None,
    };
    let cancel = interrupt.cancel();
    // The pictures of fewer evaluations come first: what a first run pays for must not count in their favour.
    let (timings, full_timings) = match &full {
        None => {
            writer.preview(&plan, "");
            let run = |observer: &mut dyn Observer| stages.finish(&plan, &cancel, observer);
            (run_watched(run, &mut writer, &mut progress)?, None)
        }
        Some(full) => {
            writer.preview(&plan, "");
            let run = |observer: &mut dyn Observer| stages.run(&plan, &cancel, observer);
            let timings = run_watched(run, &mut writer, &mut progress)?;
            writer.recorder = writer.recorder.of(full);
            writer.shown = writer.shown.beside_the_next();
            writer.preview(full, compare::SUFFIX);
            let run = |observer: &mut dyn Observer| stages.finish(full, &cancel, observer);
            (timings, Some(run_watched(run, &mut writer, &mut progress)?))
        }
    };
    let PictureWriter { latents, seconds: saving, memory, .. } = writer;
    if let Some(memory) = memory {
        memory.print();
    }
    if let Some(path) = &args.save_latents {
        let views: Vec<_> = latents.iter().map(|l| l.view()).collect();
        let all = stack(Axis(0), &views).map_err(|e| Error::input("--save-latents", e.to_string(), ""))?;
        npy::write_f32(path, all.view().into_dyn())?;
    }
    if !global.quiet {
        summary(&timings, found, opened, saving, started.elapsed().as_secs_f64());
        if let Some(full) = full_timings {
            output::say(&format!("with all evaluations: {}", denoising(&full)));
        }
    }
    Ok(())
}

/// Lets `run` make its pictures, writing each as soon as it is finished.
fn run_watched(
    run: impl FnOnce(&mut dyn Observer) -> Result<Timings>,
    writer: &mut PictureWriter<'_>,
    progress: &mut Progress,
) -> Result<Timings> {
    let result = run(&mut |event: Event<'_>| {
        writer.pace.notice(&event);
        writer.memory.iter_mut().for_each(|memory| memory.notice(&event));
        let written = match &event {
            Event::Picture(picture) => writer.write(picture, true),
            Event::Kept(picture) => writer.write(picture, false),
            _ => Ok(()),
        };
        if let Err(error) = written {
            writer.failed = Some(error);
            return ControlFlow::Break(());
        }
        writer.previews.iter_mut().for_each(|previews| previews.notice(&event));
        if matches!(event, Event::Preview { .. }) {
            let flow = progress.notice(event);
            writer.pace.pause();
            return flow;
        }
        progress.notice(event)
    });
    progress.clear();
    match writer.failed.take() {
        Some(error) => Err(error),
        None => result,
    }
}

/// The pipeline of the command line: a file with flags over it, or the record in a picture.
fn read_spec(args: &RunArgs) -> Result<(Spec, Option<Record>)> {
    let overrides = args.overrides.to_overrides();
    match (&args.pipeline, &args.from) {
        (Some(path), _) => Ok((Spec::load(path, &overrides)?, None)),
        (None, Some(picture)) => {
            let record = metadata::read_png(picture)?;
            // The record's paths are absolute, and it has no [output]: it says what a picture is, not where it went.
            let spec = Spec::parse(&record.pipeline, None, &overrides)?;
            Ok((spec, Some(record)))
        }
        (None, None) => Err(Error::input(
            "ldm-ort run",
            "no pipeline file was named",
            "name one (ldm-ort run pipeline.toml), or a picture made by ldm-ort (--from PICTURE.png)",
        )),
    }
}

/// The digests of the models that a picture was made with.
fn models_of(record: &Record) -> Vec<String> {
    let stages = record.stages.iter().map(|stage| stage.model_digest.clone());
    std::iter::once(record.model_digest.clone()).chain(stages).collect()
}

/// Finds or fetches the runtime that a plan's providers need.
pub(super) fn load_runtime(global: &Global, plan: &Plan, interrupt: &Interrupt) -> Result<Runtime> {
    let options = global.library.to_options(flavour(&plan.spec));
    runtime::load(&RuntimeOptions { cancel: interrupt.cancel(), ..options }, global.quiet)
}

/// The build of the runtime that the providers of a pipeline need.
fn flavour(spec: &Spec) -> Option<Flavour> {
    let devices = std::iter::once(&spec.device).chain(spec.stages.iter().map(|stage| &stage.spec.device));
    let names = devices.flat_map(|device| device.providers.iter().chain(device.components.values().flatten()));
    let mut flavours = names.filter_map(|name| session::find_provider(name).ok()?.flavour);
    flavours.find(|flavour| *flavour != Flavour::Cpu)
}

/// How a finished picture is shown.
enum Shown {
    /// By itself, as soon as it is written.
    Alone,
    /// Not yet: it waits for another to be compared with.
    Later(Vec<Made>),
    /// Beside the picture that waited for it.
    Beside(Vec<Made>),
}

impl Shown {
    fn beside_the_next(self) -> Self {
        match self {
            Self::Later(made) => Self::Beside(made),
            other => other,
        }
    }
}

/// Writes each finished picture and its line.
struct PictureWriter<'a> {
    /// One a stage whose pictures are written, that of the file's own tables first.
    savers: Vec<Option<Saver>>,
    recorder: Recorder,
    args: &'a RunArgs,
    out: &'a mut dyn Write,
    /// The digests of the models that the picture to be made again was made with.
    made_with: Option<Vec<String>>,
    latents: Vec<ArrayD<f32>>,
    shown: Shown,
    seconds: f64,
    failed: Option<Error>,
    pace: Pace,
    memory: Option<Watch>,
    previews: Option<Previews>,
}

/// When what happened, for `--json`.
struct Pace {
    started: Instant,
    /// When the picture's denoising began, in seconds from the program's start.
    denoising: f64,
    /// When the call before the next one ended.
    last: f64,
    /// Seconds of each call of the denoiser.
    calls: Vec<f64>,
}

impl Pace {
    fn new(started: Instant) -> Self {
        Self { started, denoising: 0.0, last: 0.0, calls: Vec::new() }
    }

    fn notice(&mut self, event: &Event<'_>) {
        let now = self.started.elapsed().as_secs_f64();
        match event {
            Event::Denoising { .. } => {
                (self.denoising, self.last) = (now, now);
                self.calls.clear();
            }
            Event::Step { .. } => {
                self.calls.push(now - self.last);
                self.last = now;
            }
            _ => {}
        }
    }

    /// What was done until now is no part of the next call.
    fn pause(&mut self) {
        self.last = self.started.elapsed().as_secs_f64();
    }
}

impl PictureWriter<'_> {
    /// Writes previews of this plan's pictures from now on, where it asks for any.
    fn preview(&mut self, plan: &Plan, suffix: &'static str) {
        let models = std::iter::once(&plan.model).chain(plan.stages.iter().map(|stage| &stage.model));
        let asks = models.into_iter().any(|model| model.preview.is_some());
        let saver = self.savers.last().and_then(Option::as_ref).filter(|_| asks);
        self.previews = saver.map(|saver| Previews::new(plan, saver, suffix));
    }

    fn write(&mut self, picture: &Picture, is_last: bool) -> Result<()> {
        let start = Instant::now();
        let record = self.recorder.record(picture)?;
        if is_last && self.made_with.take().is_some_and(|digests| digests != models_of(&record)) {
            output::say(
                "warning: the model's files are not those the picture was made with; it will be another picture",
            );
        }
        let is_full = matches!(self.shown, Shown::Beside(_));
        let mut suffix = match picture.stages.checked_sub(1) {
            _ if is_last => String::new(),
            None => "-base".to_owned(),
            Some(stage) => format!("-stage-{stage}"),
        };
        if is_full {
            suffix.push_str(compare::SUFFIX);
        }
        let Some(Some(saver)) = self.savers.get(picture.stages) else { return Ok(()) };
        let path = saver.save(picture, &suffix, &record)?;
        if is_last && !is_full && self.args.save_latents.is_some() {
            self.latents.push(picture.latents.clone());
        }
        self.seconds += start.elapsed().as_secs_f64();
        let object = self.object(picture, &path, &record)?;
        let (index, stages, seconds) = (picture.index, picture.stages, picture.seconds);
        match &mut self.shown {
            Shown::Alone if self.args.json => self.line(&object.to_string()),
            Shown::Alone => self.line(&path.display().to_string()),
            Shown::Later(made) => {
                made.push(Made { index, stages, pixels: picture.pixels.clone(), path, seconds, object });
                Ok(())
            }
            Shown::Beside(made) => {
                let is_it = |made: &&Made| (made.index, made.stages) == (index, stages);
                let Some(made) = made.iter().find(is_it) else { return Ok(()) };
                let comparison = Comparison::new(made, picture, &path);
                let line = if self.args.json { comparison.json() } else { comparison.text() };
                self.line(&line)
            }
        }
    }

    fn line(&mut self, line: &str) -> Result<()> {
        match writeln!(self.out, "{line}").and_then(|()| self.out.flush()) {
            // A reader that has seen enough, such as `head`, does not make the run a failure.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|e| Error::io("standard output", "writing", e)),
        }
    }

    fn object(&self, picture: &Picture, path: &Path, record: &Record) -> Result<Value> {
        let mut object = json!({
            "path": path.to_string_lossy(),
            "index": picture.index,
            "seed": picture.seed,
            "prompt": picture.prompt,
            "width": picture.pixels.width(),
            "height": picture.pixels.height(),
            "steps": self.recorder.steps(),
            "calls": picture.calls,
            "seconds": picture.seconds,
            "timings": {
                "until_denoising": self.pace.denoising,
                "calls": self.pace.calls,
                "until_decoded": self.pace.started.elapsed().as_secs_f64() - self.pace.last,
            },
        });
        if self.savers.len() > 1 {
            let mut stages = Vec::new();
            for stage in &record.stages {
                let mut told = json!({"task": stage.task, "model": stage.model, "steps": stage.steps});
                tell_fewer(&mut told, stage.fewer_evaluations.as_ref())?;
                stages.push(told);
            }
            object["stages"] = stages.into();
        }
        if let Some(decoder) = record.small_decoder() {
            object["decoder"] = decoder.into();
        }
        tell_fewer(&mut object, record.fewer_evaluations.as_ref())?;
        Ok(object)
    }
}

/// Adds to a picture's or a stage's object how the model was evaluated less often, where it was.
fn tell_fewer(object: &mut Value, fewer: Option<&FewerEvaluations>) -> Result<()> {
    if let Some(fewer) = fewer {
        object["fewer_evaluations"] =
            serde_json::to_value(fewer).map_err(|e| Error::input("record", e.to_string(), ""))?;
    }
    Ok(())
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
        Evaluations { made, of } if made < of => format!(", {made} of {of} evaluations"),
        _ => String::new(),
    };
    format!("denoising {denoise:.2} s ({calls} steps{evaluations}, {rate:.1}/s)")
}
