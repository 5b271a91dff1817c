//! Which tasks this program can do with a model, beside which the model could do.

use crate::bundle::{Bundle, TaskFit, task_fits};
use crate::spec::TASKS;

/// What the directory allows, less what this version of the program lacks.
pub(super) fn fits(bundle: &Bundle) -> Vec<TaskFit> {
    let mut fits = task_fits(bundle);
    for fit in fits.iter_mut().filter(|fit| fit.possible) {
        if !TASKS.iter().any(|task| task.name == fit.task) {
            fit.possible = false;
            fit.reason = "the directory has what it takes, but this version of ldm-ort has no such task".to_owned();
        }
    }
    fits
}
