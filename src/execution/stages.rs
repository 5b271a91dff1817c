//! One stage at work on a batch: latents, and images if anybody wants them.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayD, Axis, concatenate};

use super::batch::{DenoisedBatch, ModelRun};
use super::event::{ExecutionEvent, Observer};
use super::finished_image::{FinishedImage, Timings};
use super::interrupt::report;
use super::pool::{Pool, ReadyModel};
use super::position::{batches, request_of};
use crate::denoise::{DeviceCopies, Evaluations};
use crate::error::{Error, Result};
use crate::image::Rgb8;
use crate::plan::{Plan, RunSettings};
use crate::session::{Cancel, Runtime};
use crate::spec::StageInput;
use crate::task::{StageOutput, rows};

/// The result of the stages so far for one image.
pub(super) struct StageImage {
    /// `[1, c, h/f, w/f]`.
    latents: ArrayD<f32>,
    /// The image, if anybody wants it.
    pixels: Option<Rgb8>,
    calls: usize,
    /// One for each stage so far.
    evaluations: Vec<Evaluations>,
    /// One for each stage so far.
    settings: Vec<Arc<RunSettings>>,
    /// One for each stage so far.
    precisions: Vec<String>,
    device_copies: Option<DeviceCopies>,
    seconds: f64,
}

impl StageImage {
    /// The latents of one row of a batch, after what the stages `before` did.
    fn new(batch: &DenoisedBatch, row: usize, before: Option<&Self>) -> Self {
        let (calls, seconds) = before.map_or((0, 0.0), |before| (before.calls, before.seconds));
        let mut evaluations = before.map_or_else(Vec::new, |before| before.evaluations.clone());
        evaluations.push(batch.evaluations);
        let mut settings = before.map_or_else(Vec::new, |before| before.settings.clone());
        settings.push(Arc::clone(&batch.settings));
        let mut precisions = before.map_or_else(Vec::new, |before| before.precisions.clone());
        precisions.push(batch.precision.clone());
        Self {
            latents: rows(&batch.latents, row..row + 1),
            pixels: None,
            calls: calls + batch.calls,
            evaluations,
            settings,
            precisions,
            device_copies: batch.device_copies,
            seconds: seconds + batch.seconds,
        }
    }
}

/// One stage at work on one batch of the file's own run.
pub(super) struct StageRun<'a> {
    plan: &'a Plan,
    /// 0 for the file's own tables.
    at: usize,
    run: ModelRun<'a>,
    /// True if no batch comes after this one.
    is_last_batch: bool,
    timings: &'a mut Timings,
}

impl<'a> StageRun<'a> {
    pub(super) fn new(
        (plan, at): (&'a Plan, usize),
        model: &'a ReadyModel,
        (runtime, pool): (&'a Runtime, &'a mut Pool),
        is_last_batch: bool,
        cancel: &'a Cancel,
        timings: &'a mut Timings,
    ) -> Self {
        let (request, _) = request_of(plan, at);
        let run = ModelRun::new((&model.plan, request), runtime, pool, model.stay, cancel);
        Self { plan, at, run, is_last_batch, timings }
    }

    /// Makes the images of a batch from those of the stage before it.
    pub(super) fn run(
        &mut self,
        batch: Range<usize>,
        before: &[StageImage],
        observer: &mut Observer<'_>,
    ) -> Result<Vec<StageImage>> {
        let (request, hand) = request_of(self.plan, self.at);
        let mut images = Vec::new();
        let end = batch.end;
        for indices in batches(batch, request.batch) {
            if self.is_last_batch && indices.end == end {
                self.run.stay = false;
            }
            let own = before.get(images.len()..).unwrap_or_default();
            let own = own.get(..indices.len()).unwrap_or(own);
            let handed = hand.map(|hand| input_of(hand, own)).transpose()?;
            let denoised = self.run.denoise(indices.clone(), handed, observer, self.timings)?;
            for row in 0..indices.len() {
                let mut image = StageImage::new(&denoised, row, own.get(row));
                if self.keeps() || self.hands_images() {
                    self.decode(&denoised, row, &mut image, observer)?;
                }
                images.push(image);
            }
        }
        Ok(images)
    }

    /// Decodes the image of one row of a batch, and hands it to the observer if it is kept.
    fn decode(
        &mut self,
        batch: &DenoisedBatch,
        row: usize,
        image: &mut StageImage,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        let decoded = self.run.decode(batch, row, observer, self.timings)?;
        image.seconds += decoded.seconds;
        image.settings.pop();
        image.settings.push(decoded.settings);
        // Records name an image by the file's own tables, whatever stages it went through.
        let (base, index) = (&self.plan.request, batch.indices.start + row);
        let prompt = index / base.images.max(1);
        let finished = FinishedImage {
            index,
            prompt: base.task.labels().get(prompt).cloned().unwrap_or_default(),
            negative_prompt: base.negative_prompt(prompt).to_owned(),
            seed: base.seed_of(index),
            pixels: decoded.pixels,
            decode_tile: decoded.tile,
            latents: image.latents.index_axis(Axis(0), 0).to_owned(),
            calls: image.calls,
            evaluations: image.evaluations.clone(),
            settings: image.settings.clone(),
            precisions: image.precisions.clone(),
            device_copies: image.device_copies,
            seconds: image.seconds,
            stages: self.at,
        };
        if self.at == self.plan.stages.len() {
            report(observer, self.run.cancel, ExecutionEvent::Image(&finished))?;
        } else if self.keeps() {
            report(observer, self.run.cancel, ExecutionEvent::Kept(&finished))?;
        }
        image.pixels = Some(finished.pixels);
        Ok(())
    }

    fn keeps(&self) -> bool {
        self.plan.spec.folder(self.at).is_some()
    }

    fn hands_images(&self) -> bool {
        self.plan.stages.get(self.at).is_some_and(|next| next.hand == StageInput::Image)
    }
}

/// The input of a stage: the results of the one before it.
fn input_of(hand: StageInput, before: &[StageImage]) -> Result<StageOutput<'_>> {
    match (hand, before) {
        (StageInput::Image, [StageImage { pixels: Some(pixels), .. }]) => Ok(StageOutput::Image(pixels)),
        (StageInput::Image, _) => Err(Error::internal("stage", "the stage before it handed on no image")),
        (StageInput::Latents, before) => {
            let latents: Vec<_> = before.iter().map(|image| image.latents.view()).collect();
            let latents = concatenate(Axis(0), &latents);
            latents.map(StageOutput::Latents).map_err(|e| Error::input("latents", e.to_string(), ""))
        }
    }
}
