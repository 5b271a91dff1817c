//! The tasks that a model directory can do.

use super::TASKS;
use super::contract::TaskEntry;
use super::evidence::ModelEvidence;
use crate::bundle::{Bundle, DenoiserSignature, TaskFit};

/// Judges for each task if this model can do it, the task it was made for first.
pub fn task_fits(bundle: &Bundle) -> Vec<TaskFit> {
    let fit = |entry: &TaskEntry, verdict: Result<(), String>| TaskFit {
        task: entry.name,
        possible: verdict.is_ok(),
        reason: verdict.err().unwrap_or_default(),
    };
    let signature = bundle.family().and_then(|_| bundle.denoiser()).and_then(DenoiserSignature::resolve);
    let evidence = match signature {
        Ok(signature) => ModelEvidence::new(bundle, &signature),
        Err(error) => {
            let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
            return TASKS.iter().map(|entry| fit(entry, Err(reason.clone()))).collect();
        }
    };
    let is_made_for = |entry: &TaskEntry| entry.own_models.as_ref().is_some_and(|own| (own.is_made_for)(&evidence));
    let mut entries = TASKS.to_vec();
    entries.sort_by_key(|entry| !is_made_for(entry));
    entries.into_iter().map(|entry| fit(entry, (entry.fit)(&evidence))).collect()
}
