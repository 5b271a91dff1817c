//! The requirements of models whose samples are packed into tokens, and of guidance-distilled models.

use crate::bundle::{Bundle, Component, DenoiserSignature};
use crate::error::{Error, Result};
use crate::family::Family;
use crate::task::Task;

/// Requires that a task guides a guidance-distilled model, and no other, by the key for that, and that a
/// model with packed samples takes a timestep between 0 and 1.
pub(super) fn check(task: &dyn Task, component: &Component, signature: &DenoiserSignature) -> Result<()> {
    let scale = task.prompting().map_or(1.0, |prompting| prompting.true_cfg_scale);
    if scale > 1.0 && !signature.is_guidance_distilled() {
        return Err(Error::input(
            format!("task.{}.true_cfg_scale", task.name()),
            format!("{scale} is given, and this model is guided by guidance_scale"),
            "leave the key out; it belongs to guidance-distilled models, such as Flux",
        ));
    }
    if let Some(scale) = task.image_guidance_scale().filter(|_| signature.is_packed()) {
        return Err(Error::input(
            format!("task.{}.image_guidance_scale", task.name()),
            format!("{scale} is given, and this model follows its image without guidance"),
            "leave the key out; it belongs to InstructPix2Pix",
        ));
    }
    let timestep = &signature.timestep;
    if signature.is_packed() && timestep.dtype.is_integer() {
        return Err(Error::model(
            &component.graph.path,
            format!("input {timestep} takes whole numbers, and such a model is told times between 0 and 1"),
            "export it with a float timestep (scripts/export.py does)",
        ));
    }
    Ok(())
}

/// How many images a packed sample is tokens of: where the task follows one, and the denoiser has no channels for it, that
/// one too.
pub(super) fn packed_images(task: &dyn Task, bundle: &Bundle, signature: &DenoiserSignature) -> usize {
    let channels = bundle.facts.latent_channels.value;
    let is_beside = signature.is_packed() && signature.in_channels.is_none_or(|taken| taken == channels);
    if is_beside && task.follows_image() { 2 } else { 1 }
}

/// A warning if a model receives an image to follow and was not trained to.
pub(super) fn remark(task: &dyn Task, bundle: &Bundle, signature: &DenoiserSignature) -> Option<String> {
    let family = bundle.named_family().filter(|family| !family.row().follows_packed_image)?;
    let source = bundle.facts.family.as_ref().map_or("", |fact| &fact.source);
    let followers: Vec<_> =
        Family::all().filter(|family| family.row().follows_packed_image).map(Family::title).collect();
    (signature.is_packed() && task.follows_image()).then(|| {
        format!(
            "the model is of the family {} ({source}); only {} is trained to follow an image; the results of others are arbitrary",
            family.name(),
            followers.join(", ")
        )
    })
}

/// Requires that a graph fixed to a number of tokens is given so many by an image of this size, and one that it follows.
pub(super) fn check_size(task: &dyn Task, bundle: &Bundle, (width, height): (usize, usize)) -> Result<()> {
    let Ok(component) = bundle.denoiser() else { return Ok(()) };
    let signature = DenoiserSignature::resolve(component).ok();
    let images = signature.as_ref().map_or(1, |signature| packed_images(task, bundle, signature));
    let tokens = bundle.facts.patches(width, height) * images;
    match signature.and_then(|signature| signature.sequence_length).filter(|&fixed| fixed != tokens) {
        None => Ok(()),
        Some(fixed) => Err(Error::input(
            "run.width, run.height",
            format!(
                "{width}×{height} is {tokens} tokens, and {} is fixed to {fixed} of them",
                component.graph.path.display()
            ),
            "choose the width and height that the graph was exported for, or export it with free axes",
        )),
    }
}
