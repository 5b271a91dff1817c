//! The stages of a plan by their positions: 0 is that of the file's own tables.

use std::ops::Range;

use super::event::{ExecutionEvent, Observer};
use super::interrupt::report;
use crate::error::Result;
use crate::plan::{ExecutionPlan, Plan, RunPlan};
use crate::session::Cancel;
use crate::spec::StageInput;

/// The execution of a stage; number 0 is that of the file's own tables.
pub(super) fn execution_of(plan: &Plan, at: usize) -> &ExecutionPlan {
    let stage = at.checked_sub(1).and_then(|at| plan.stages.get(at));
    stage.map_or(&plan.execution, |stage| &stage.execution)
}

/// The request of a stage, and the form in which it gets the results of the one before it.
pub(super) fn request_of(plan: &Plan, at: usize) -> (&RunPlan, Option<StageInput>) {
    match at.checked_sub(1).and_then(|at| plan.stages.get(at)) {
        None => (&plan.request, None),
        Some(stage) => (&stage.request, Some(stage.hand)),
    }
}

/// The key of a stage.
pub(super) fn key_of(plan: &Plan, at: usize) -> &str {
    at.checked_sub(1).and_then(|at| plan.stages.get(at)).map_or("base", |stage| &stage.key)
}

/// Does the work of a stage and puts the stage's key before its warnings and its error. A single stage has no key.
pub(super) fn within<T>(
    plan: &Plan,
    at: usize,
    cancel: &Cancel,
    observer: &mut Observer<'_>,
    work: &mut dyn FnMut(&mut Observer<'_>) -> Result<T>,
) -> Result<T> {
    if plan.stages.is_empty() {
        return work(observer);
    }
    let key = key_of(plan, at);
    report(observer, cancel, ExecutionEvent::Stage { key, number: at + 1, of: plan.stages.len() + 1 })?;
    let mut named = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Warning(warning) => observer(ExecutionEvent::Warning(format!("{key}: {warning}"))),
        other => observer(other),
    };
    work(&mut named).map_err(|error| error.in_stage(key))
}

/// A range in parts of at most `size`.
pub(super) fn batches(all: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.step_by(size.max(1)).map(move |first| first..(first + size.max(1)).min(end))
}
