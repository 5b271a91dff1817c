//! The files that a run begins with, read whole.

use std::path::Path;

use ndarray::ArrayD;

use super::model::ModelPlan;
use super::pipeline_plan::Plan;
use super::problems::Problems;
use super::run_plan::RunPlan;
use crate::error::{Error, Result};
use crate::npy;
use crate::task::{InputRequirements, check_condition};

impl Plan {
    /// Reads the files that the run begins with (images to their last pixel, masks, latents, conditions) and requires that
    /// they fit, which a run finds out as it starts.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file, within [`Error::Stage`] where it is about
    /// a `[[stage]]`; [`Error::Several`] where there are several.
    pub fn check_inputs(&self) -> Result<()> {
        let mut problems = Problems::default();
        problems.unless(check(&self.model, &self.request));
        for stage in &self.stages {
            problems.unless(check(&stage.model, &stage.request).map_err(|error| error.in_stage(&stage.key)));
        }
        problems.check()
    }
}

fn check(model: &ModelPlan, request: &RunPlan) -> Result<()> {
    let run = InputRequirements {
        images: request.total_images(),
        sample: model.sample_shape(request.width, request.height),
        size: (request.width, request.height),
        limit: request.input_limit,
    };
    let mut problems = Problems::default();
    problems.unless(request.task.check_inputs(&run));
    for control in &model.controls {
        problems.unless(control.image.load(run.limit).map(drop));
    }
    for condition in &model.conditions {
        problems.unless(check_condition(&condition.condition, &run));
    }
    problems.check()
}

/// Reads the noise of `run.latents`, one sample for each image.
pub(super) fn read_latents(path: &Path, images: usize, [c, h, w]: [usize; 3]) -> Result<ArrayD<f32>> {
    let latents = npy::read_f32(path)?;
    let wanted = [images, c, h, w];
    if latents.shape() != wanted {
        return Err(Error::input(
            path.display().to_string(),
            format!("holds an array of shape {:?}, and this run starts from {wanted:?}", latents.shape()),
            "run.latents is unit normal noise, [images, channels, height/f, width/f]",
        ));
    }
    let not_finite = latents.iter().filter(|value| !value.is_finite()).count();
    if not_finite > 0 {
        return Err(Error::input(
            path.display().to_string(),
            format!("{not_finite} of its {} values are not finite", latents.len()),
            "run.latents is unit normal noise; draw it anew",
        ));
    }
    Ok(latents)
}
