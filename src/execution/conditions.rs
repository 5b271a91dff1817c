//! The start of a batch: prompts, input images and conditions become the denoiser's inputs.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::batch::{BatchInput, ModelRun};
use super::event::{ExecutionEvent, Observer};
use super::finished_image::Timings;
use super::interrupt::report;
use super::parts::{Beginning, Opener};
use crate::denoise::BatchNoise;
use crate::error::Result;
use crate::scheduler::Scheduler;
use crate::session::Cancel;
use crate::task::{self, PreparedCondition, Start, TaskContext};
use crate::text::{PromptCache, PromptText, TextEncoders};

impl ModelRun<'_> {
    /// Returns the start of a batch, and the time that opening graphs took.
    pub(super) fn start(
        &mut self,
        input: BatchInput<'_>,
        noise: &mut BatchNoise,
        observer: &mut Observer<'_>,
        timings: &mut Timings,
    ) -> Result<(Start, Duration)> {
        let (plan, request, cancel) = (self.plan, self.request, self.cancel);
        let (model, encodings, stay) = (&*plan.model, self.encodings.clone(), self.stay);
        let BatchInput { indices, scheduler, span, handed } = input;
        let (first, images, size) = (indices.start, indices.len(), (request.width, request.height));
        let mut warnings = if first == 0 { self.warnings(scheduler, &span) } else { Vec::new() };
        let prompts: Vec<usize> = indices.clone().map(|i| i / request.images).collect();
        let texts = |prompt: usize| task::texts(request.task.as_ref(), &model.model, prompt);
        let encoded = encodings.encoded_count();
        let encodes = stay || !prompts.iter().all(|prompt| encodings.contains(&texts(*prompt)));
        let opening = Instant::now();
        let mut opener = Opener::new(plan, self.runtime, self.pool, cancel, observer);
        let beginning = opener.beginning(&mut self.parts, encodes, &encodings)?;
        let Beginning { text, class_embedder, conditioners, encoder, .. } = beginning;
        let opened = opening.elapsed();
        let mut start = request.task.start(&mut TaskContext {
            model: &model.model,
            total_images: request.total_images(),
            first,
            prompts: &prompts,
            sample_shape: model.sample_shape(request.width, request.height),
            size,
            input_limit: request.input_limit,
            steps: request.steps,
            is_planned: request.planned_strength.is_some(),
            denoising_start: request.denoising_start.map(|_| span.start),
            scheduler,
            noise,
            stage_output: handed,
            given: request.latents.as_ref().map(|given| task::rows(given, indices.clone())),
            text: text.as_mut(),
            class_embedder: class_embedder.as_mut().map(|(_, part)| part),
            encoder: encoder.as_mut().map(|(_, part)| part),
            cancel,
            warn: &mut |warning| warnings.push(warning),
        })?;
        let conditions = model.conditions.iter().zip(conditioners);
        let conditions = conditions.map(|(part, graph)| PreparedCondition {
            condition: &part.condition,
            graph: graph.as_mut().map(|(_, part)| part),
            known: part.known,
            limit: request.input_limit,
        });
        start.tell(conditions.collect(), images, size, cancel)?;
        // Text encoders that are not kept open need not be opened again for the batches after this one.
        if let Some(text) = text.as_mut().filter(|text| !stay && text.is_open()) {
            let later = (indices.end..request.indices()?.end).map(|i| i / request.images);
            encode_later(text, later, &encodings, &texts, cancel, &mut warnings)?;
        }
        timings.texts += encodings.encoded_count() - encoded;
        for warning in warnings {
            report(observer, cancel, ExecutionEvent::Warning(warning))?;
        }
        Ok((start, opened))
    }

    /// The warnings of a run, that of a schedule between the denoiser's whole timesteps included.
    fn warnings(&self, scheduler: &dyn Scheduler, span: &Range<usize>) -> Vec<String> {
        let mut warnings = self.plan.warnings();
        let timestep = &self.plan.model.model.denoiser.timestep;
        let timesteps = scheduler.timesteps().get(span.clone()).unwrap_or_default();
        if timestep.dtype.is_integer() && timesteps.iter().any(|t| t.fract() != 0.0) {
            warnings.push(format!(
                "the schedule steps between whole timesteps and the denoiser's input {} takes whole ones only, so they \
                 are rounded; export the model with a float timestep for the exact image",
                timestep.name
            ));
        }
        warnings
    }
}

/// Encodes the prompts of later batches, as long as their embeddings have room.
fn encode_later(
    text: &mut TextEncoders,
    prompts: impl Iterator<Item = usize>,
    encodings: &PromptCache,
    texts: &dyn Fn(usize) -> Vec<PromptText>,
    cancel: &Cancel,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut later: Vec<usize> = prompts.collect();
    later.dedup();
    for prompt in later.iter().take_while(|_| !encodings.is_full()) {
        text.encode(&texts(*prompt), cancel, &mut |warning| warnings.push(warning))?;
    }
    Ok(())
}
