//! The images of `ldm-ort run`: written in a thread of their own, in their order, while the next are denoised.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::thread::Scope;
use std::time::{Duration, Instant};

use indicatif::MultiProgress;
use ndarray::ArrayD;
use serde_json::{Value, json};

use super::compare::{self, ComparedImage, Comparison};
use super::contact_sheet::ContactSheets;
use super::output::{self, warn};
use super::preview::Previews;
use crate::engine::{BackgroundWriter, Event, Image, Replay, Saver};
use crate::error::{Error, Result};
use crate::metadata::{FewerEvaluations, Record};
use crate::plan::FLOAT32;
use crate::session::Cancel;

/// An image to be written.
struct Job {
    image: Image,
    pace: Pace,
}

/// The thread that writes images while a run goes on. It ends with the first image that cannot be written.
pub(super) struct Writing<'scope>(BackgroundWriter<'scope, Job>);

impl<'scope> Writing<'scope> {
    /// Begins to write what is handed over. The first image that cannot be written cancels the run, and
    /// [`Writing::finish`] returns its error.
    ///
    /// # Errors
    /// [`Error::Io`] if the thread can't be started.
    pub(super) fn begin(
        scope: &'scope Scope<'scope, '_>,
        writer: &'scope mut ImageWriter<'_>,
        cancel: &Cancel,
    ) -> Result<Self> {
        BackgroundWriter::begin(scope, cancel, move |job| writer.write(&job)).map(Self)
    }

    /// Hands over the image of an event that has one.
    pub(super) fn notice(&mut self, event: &Event, pace: &Pace) {
        if let Event::Image(image) = event {
            self.0.hand(Job { image: image.as_ref().clone(), pace: pace.clone() });
        }
    }

    /// Waits until all images are written, and returns how long they were waited for in all.
    ///
    /// # Errors
    /// [`Error::Io`] where one could not be written.
    pub(super) fn finish(self) -> Result<Duration> {
        self.0.finish()
    }
}

/// The way a finished image is shown.
pub(super) enum Presentation {
    /// By itself, as soon as it is written.
    Alone,
    /// Not yet: it waits for another to be compared with.
    Later(Vec<ComparedImage>),
    /// Beside the image that waited for it.
    Beside(Vec<ComparedImage>),
}

impl Presentation {
    /// Shows the next images beside those that waited.
    pub(super) fn show_beside(&mut self) {
        if let Self::Later(made) = self {
            *self = Self::Beside(std::mem::take(made));
        }
    }
}

/// Writes each finished image and its line.
pub(super) struct ImageWriter<'a> {
    /// One a stage whose images are written, that of the file's own tables first.
    pub savers: Vec<Option<Saver>>,
    pub json: bool,
    pub out: &'a mut (dyn Write + Send),
    /// The bars that lines are printed around.
    pub bars: MultiProgress,
    /// The record that the image is made again from.
    pub replay: Option<Replay>,
    /// Those of the images written, where they are to be kept.
    pub latents: Option<Vec<ArrayD<f32>>>,
    pub shown: Presentation,
    /// Those that stand where images will, and go when they are there.
    pub previews: Option<Previews>,
    /// The number of images of the requests before this one.
    pub first_index: usize,
    /// The contact sheets of `--sweep`.
    pub sheets: Option<ContactSheets>,
}

/// Times of one image, for `--json`.
#[derive(Clone)]
pub(super) struct Pace {
    started: Instant,
    /// The time at which the image's denoising began, in seconds from the program's start.
    denoising: f64,
    /// The time at which the call before the next one ended.
    last: f64,
    /// Seconds of each call of the denoiser.
    calls: Vec<f64>,
    /// The key of the stage that opens its graphs, with a full stop.
    stage: String,
    /// The number of nodes of each component that each provider took.
    nodes: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Pace {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, denoising: 0.0, last: 0.0, calls: Vec::new(), stage: String::new(), nodes: BTreeMap::new() }
    }

    pub(super) fn notice(&mut self, event: &Event) {
        let now = self.started.elapsed().as_secs_f64();
        match event {
            Event::Stage { key, .. } => self.stage = format!("{key}."),
            Event::Loading { component, nodes, .. } => {
                self.nodes.insert(format!("{}{component}", self.stage), nodes.clone());
            }
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

    /// Leaves the time until now out of the next call's.
    pub(super) fn pause(&mut self) {
        self.last = self.started.elapsed().as_secs_f64();
    }
}

impl ImageWriter<'_> {
    /// Writes an image, and then the line that tells of it.
    fn write(&mut self, job: &Job) -> Result<()> {
        let Job { image, pace } = job;
        let is_last = image.is_final();
        let record = image.record()?;
        if let Some(replay) = self.replay.take_if(|_| is_last) {
            self.bars.suspend(|| warn(replay.differing_weights(&record)));
        }
        let is_full = matches!(self.shown, Presentation::Beside(_));
        let mut suffix = match image.stages().checked_sub(1) {
            _ if is_last => String::new(),
            None => "-base".to_owned(),
            Some(stage) => format!("-stage-{stage}"),
        };
        if is_full {
            suffix.push_str(compare::SUFFIX);
        }
        let Some(Some(saver)) = self.savers.get(image.stages()) else { return Ok(()) };
        let path = saver.save(image.finished(), self.first_index + image.index(), &suffix, &record)?;
        if let Some(previews) = self.previews.as_ref().filter(|_| is_last) {
            previews.remove(image.index());
        }
        if let Some(latents) = self.latents.as_mut().filter(|_| is_last && !is_full) {
            latents.push(image.latents().to_owned());
        }
        if let Some(sheets) = self.sheets.as_mut().filter(|_| is_last && !is_full) {
            sheets.add(image, self.first_index)?;
        }
        let object = self.object(image, pace, &path, &record)?;
        let (index, stages, seconds) = (self.first_index + image.index(), image.stages(), image.seconds());
        match &mut self.shown {
            Presentation::Alone if self.json => self.line(&object.to_string()),
            Presentation::Alone => self.line(&path.display().to_string()),
            Presentation::Later(made) => {
                made.push(ComparedImage { index, stages, pixels: image.pixels().clone(), path, seconds, object });
                Ok(())
            }
            Presentation::Beside(made) => {
                let is_it = |made: &&ComparedImage| (made.index, made.stages) == (index, stages);
                let Some(made) = made.iter().find(is_it) else { return Ok(()) };
                let comparison = Comparison::new(made, image, &path);
                let line = if self.json { comparison.json() } else { comparison.text() };
                self.line(&line)
            }
        }
    }

    fn line(&mut self, line: &str) -> Result<()> {
        let out = &mut self.out;
        self.bars.suspend(|| output::text(out, &format!("{line}\n")))
    }

    fn object(&self, image: &Image, pace: &Pace, path: &Path, record: &Record) -> Result<Value> {
        let mut object = json!({
            "path": path.to_string_lossy(),
            "index": self.first_index + image.index(),
            "seed": image.seed(),
            "prompt": image.prompt(),
            "width": image.width(),
            "height": image.height(),
            "steps": record.steps,
            "precision": record.precision.as_deref().unwrap_or(FLOAT32),
            "nodes": pace.nodes,
            "denoising_loop": if image.device_copies().is_some() { "device" } else { "host" },
            "calls": image.calls(),
            "seconds": image.seconds(),
            "timings": {
                "until_denoising": pace.denoising,
                "calls": pace.calls,
                "until_decoded": pace.started.elapsed().as_secs_f64() - pace.last,
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
        tell_fewer(&mut object, record.fewer_evaluations.as_ref())?;
        if !record.verified.is_empty() {
            object["verified"] = record.verified.clone().into();
        }
        if let Some(side) = record.decode_tile {
            object["decode_tile"] = side.into();
        }
        if let Some(decoder) = record.tiny_decoder() {
            object["decoder"] = decoder.into();
        }
        Ok(object)
    }
}

/// Adds to an image's or a stage's object how the model was evaluated less often, where it was.
fn tell_fewer(object: &mut Value, fewer: Option<&FewerEvaluations>) -> Result<()> {
    if let Some(fewer) = fewer {
        object["fewer_evaluations"] =
            serde_json::to_value(fewer).map_err(|e| Error::input("record", e.to_string(), ""))?;
    }
    Ok(())
}
