//! Models in a row: each batch goes through all of them before the next one begins.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use ndarray::{ArrayD, Axis, concatenate};

use super::batch::ModelRun;
use super::pool::Pool;
use super::ready::ReadyModel;
use super::{ExecutionEvent, Observer, Timings, batches, stop_if};
use crate::denoise::Evaluations;
use crate::error::{Error, Result};
use crate::image::Rgb8;
use crate::plan::{ModelPlan, Plan, RunPlan, RunSettings};
use crate::session::{Cancel, Runtime};
use crate::spec::StageInput;
use crate::task::{StageOutput, rows};

/// The result of one stage for one image.
pub(super) struct StageResult {
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

/// One stage at work on one batch of the file's own run.
pub(super) struct StageRun<'a> {
    plan: &'a Plan,
    /// 0 for the file's own tables.
    at: usize,
    run: ModelRun<'a>,
    /// Whether no batch comes after this one.
    is_last: bool,
    timings: &'a mut Timings,
}

impl<'a> StageRun<'a> {
    pub(super) fn new(
        (plan, at): (&'a Plan, usize),
        model: &'a ReadyModel,
        (runtime, pool): (&'a Runtime, &'a mut Pool),
        is_last: bool,
        cancel: &'a Cancel,
        timings: &'a mut Timings,
    ) -> Self {
        let (request, _) = request_of(plan, at);
        let run = ModelRun::new((&model.plan, request), runtime, pool, model.stay, cancel);
        Self { plan, at, run, is_last, timings }
    }

    /// `before` is what the stage before made of the same images.
    pub(super) fn run(
        &mut self,
        batch: Range<usize>,
        before: &[StageResult],
        observer: &mut dyn Observer,
    ) -> Result<Vec<StageResult>> {
        let (request, hand) = request_of(self.plan, self.at);
        let mut made = Vec::new();
        let end = batch.end;
        for indices in batches(batch, request.batch) {
            if self.is_last && indices.end == end {
                self.run.stay = false;
            }
            let own = before.get(made.len()..).unwrap_or_default();
            let own = own.get(..indices.len()).unwrap_or(own);
            let handed = hand.map(|hand| handed(hand, own)).transpose()?;
            let drawn = self.run.draw(indices.clone(), handed, observer, self.timings)?;
            for row in 0..indices.len() {
                let (calls, seconds) = own.get(row).map_or((0, 0.0), |made| (made.calls, made.seconds));
                let mut evaluations = own.get(row).map_or_else(Vec::new, |made| made.evaluations.clone());
                evaluations.push(drawn.evaluations);
                let mut settings = own.get(row).map_or_else(Vec::new, |made| made.settings.clone());
                settings.push(Arc::clone(&drawn.settings));
                let mut one = StageResult {
                    latents: rows(&drawn.latents, row..row + 1),
                    pixels: None,
                    calls: calls + drawn.calls,
                    evaluations,
                    settings,
                    seconds: seconds + drawn.seconds,
                };
                if self.keeps() || self.hands_images() {
                    let mut image = self.run.decode(&drawn, row, observer, self.timings)?;
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
        self.plan.stages.get(self.at).is_some_and(|next| next.hand == StageInput::Image)
    }
}

/// The model of a stage; number 0 is that of the file's own tables.
pub(super) fn model_of(plan: &Plan, at: usize) -> &ModelPlan {
    let stage = at.checked_sub(1).and_then(|at| plan.stages.get(at));
    stage.map_or(&plan.model, |stage| &stage.model)
}

/// The request of a stage, and how it is handed what the one before it made.
pub(super) fn request_of(plan: &Plan, at: usize) -> (&RunPlan, Option<StageInput>) {
    match at.checked_sub(1).and_then(|at| plan.stages.get(at)) {
        None => (&plan.request, None),
        Some(stage) => (&stage.request, Some(stage.hand)),
    }
}

fn handed(hand: StageInput, made: &[StageResult]) -> Result<StageOutput<'_>> {
    match (hand, made) {
        (StageInput::Image, [StageResult { pixels: Some(pixels), .. }]) => Ok(StageOutput::Image(pixels)),
        (StageInput::Image, _) => Err(Error::internal("stage", "the stage before it handed on no image")),
        (StageInput::Latents, made) => {
            let latents: Vec<_> = made.iter().map(|made| made.latents.view()).collect();
            let latents = concatenate(Axis(0), &latents);
            latents.map(StageOutput::Latents).map_err(|e| Error::input("latents", e.to_string(), ""))
        }
    }
}

/// Does something for a stage, whose name then stands before its warnings and what goes wrong. Where there is one stage
/// only it has no name.
pub(super) fn within<T>(
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
