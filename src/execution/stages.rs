//! Models in a row: each batch goes through all of them before the next one begins.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use ndarray::{ArrayD, Axis, concatenate};

use super::{ExecutionEvent, ModelExecution, Observer, Timings, batches, stop_if};
use crate::denoise::Evaluations;
use crate::error::{Error, Result};
use crate::image::Rgb8;
use crate::plan::{Plan, RunPlan, RunSettings};
use crate::session::{Cancel, Runtime};
use crate::spec::Hand;
use crate::task::{Handed, rows};

/// The models of a plan, opened: that of the file's own tables, and those of its `[[stage]]` tables. All stay open.
pub struct Execution {
    models: Vec<ModelExecution>,
}

/// What one stage made of one image.
struct Made {
    /// `[1, c, h/f, w/f]`.
    latents: ArrayD<f32>,
    /// The image, where anybody wants it.
    pixels: Option<Rgb8>,
    calls: usize,
    /// One a stage so far.
    evaluations: Vec<Evaluations>,
    /// The same.
    settings: Vec<Arc<RunSettings>>,
    seconds: f64,
}

impl Execution {
    /// Opens every graph of every stage, in the order in which they run.
    ///
    /// # Errors
    /// As [`ModelExecution::load`], within [`Error::Stage`] where there is more than one.
    pub fn load(plan: &Plan, runtime: &Runtime, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Self> {
        let models = (0..=plan.stages.len()).map(|at| {
            within(plan, at, observer, &mut |observer| {
                let stage = at.checked_sub(1).and_then(|at| plan.stages.get(at));
                for warning in stage.iter().flat_map(|stage| &stage.warnings) {
                    stop_if(observer.notice(ExecutionEvent::Warning(warning.clone())), None)?;
                }
                let model = stage.map_or(&plan.model, |stage| &stage.model);
                ModelExecution::load(model.clone(), runtime, cancel, observer)
            })
        });
        Ok(Self { models: models.collect::<Result<_>>()? })
    }

    /// Opens every graph that is not open yet.
    ///
    /// # Errors
    /// As [`Execution::load`].
    pub fn open_all(&mut self, plan: &Plan, cancel: &Cancel, observer: &mut dyn Observer) -> Result<()> {
        for (at, model) in self.models.iter_mut().enumerate() {
            within(plan, at, observer, &mut |observer| model.open_all(cancel, observer))?;
        }
        Ok(())
    }

    /// Makes the images of the plan that was loaded, handing each to the observer as soon as its last stage is done
    /// with it.
    ///
    /// # Errors
    /// As [`ModelExecution::run`], within [`Error::Stage`] where there is more than one.
    pub fn run(&mut self, plan: &Plan, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        self.make(plan, false, cancel, observer)
    }

    /// As [`Execution::run`], for the last time: each graph is closed as soon as no image needs it any more.
    ///
    /// # Errors
    /// As [`Execution::run`].
    pub fn finish(mut self, plan: &Plan, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        self.make(plan, true, cancel, observer)
    }

    fn make(&mut self, plan: &Plan, is_last: bool, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        let mut timings = Timings::default();
        let indices = plan.request.indices()?;
        let end = indices.end;
        for batch in batches(indices, plan.request.batch) {
            let is_last = is_last && batch.end == end;
            let mut made = Vec::new();
            for (at, model) in self.models.iter_mut().enumerate() {
                made = within(plan, at, observer, &mut |observer| {
                    let mut stage = Stage { plan, at, model: &mut *model, is_last, cancel, timings: &mut timings };
                    stage.run(batch.clone(), &made, observer)
                })?;
            }
        }
        Ok(timings)
    }
}

/// One stage at work on one batch of the file's own run.
struct Stage<'a> {
    plan: &'a Plan,
    /// 0 for the file's own tables.
    at: usize,
    model: &'a mut ModelExecution,
    /// Whether no batch comes after this one.
    is_last: bool,
    cancel: &'a Cancel,
    timings: &'a mut Timings,
}

impl Stage<'_> {
    /// `before` is what the stage before made of the same images.
    fn run(&mut self, batch: Range<usize>, before: &[Made], observer: &mut dyn Observer) -> Result<Vec<Made>> {
        let (request, hand) = request_of(self.plan, self.at);
        let mut made = Vec::new();
        let end = batch.end;
        for indices in batches(batch, request.batch) {
            if self.is_last && indices.end == end {
                self.model.parts.stay = false;
            }
            let own = before.get(made.len()..).unwrap_or_default();
            let own = own.get(..indices.len()).unwrap_or(own);
            let handed = hand.map(|hand| handed(hand, own)).transpose()?;
            let drawn = self.model.draw(request, indices.clone(), handed, self.cancel, observer, self.timings)?;
            for row in 0..indices.len() {
                let (calls, seconds) = own.get(row).map_or((0, 0.0), |made| (made.calls, made.seconds));
                let mut evaluations = own.get(row).map_or_else(Vec::new, |made| made.evaluations.clone());
                evaluations.push(drawn.evaluations);
                let mut settings = own.get(row).map_or_else(Vec::new, |made| made.settings.clone());
                settings.push(Arc::clone(&drawn.settings));
                let mut one = Made {
                    latents: rows(&drawn.latents, row..row + 1),
                    pixels: None,
                    calls: calls + drawn.calls,
                    evaluations,
                    settings,
                    seconds: seconds + drawn.seconds,
                };
                if self.keeps() || self.hands_images() {
                    let mut image = self.model.decode(request, &drawn, row, self.cancel, observer, self.timings)?;
                    // An image goes by what the file's own tables say of it, whatever becomes of it.
                    let base = &self.plan.request;
                    let prompt = image.index / base.images.max(1);
                    image.prompt = base.task.labels().get(prompt).cloned().unwrap_or_default();
                    image.negative_prompt = base.negative_prompt(prompt).to_owned();
                    image.seed = base.seed_of(image.index);
                    image.stages = self.at;
                    image.calls += calls;
                    image.evaluations.clone_from(&one.evaluations);
                    image.settings.clone_from(&one.settings);
                    image.seconds += seconds;
                    one.seconds = image.seconds;
                    if self.is_last() {
                        stop_if(observer.notice(ExecutionEvent::Image(&image)), None)?;
                    } else if self.keeps() {
                        stop_if(observer.notice(ExecutionEvent::Kept(&image)), None)?;
                    }
                    one.pixels = Some(image.pixels);
                }
                made.push(one);
            }
        }
        Ok(made)
    }

    fn is_last(&self) -> bool {
        self.at == self.plan.stages.len()
    }

    fn keeps(&self) -> bool {
        self.plan.spec.folder(self.at).is_some()
    }

    fn hands_images(&self) -> bool {
        self.plan.stages.get(self.at).is_some_and(|next| next.hand == Hand::Image)
    }
}

/// The request of a stage, and how it is handed what the one before it made.
fn request_of(plan: &Plan, at: usize) -> (&RunPlan, Option<Hand>) {
    match at.checked_sub(1).and_then(|at| plan.stages.get(at)) {
        None => (&plan.request, None),
        Some(stage) => (&stage.request, Some(stage.hand)),
    }
}

fn handed(hand: Hand, made: &[Made]) -> Result<Handed<'_>> {
    match (hand, made) {
        (Hand::Image, [Made { pixels: Some(pixels), .. }]) => Ok(Handed::Image(pixels)),
        (Hand::Image, _) => Err(Error::internal("stage", "the stage before it handed on no image")),
        (Hand::Latents, made) => {
            let latents: Vec<_> = made.iter().map(|made| made.latents.view()).collect();
            let latents = concatenate(Axis(0), &latents);
            latents.map(Handed::Latents).map_err(|e| Error::input("latents", e.to_string(), ""))
        }
    }
}

/// Does something for a stage, whose name then stands before its warnings and what goes wrong. Where there is one stage
/// only it has no name.
fn within<T>(
    plan: &Plan,
    at: usize,
    observer: &mut dyn Observer,
    work: &mut dyn FnMut(&mut dyn Observer) -> Result<T>,
) -> Result<T> {
    if plan.stages.is_empty() {
        return work(observer);
    }
    let stage = at.checked_sub(1).and_then(|at| plan.stages.get(at));
    let key = stage.map_or("base", |stage| &stage.key);
    stop_if(observer.notice(ExecutionEvent::Stage { key, number: at + 1, of: plan.stages.len() + 1 }), None)?;
    let mut named = |event: ExecutionEvent<'_>| -> ControlFlow<()> {
        match event {
            ExecutionEvent::Warning(warning) => observer.notice(ExecutionEvent::Warning(format!("{key}: {warning}"))),
            other => observer.notice(other),
        }
    };
    work(&mut named).map_err(|error| error.in_stage(key))
}
