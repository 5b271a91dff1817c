//! How often the denoiser is evaluated, and on how many images at once.

use super::model::ModelPlan;
use crate::denoise::RunInterval;
use crate::error::{Error, Result};
use crate::spec::Spec;
use crate::task::LongPrompts;

/// The part of the run in which guidance is at work, where it is not all of it.
///
/// # Errors
/// [`Error::Input`] where guidance cannot be switched off for a part of the run, since the model itself makes it.
pub(super) fn guidance_interval(spec: &Spec, model: &ModelPlan) -> Result<Option<RunInterval>> {
    let interval = spec.task.guidance_interval().map(|[start, end]| RunInterval { start, end });
    let guided_from_outside = spec.task.prompting().is_some_and(|prompting| prompting.true_cfg_scale > 1.0);
    if interval.is_some() && model.model.denoiser.is_guidance_distilled() && !guided_from_outside {
        return Err(Error::input(
            format!("task.{}.guidance_interval", spec.task.name()),
            "this model is guidance-distilled and has no unconditional branch to leave out",
            "leave guidance_interval out",
        ));
    }
    Ok(interval)
}

/// How many images a GPU makes at once. Prompts that are read in chunks may differ in length, and then images of one
/// prompt only go together.
pub(super) fn largest_batch(spec: &Spec, images: usize) -> usize {
    const MOST: usize = 4;
    let in_chunks = spec.task.prompting().is_some_and(|p| p.reading.long_prompts == LongPrompts::Chunk);
    // A cache that decides by the image sees one at a time.
    let by_image = spec.cache.as_ref().is_some_and(|cache| cache.entry().depends_on_image);
    let fits = |batch: &usize| !by_image && (!in_chunks || spec.run.images.is_multiple_of(*batch));
    (1..=images.min(MOST)).rev().find(fits).unwrap_or(1)
}
