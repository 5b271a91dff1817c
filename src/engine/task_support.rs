//! The tasks that this program can do with a model.

use std::path::Path;

use crate::bundle::{Bundle, DirectoryOverrides, TaskFit, init_toml, task_fits};
use crate::error::{Error, Result};
use crate::spec::{Overrides, Spec, TASKS};

/// Returns the tasks that the directory allows, without those that this version of the program lacks.
pub(crate) fn supported_tasks(bundle: &Bundle) -> Vec<TaskFit> {
    let mut fits = task_fits(bundle);
    for fit in fits.iter_mut().filter(|fit| fit.possible) {
        if !TASKS.iter().any(|task| task.name == fit.task) {
            fit.possible = false;
            fit.reason = "the directory has what it takes, but this version of ldm-ort has no such task".to_owned();
        }
    }
    fits
}

/// Returns the text of a pipeline file for a model directory: its first possible task, with the defaults spelled out.
///
/// # Errors
/// [`Error::Model`] if the directory is not one that can be run, [`Error::Io`] if it cannot be read.
pub fn pipeline_toml(dir: &Path) -> Result<String> {
    let bundle = Bundle::open(dir, &DirectoryOverrides::default())?;
    bundle.family()?;
    let tasks = supported_tasks(&bundle);
    if !tasks.iter().any(|task| task.possible) {
        let reasons: Vec<_> = tasks.iter().map(|task| format!("\n    {}: {}", task.task, task.reason)).collect();
        return Err(Error::model(
            dir,
            format!("there is no task that could be run with it:{}", reasons.concat()),
            "`ldm-ort inspect` tells more",
        ));
    }
    Ok(init_toml(&bundle, &dir.to_string_lossy(), &tasks))
}

/// Makes the spec of a model directory's first possible task, with flags over it.
///
/// # Errors
/// As [`pipeline_toml`], and [`Error::Spec`] for the flags.
pub fn model_spec(dir: &Path, overrides: &Overrides) -> Result<Spec> {
    Spec::parse(&pipeline_toml(dir)?, None, overrides)
}
