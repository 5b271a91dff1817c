//! The fallback of `precision = "auto"` to float32, and that of what `"int8"` leaves to it.

use super::event::Observer;
use super::parts;
use super::pool::{Pool, SessionKey, openings, session_options};
use crate::bundle::ComponentKind;
use crate::error::{Error, Result};
use crate::plan::{ExecutionPlan, Opening};
use crate::session::{Cancel, Runtime};

/// Leaves those components in float32 that were found not to run in bf16.
///
/// # Errors
/// As [`ExecutionPlan::leave_in_float32`].
pub(super) fn apply_known(plan: &mut ExecutionPlan, pool: &Pool) -> Result<()> {
    for kind in plan.automatic_bf16() {
        if graphs(plan, kind).iter().any(|opening| pool.stays_in_float32(&SessionKey::new(plan, opening))) {
            plan.leave_in_float32(kind)?;
        }
    }
    Ok(())
}

/// Optimizes the graphs for which `auto` chooses bf16, and leaves their components in float32 where that fails: if a graph
/// has few products for bf16, or its optimized form cannot be cached.
///
/// # Errors
/// [`Error::Interrupted`], and as [`ExecutionPlan::leave_in_float32`].
pub(super) fn settle(
    plan: &mut ExecutionPlan,
    runtime: &Runtime,
    pool: &mut Pool,
    cancel: &Cancel,
    observer: &mut Observer<'_>,
) -> Result<()> {
    let mut runs_in_bf16 = Vec::new();
    while let Some(kind) = plan.automatic_bf16().into_iter().find(|kind| !runs_in_bf16.contains(kind)) {
        let opened = graphs(plan, kind);
        let mut fits = true;
        for opening in &opened {
            fits = fits && optimize(plan, opening, runtime, cancel, observer)?;
        }
        if fits {
            runs_in_bf16.push(kind);
        } else {
            opened.iter().for_each(|opening| pool.set_stays_in_float32(SessionKey::new(plan, opening)));
            plan.leave_in_float32(kind)?;
        }
    }
    Ok(())
}

/// The graphs of a component that a plan opens.
fn graphs(plan: &ExecutionPlan, kind: ComponentKind) -> Vec<Opening<'_>> {
    openings(plan).into_iter().filter(|opening| opening.kind == kind).collect()
}

/// Sees to it that a graph is in the cache in bf16, and returns false if it cannot be.
fn optimize(
    plan: &ExecutionPlan,
    opening: &Opening<'_>,
    runtime: &Runtime,
    cancel: &Cancel,
    observer: &mut Observer<'_>,
) -> Result<bool> {
    let Some(cache) = plan.cache_for(opening.kind) else { return Ok(false) };
    let options = session_options(plan, opening, cancel);
    let entry = cache.optimize(runtime, opening.graph, &opening.passes, &options, &mut |event| {
        parts::forward(opening, event, observer)
    });
    match entry {
        Err(error @ Error::Interrupted { .. }) => Err(error),
        entry => Ok(entry.is_ok_and(|entry| entry.is_some())),
    }
}
