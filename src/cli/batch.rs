//! `ldm-ort batch`.

use std::collections::HashSet;
use std::io::{BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{BatchAction, BatchArgs, BatchImageArgs, Global};
use super::interrupt::Interrupt;
use super::output;
use super::progress::Progress;
use super::remaining;
use super::standard_input::{NAME, load_spec, read_prompts};
use crate::batch::{
    BatchEvent, Finding, ImageBatch, InputLine, LineForm, Shard, Summary, batch_spec, open_store, read_lines, verify,
};
use crate::engine::Event;
use crate::error::{Error, Result, count_of};
use crate::files;
use crate::spec::Spec;

/// The time between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Runs `ldm-ort batch`: makes images, or verifies those that there are.
///
/// # Errors
/// Whatever is wrong with the pipeline or the store, and [`Error::Io`] if a request failed or an image is missing, after all
/// others were made or checked.
pub fn batch(args: &BatchArgs, global: &Global, out: &mut (dyn Write + Send)) -> Result<()> {
    match &args.action {
        Some(BatchAction::Verify(args)) => {
            with_batch(args, global, |batch, input, interrupt| check_images(&batch, input, args.json, interrupt, out))
        }
        None => with_batch(&args.images, global, |batch, input, interrupt| {
            make_images(batch, input, (args.images.json, global.quiet), interrupt, out)
        }),
    }
}

/// The requests.
struct Input {
    lines: Vec<InputLine>,
    /// The name of their file in messages.
    name: PathBuf,
}

/// Reads what the flags name, for `work` on it.
fn with_batch(
    args: &BatchImageArgs,
    global: &Global,
    work: impl FnOnce(ImageBatch, &Input, &Interrupt) -> Result<()>,
) -> Result<()> {
    let missing = |what: &str| Error::input("ldm-ort batch", format!("{what} is missing"), "see ldm-ort batch --help");
    let pipeline = args.pipeline.as_ref().ok_or_else(|| missing("PIPELINE.toml"))?;
    let requests = args.requests.as_ref().ok_or_else(|| missing("PROMPTS.jsonl"))?;
    let out = args.out.as_ref().ok_or_else(|| missing("--out"))?;
    let format = args.image_format()?;
    let shard = match &args.shard {
        Some(text) => Shard::parse(text, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?,
        None => Shard::default(),
    };
    let variables = std::env::vars_os();
    let variables = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let store = open_store(out, variables)?;
    let (spec, input) = read_inputs(args, pipeline, requests)?;
    let interrupt = Interrupt::install()?;
    let engine = global.library.engine()?;
    let batch = ImageBatch { engine, spec, store, shard, manifest: shard.manifest(), format };
    work(batch, &input, &interrupt)
}

fn read_inputs(args: &BatchImageArgs, pipeline: &Path, requests: &Path) -> Result<(Spec, Input)> {
    let is_standard_input = requests.as_os_str() == NAME;
    if is_standard_input && pipeline.as_os_str() == NAME {
        let problem = "standard input is named more than once, and it can be read once";
        return Err(Error::input("ldm-ort batch", problem, "give one of them as a file"));
    }
    let overrides = args.keys.to_overrides();
    let spec = if pipeline.is_dir() {
        batch_spec(pipeline, read_prompts(overrides, usize::from(is_standard_input))?)?
    } else {
        load_spec(pipeline, overrides)?
    };
    let name = if is_standard_input { PathBuf::from("standard input") } else { requests.to_path_buf() };
    let is_text = requests.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
    let form = if is_text { LineForm::Prompt } else { LineForm::Json };
    let lines = if is_standard_input {
        read_lines(std::io::stdin().lock(), form)
    } else {
        read_lines(BufReader::new(files::open_input(requests)?), form)
    };
    let lines = lines.map_err(|error| Error::io(&name, "reading", error))?;
    if lines.is_empty() {
        let hint = "write a prompt in quotes, or a request as a JSON object, in each line";
        return Err(Error::input(name.display().to_string(), "holds no request", hint));
    }
    Ok((spec, Input { lines, name }))
}

/// Makes images and reports them.
fn make_images(
    batch: ImageBatch,
    input: &Input,
    (json, quiet): (bool, bool),
    interrupt: &Interrupt,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let display = Mutex::new(Display::new(json, quiet, out));
    let (shard, manifest) = (batch.shard, batch.store.place(&batch.manifest));
    let observe = |event: BatchEvent<'_>| lock(&display).notice(event);
    let result = batch.open().and_then(|mut batch| batch.run(&input.lines, &interrupt.cancel(), &observe));
    let display = display.into_inner().unwrap_or_else(PoisonError::into_inner);
    display.bar.finish_and_clear();
    let summary = result?;
    if json {
        output::text(display.out, &format!("{}\n", json!({ "summary": summary })))?;
    }
    if !quiet {
        output::say(&describe(&summary, shard));
    }
    match summary.failed {
        0 => Ok(()),
        failed => {
            let lines = count_of(summary.lines, "line");
            failure(&input.name, format!("{failed} of {lines} failed; see {manifest}"))
        }
    }
}

fn describe(summary: &Summary, shard: Shard) -> String {
    let Summary { lines, images, made, existing, made_elsewhere, failed, seconds, .. } = *summary;
    let shard = if shard.is_part() { format!("shard {shard} · ") } else { String::new() };
    let elsewhere =
        if made_elsewhere > 0 { format!(" · {made_elsewhere} made by another process") } else { String::new() };
    let rate = if made > 0 { format!(" ({:.0} an hour)", made as f64 / seconds * 3600.0) } else { String::new() };
    format!(
        "{shard}{} · {} · {made} made{rate} · {existing} existed{elsewhere} · {} · {}",
        count_of(lines, "line"),
        count_of(images, "image"),
        if failed == 0 { "none failed".to_owned() } else { format!("{} failed", count_of(failed, "line")) },
        remaining::duration(seconds)
    )
}

/// The error of a batch that has done what it could.
fn failure(name: &Path, problem: String) -> Result<()> {
    Err(Error::io(name, "the batch", std::io::Error::other(problem)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines and the bar of a batch.
struct Display<'a> {
    json: bool,
    quiet: bool,
    out: &'a mut (dyn Write + Send),
    /// The bars of opening the pipeline.
    opening: Progress,
    bars: MultiProgress,
    bar: ProgressBar,
    /// Warnings that were shown.
    warned: HashSet<String>,
    images: usize,
    done: usize,
    /// The first image of this run, and those since.
    started: Option<Instant>,
    made: usize,
    last_line: Instant,
}

impl<'a> Display<'a> {
    fn new(json: bool, quiet: bool, out: &'a mut (dyn Write + Send)) -> Self {
        let opening = Progress::new(quiet || json);
        let (bars, bar) = (opening.bars(), ProgressBar::hidden());
        let (warned, last_line) = (HashSet::new(), Instant::now());
        Self { json, quiet, out, opening, bars, bar, warned, images: 0, done: 0, started: None, made: 0, last_line }
    }

    fn notice(&mut self, event: BatchEvent<'_>) -> Result<()> {
        match event {
            BatchEvent::Planning { lines, total } => {
                if lines == 0 {
                    self.begin(total, "planning {pos} of {len} lines {bar:30} {elapsed}");
                }
                self.bar.set_position(lines as u64);
            }
            BatchEvent::Planned { images, existing } => {
                (self.images, self.done) = (images, existing);
                self.bar.finish_and_clear();
                if !self.quiet && existing > 0 {
                    self.say(&format!("{existing} of {} exist already", count_of(images, "image")));
                }
            }
            BatchEvent::Pipeline(event) => self.notice_pipeline(event),
            BatchEvent::Stored { entry, place } => {
                self.made += 1;
                self.advance();
                let line = if self.json { entry.to_json()? } else { place };
                let Self { bars, out, .. } = self;
                bars.suspend(|| output::text(*out, &format!("{line}\n")))?;
            }
            BatchEvent::StoredElsewhere => self.advance(),
            BatchEvent::Recorded { .. } => {}
            BatchEvent::Failed { entry, .. } => {
                if self.json {
                    let line = entry.to_json()?;
                    let Self { bars, out, .. } = self;
                    bars.suspend(|| output::text(*out, &format!("{line}\n")))?;
                }
                self.say(&format!(
                    "line {} failed: {}",
                    entry.line.unwrap_or_default(),
                    entry.error.as_deref().unwrap_or_default()
                ));
            }
        }
        Ok(())
    }

    fn notice_pipeline(&mut self, event: Event) {
        match event {
            Event::Warning { text } if self.warned.insert(text.clone()) => self.say(&format!("warning: {text}")),
            Event::Warning { .. } => {}
            Event::Preparing { .. } if self.started.is_none() => {
                self.opening.clear();
                self.started = Some(Instant::now());
                self.begin(self.images, "{pos} of {len} images {bar:30} {msg}");
                self.bar.set_position(self.done as u64);
            }
            event if self.started.is_none() => self.opening.notice(event),
            _ => {}
        }
    }

    fn begin(&mut self, total: usize, template: &str) {
        self.bar.finish_and_clear();
        if self.quiet || self.json {
            return;
        }
        self.bar = self.bars.add(ProgressBar::new(total as u64));
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("━╸ "));
        }
    }

    /// Counts an image.
    fn advance(&mut self) {
        self.done += 1;
        let seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let left = seconds / self.made.max(1) as f64 * self.images.saturating_sub(self.done) as f64;
        let rate = self.made as f64 / seconds.max(1e-9) * 3600.0;
        let message = format!("{rate:.0} images an hour · {} left", remaining::duration(left));
        self.bar.set_position(self.done as u64);
        self.bar.set_message(message.clone());
        let is_due = self.last_line.elapsed() > LINE_EVERY && !std::io::stderr().is_terminal();
        if is_due && !self.quiet {
            self.last_line = Instant::now();
            self.say(&format!("{} of {} images · {message}", self.done, self.images));
        }
    }

    fn say(&self, text: &str) {
        self.bars.suspend(|| output::say(text));
    }
}

/// Verifies images and reports those that are missing or damaged.
fn check_images(
    batch: &ImageBatch,
    input: &Input,
    json: bool,
    interrupt: &Interrupt,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let result = verify(batch, &input.lines, &interrupt.cancel(), &mut |finding: &Finding| {
        let number = finding.line.unwrap_or_default();
        let line = match (&finding.file, json) {
            (_, true) => json!(finding).to_string(),
            (Some(file), false) => format!("line {number}: {} {}", batch.store.place(file), finding.problem),
            (None, false) => format!("line {number}: {}", finding.problem),
        };
        output::text(out, &format!("{line}\n"))
    })?;
    if json {
        output::text(out, &format!("{}\n", json!({ "summary": result })))?;
    } else {
        let images = count_of(result.images, "image");
        output::text(out, &format!("{images} of {} checked\n", count_of(result.lines, "line")))?;
    }
    if result.faulty == 0 && result.failed == 0 {
        return Ok(());
    }
    let images = count_of(result.faulty, "image");
    let lines = count_of(result.failed, "line");
    let hint = if result.faulty == 0 { "" } else { "\n  hint: run the batch again, which makes what is missing" };
    failure(&input.name, format!("{images} missing or damaged, {lines} without images{hint}"))
}
