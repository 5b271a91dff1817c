//! Opens a pipeline's graphs once and runs any number of plans on them.

use super::event::Observer;
use super::finished_image::Timings;
use super::parts::Opener;
use super::pool::Pool;
use super::position::{batches, within};
use super::stages::StageRun;
use super::verification_report::ComponentVerification;
use crate::error::Result;
use crate::plan::{ExecutionPlan, Plan};
use crate::session::{Cancel, Runtime};

/// Open graphs, and the plans that run on them: of one model, or of several in a row.
///
/// Every plan can be run. What it needs and is not open yet is opened; what is open and it does not need stays open, unless
/// its graphs don't stay open (`[device] keep`). Plans of one [`ModelSources`](crate::plan::ModelSources) share prompts'
/// embeddings too.
pub struct Execution {
    pub(super) runtime: Runtime,
    pub(super) pool: Pool,
    /// The models of the latest plan, fitted to this machine.
    pub(super) models: Vec<ExecutionPlan>,
    /// The comparisons of providers with the CPU, of the graphs that are ready.
    pub(super) verifications: Vec<ComponentVerification>,
    /// False if graphs are not compared before they are first used.
    pub(super) verifies_once: bool,
    /// True if graphs whose provider compiles them in the host's memory are opened at their turn.
    pub(super) opens_in_turn: bool,
}

impl Execution {
    /// Makes an execution with no graph open.
    pub fn new(runtime: &Runtime) -> Self {
        Self {
            runtime: runtime.clone(),
            pool: Pool::default(),
            models: Vec::new(),
            verifications: Vec::new(),
            verifies_once: true,
            opens_in_turn: false,
        }
    }

    /// Opens the graphs that the plan needs in the order in which they run, or sees to it that they can be opened in an
    /// instant ([`ExecutionPlan::cache_for`](crate::plan::ExecutionPlan::cache_for)); those are opened when it is their turn.
    ///
    /// # Errors
    /// [`Error::Graph`](crate::Error::Graph) if the runtime refuses a graph, [`Error::Provider`](crate::Error::Provider) if no provider of a list can be used,
    /// [`Error::Model`](crate::Error::Model) if graph and tokenizer do not fit, [`Error::Memory`](crate::Error::Memory) if the machine has less memory free than a
    /// run takes, [`Error::Interrupted`](crate::Error::Interrupted) if `cancel` is thrown; each within [`Error::Stage`](crate::Error::Stage) if there are several models.
    pub fn load(plan: &Plan, runtime: &Runtime, cancel: &Cancel, observer: &mut Observer<'_>) -> Result<Self> {
        Self::new(runtime).loaded(plan, cancel, observer)
    }

    /// As [`Execution::load`], for a single run ([`Execution::finish`]): graphs whose provider compiles them in the host's
    /// memory ([`ExecutionPlan::compiles_on_host`]) are opened when it is their turn, after those before them were closed.
    ///
    /// # Errors
    /// As [`Execution::load`].
    pub fn load_in_turn(plan: &Plan, runtime: &Runtime, cancel: &Cancel, observer: &mut Observer<'_>) -> Result<Self> {
        Self { opens_in_turn: true, ..Self::new(runtime) }.loaded(plan, cancel, observer)
    }

    fn loaded(mut self, plan: &Plan, cancel: &Cancel, observer: &mut Observer<'_>) -> Result<Self> {
        self.ready(plan, true, cancel, observer)?;
        Ok(self)
    }

    /// Has runs fail for which no memory is left, rather than decode in tiles that the request does not have.
    pub fn forbid_tiles(&mut self) {
        self.pool.forbid_tiles();
    }

    /// Opens every graph of a plan that is not open yet.
    ///
    /// # Errors
    /// As [`Execution::load`].
    pub fn open_all(&mut self, plan: &Plan, cancel: &Cancel, observer: &mut Observer<'_>) -> Result<()> {
        let models = self.ready(plan, false, cancel, observer)?;
        for (at, model) in models.iter().enumerate() {
            let (runtime, pool) = (&self.runtime, &mut self.pool);
            within(plan, at, cancel, observer, &mut |observer| {
                Opener::new(&model.plan, runtime, pool, cancel, observer).open_all()
            })?;
        }
        Ok(())
    }

    /// The models of the plan that was loaded or run last, fitted to this machine, in the order in which they run.
    pub fn models(&self) -> impl Iterator<Item = &ExecutionPlan> {
        self.models.iter()
    }

    /// Makes the images of a plan, handing each to the observer as soon as its last stage is done with it. `cancel` stops
    /// the run from another thread, within the time of one operator.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) naming the step, [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Input`](crate::Error::Input) if an input does not fit, those of
    /// [`Execution::load`], and those of running the graphs.
    pub fn run(&mut self, plan: &Plan, cancel: &Cancel, observer: &mut Observer<'_>) -> Result<Timings> {
        self.make(plan, false, cancel, observer)
    }

    /// As [`Execution::run`], for the last plan: each graph is closed as soon as no image needs it any more, so that its
    /// memory is free for those that come after it.
    ///
    /// # Errors
    /// As [`Execution::run`].
    pub fn finish(mut self, plan: &Plan, cancel: &Cancel, observer: &mut Observer<'_>) -> Result<Timings> {
        self.make(plan, true, cancel, observer)
    }

    fn make(&mut self, plan: &Plan, is_last: bool, cancel: &Cancel, observer: &mut Observer<'_>) -> Result<Timings> {
        self.pool.begin_run();
        let models = self.ready(plan, false, cancel, observer)?;
        if is_last {
            self.close_others(&models);
        }
        let mut timings = Timings::default();
        let indices = plan.request.indices()?;
        let end = indices.end;
        for batch in batches(indices, plan.request.batch) {
            let is_last = is_last && batch.end == end;
            let mut images = Vec::new();
            for (at, model) in models.iter().enumerate() {
                let (runtime, pool) = (&self.runtime, &mut self.pool);
                images = within(plan, at, cancel, observer, &mut |observer| {
                    let mut stage =
                        StageRun::new((plan, at), model, (runtime, &mut *pool), is_last, cancel, &mut timings);
                    stage.run(batch.clone(), &images, observer)
                })?;
            }
        }
        Ok(timings)
    }
}
