//! Opens a pipeline's graphs once, runs any number of requests on them, and reports every step.

mod batch;
mod batching;
mod event;
mod finished_image;
mod parts;
mod pool;
mod previews;
mod ready;
mod stages;

use std::ops::{ControlFlow, Range};

use crate::error::{Error, Result, StepPosition};
use crate::plan::{ModelPlan, Plan};
use crate::session::{Cancel, Runtime};

use pool::Pool;
use stages::{StageRun, within};

pub use event::{ExecutionEvent, Observer, Unwatched};
pub use finished_image::{FinishedImage, Timings};

/// Open graphs, and the plans that run on them: of one model, or of several in a row.
///
/// Every plan can be run. What it needs and is not open yet is opened; what is open and it does not need stays open, unless
/// its graphs don't stay open (`[device] offload`). Plans of one [`ModelSources`](crate::plan::ModelSources) share prompts'
/// embeddings too.
pub struct Execution {
    runtime: Runtime,
    pool: Pool,
    /// The models of the latest plan, fitted to this machine.
    models: Vec<ModelPlan>,
}

impl Execution {
    /// Makes an execution with no graph open.
    pub fn new(runtime: &Runtime) -> Self {
        Self { runtime: runtime.clone(), pool: Pool::default(), models: Vec::new() }
    }

    /// Opens the graphs that the plan needs in the order in which they run, or sees to it that they can be opened in an
    /// instant ([`ModelPlan::prepared`](crate::plan::ModelPlan::prepared)); those are opened when it is their turn.
    ///
    /// # Errors
    /// [`Error::Graph`] if the runtime refuses a graph, [`Error::Provider`] if no provider of a list can be used,
    /// [`Error::Model`] if graph and tokenizer do not fit, [`Error::Memory`] if the machine has less memory free than a
    /// run takes, [`Error::Interrupted`] when the observer breaks; each within [`Error::Stage`] if there are several models.
    pub fn load(plan: &Plan, runtime: &Runtime, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Self> {
        let mut execution = Self::new(runtime);
        execution.ready(plan, true, cancel, observer)?;
        Ok(execution)
    }

    /// Opens every graph of a plan that is not open yet.
    ///
    /// # Errors
    /// As [`Execution::load`].
    pub fn open_all(&mut self, plan: &Plan, cancel: &Cancel, observer: &mut dyn Observer) -> Result<()> {
        let models = self.ready(plan, false, cancel, observer)?;
        for (at, model) in models.iter().enumerate() {
            let (runtime, pool) = (&self.runtime, &mut self.pool);
            within(plan, at, observer, &mut |observer| {
                parts::Opener::new(&model.plan, runtime, pool, cancel, observer).open_all()
            })?;
        }
        Ok(())
    }

    /// The models of the plan that was loaded or run last, fitted to this machine, in the order in which they run.
    pub fn models(&self) -> impl Iterator<Item = &ModelPlan> {
        self.models.iter()
    }

    /// Makes the images of a plan, handing each to the observer as soon as its last stage is done with it. `cancel` stops
    /// the run from another thread, within the time of one operator.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step, [`Error::Interrupted`], [`Error::Input`] if an input does not fit, those of
    /// [`Execution::load`], and those of running the graphs.
    pub fn run(&mut self, plan: &Plan, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        self.make(plan, false, cancel, observer)
    }

    /// As [`Execution::run`], for the last plan: each graph is closed as soon as no image needs it any more, so that its
    /// memory is free for those that come after it.
    ///
    /// # Errors
    /// As [`Execution::run`].
    pub fn finish(mut self, plan: &Plan, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        self.make(plan, true, cancel, observer)
    }

    fn make(&mut self, plan: &Plan, is_last: bool, cancel: &Cancel, observer: &mut dyn Observer) -> Result<Timings> {
        let models = self.ready(plan, false, cancel, observer)?;
        if is_last {
            self.close_others(&models);
        }
        let mut timings = Timings::default();
        let indices = plan.request.indices()?;
        let end = indices.end;
        for batch in batches(indices, plan.request.batch) {
            let is_last = is_last && batch.end == end;
            let mut made = Vec::new();
            for (at, model) in models.iter().enumerate() {
                let (runtime, pool) = (&self.runtime, &mut self.pool);
                made = within(plan, at, observer, &mut |observer| {
                    let mut stage =
                        StageRun::new((plan, at), model, (runtime, &mut *pool), is_last, cancel, &mut timings);
                    stage.run(batch.clone(), &made, observer)
                })?;
            }
        }
        Ok(timings)
    }
}

/// A range in parts of at most `size`.
fn batches(all: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.step_by(size.max(1)).map(move |first| first..(first + size.max(1)).min(end))
}

fn stop_if(flow: ControlFlow<()>, at_step: Option<StepPosition>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted { at_step }),
    }
}
