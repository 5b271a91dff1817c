//! What a pipeline has to heed of Flux and its kin.

use crate::bundle::{Bundle, Component, DenoiserContract};
use crate::error::{Error, Result};
use crate::task::Task;

/// Requires that a task guides a model that learnt the effect of guidance, and no other, by the key for that, and that a
/// model with packed samples can be told the time as Flux tells it.
pub(super) fn check(task: &dyn Task, component: &Component, contract: &DenoiserContract) -> Result<()> {
    let scale = task.prompting().map_or(1.0, |prompting| prompting.true_cfg_scale);
    if scale > 1.0 && !contract.has_learnt_guidance() {
        return Err(Error::input(
            format!("task.{}.true_cfg_scale", task.name()),
            format!("{scale} is given, and this model is guided by guidance_scale"),
            "leave the key out; it belongs to models that learnt the effect of guidance, such as Flux",
        ));
    }
    let timestep = &contract.timestep;
    if contract.positions.is_some() && timestep.dtype.is_integer() {
        return Err(Error::model(
            &component.graph.path,
            format!("input {timestep} takes whole numbers, and such a model is told times between 0 and 1"),
            "export it with a float timestep (scripts/export.py does)",
        ));
    }
    Ok(())
}

/// Requires that a graph fixed to a number of tokens is given so many by a picture of this size.
pub(super) fn check_size(bundle: &Bundle, (width, height): (usize, usize)) -> Result<()> {
    let Ok(component) = bundle.denoiser() else { return Ok(()) };
    let contract = DenoiserContract::resolve(component).ok();
    let tokens = bundle.facts.patches(width, height);
    match contract.and_then(|contract| contract.sequence_length).filter(|&fixed| fixed != tokens) {
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
