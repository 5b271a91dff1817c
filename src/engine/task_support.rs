//! The tasks that a model directory can do, as pipeline files.

use std::path::Path;

use crate::bundle::{Bundle, DirectoryOverrides};
use crate::error::{Error, Result};
use crate::spec::{Overrides, Spec, init_toml};
use crate::task::task_fits;

/// Returns the text of a pipeline file for a model directory: its first possible task, with the defaults spelled out.
///
/// # Errors
/// [`Error::Model`] if the directory is not one that can be run, [`Error::Io`] if it cannot be read.
pub fn pipeline_toml(dir: &Path) -> Result<String> {
    let bundle = Bundle::open(dir, &DirectoryOverrides::default())?;
    bundle.family()?;
    let tasks = task_fits(&bundle);
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
