//! Gets the graphs of a plan ready on this machine.

use super::batching;
use super::event::{ExecutionEvent, Observer};
use super::interrupt::report;
use super::open::Execution;
use super::parts::Opener;
use super::pool::{Pool, ReadyModel, SessionKey, openings};
use super::position::{execution_of, key_of, request_of, within};
use super::precision;
use crate::bundle::ComponentKind;
use crate::error::{Error, Result};
use crate::graph_cache::CachedGraph;
use crate::memory;
use crate::plan::{CountedMemory, ExecutionPlan, Opening, Plan, Sizes};
use crate::session::{Cancel, Runtime};

impl Execution {
    /// Gets the graphs of all stages ready, in the order in which they run. Those that are ready are left as they are, and
    /// nothing is reported of them unless this `is_load`.
    pub(super) fn ready(
        &mut self,
        plan: &Plan,
        is_load: bool,
        cancel: &Cancel,
        observer: &mut Observer<'_>,
    ) -> Result<Vec<ReadyModel>> {
        let mut models = Vec::new();
        let mut notes = Vec::new();
        for at in 0..=plan.stages.len() {
            let stage = at.checked_sub(1).and_then(|at| plan.stages.get(at));
            let mut of_stage = stage.map(|stage| stage.warnings.clone()).unwrap_or_default();
            let mut model = execution_of(plan, at).clone();
            self.pool.close_damaged(model.graph_cache.as_ref());
            let chosen = self.choose_providers(&mut model);
            let chosen = if plan.stages.is_empty() { chosen } else { chosen.map_err(|e| e.in_stage(key_of(plan, at))) };
            of_stage.extend(chosen?);
            model.read_device_memory(&self.runtime);
            let request = request_of(plan, at).0;
            model.sizes = Sizes::of(request, &model.model.model);
            precision::apply_known(&mut model, &self.pool)?;
            model.measured_rows = batching::known(&model, &self.runtime, &mut self.pool)?;
            models.push(model);
            notes.push(self.pool.untold(of_stage));
        }
        self.pool.close_outdated(&models.iter().flat_map(keys).collect::<Vec<_>>());
        for (at, (model, notes)) in models.iter_mut().zip(notes).enumerate() {
            let is_ready = keys(model).iter().all(|key| self.pool.is_ready(key));
            if is_load || !notes.is_empty() || !is_ready || batching::is_due(model, &self.pool) {
                within(plan, at, cancel, observer, &mut |observer| {
                    for note in &notes {
                        report(observer, cancel, ExecutionEvent::Warning(note.clone()))?;
                    }
                    self.ready_model(model, cancel, observer)
                })?;
            }
        }
        let stays = |plan: ExecutionPlan| ReadyModel { stay: stays_open(&plan, &self.pool), plan };
        let mut ready: Vec<_> = models.into_iter().map(stays).collect();
        if ready.iter().any(|model| !model.stay) {
            // Graphs that only other plans need make room.
            self.close_others(&ready);
            ready.iter_mut().for_each(|model| model.stay = stays_open(&model.plan, &self.pool));
        }
        self.models = ready.iter().map(|model| model.plan.clone()).collect();
        Ok(ready)
    }

    /// Closes the graphs that none of these models needs.
    pub(super) fn close_others(&mut self, models: &[ReadyModel]) {
        let needed: Vec<_> = models.iter().flat_map(|model| keys(&model.plan)).collect();
        self.pool.close_others(&needed);
    }

    /// Leaves in each list of providers those that can be used here, and returns a sentence for each that is skipped.
    fn choose_providers(&mut self, model: &mut ExecutionPlan) -> Result<Vec<String>> {
        let kinds: Vec<ComponentKind> = openings(model).iter().map(|opening| opening.kind).collect();
        let asked = (model.device.clone(), kinds);
        if let Some(device) = self.pool.device(&asked) {
            model.device = device;
            return Ok(Vec::new());
        }
        let notes = model.choose_providers(&self.runtime)?;
        self.pool.set_device(asked, model.device.clone());
        Ok(notes)
    }

    fn ready_model(&mut self, model: &mut ExecutionPlan, cancel: &Cancel, observer: &mut Observer<'_>) -> Result<()> {
        let is_ready = keys(model).iter().all(|key| self.pool.is_ready(key));
        let has_run = self.pool.has_run_at(model.sizes);
        if !is_ready || !has_run {
            let counted = |opening: &Opening<'_>| match self.pool.is_open(&SessionKey::new(model, opening)) {
                false => CountedMemory::All,
                true if has_run => CountedMemory::None,
                true => CountedMemory::Activations,
            };
            if let Some(free) = memory::available()
                && let Some(warning) = model.check_free_memory_for(free, &counted)?
            {
                report(observer, cancel, ExecutionEvent::Warning(warning))?;
            }
            self.pool.set_run_at(model.sizes);
        }
        if !is_ready {
            precision::settle(model, &self.runtime, &mut self.pool, cancel, observer)?;
            let stay = stays_open(model, &self.pool) && !(self.opens_in_turn && model.compiles_on_host());
            Opener::new(model, &self.runtime, &mut self.pool, cancel, observer).load(stay)?;
            self.verify_once(model, stay, cancel, observer)?;
            self.pool.set_ready(keys(model));
        }
        if batching::is_due(model, &self.pool) {
            // It was opened for a way that may be another, and makes room.
            self.pool.close(&model.model.denoiser.graph.path);
            model.measured_rows = batching::rows(model, &self.runtime, &mut self.pool, cancel, observer)?;
            self.pool.set_ready(keys(model));
        }
        Ok(())
    }

    /// Optimizes ahead the graphs of a model that can be ([`ExecutionPlan::cache_for`]), and returns what is kept of each.
    ///
    /// # Errors
    /// As [`Execution::load`]; [`Error::Io`] besides if something cannot be kept.
    pub fn prepare(
        model: &ExecutionPlan,
        runtime: &Runtime,
        cancel: &Cancel,
        observer: &mut Observer<'_>,
    ) -> Result<Vec<CachedGraph>> {
        let (mut model, mut pool) = (model.clone(), Pool::default());
        for note in model.choose_providers(runtime)? {
            report(observer, cancel, ExecutionEvent::Warning(note))?;
        }
        precision::settle(&mut model, runtime, &mut pool, cancel, observer)?;
        model.measured_rows = batching::known(&model, runtime, &mut pool)?;
        let made = Opener::new(&model, runtime, &mut pool, cancel, observer).prepare();
        let made = made.into_iter().map(cached).collect::<Result<_>>()?;
        if !batching::is_due(&model, &pool) {
            return Ok(made);
        }
        model.measured_rows = batching::rows(&model, runtime, &mut pool, cancel, observer)?;
        if model.runs_by_row() {
            return Ok(made);
        }
        let made = Opener::new(&model, runtime, &mut pool, cancel, observer).prepare();
        made.into_iter().map(cached).collect()
    }
}

/// Requires that an optimized graph is in the cache.
fn cached((opening, entry): (Opening<'_>, Result<Option<CachedGraph>>)) -> Result<CachedGraph> {
    let help = "name another folder with LDM_ORT_CACHE_DIR";
    entry?.ok_or_else(|| Error::input(opening.kind.name(), "the graph cache cannot be written", help))
}

/// The keys of the graphs that a model opens, that of the previews among them.
fn keys(model: &ExecutionPlan) -> Vec<SessionKey> {
    openings(model).iter().map(|opening| SessionKey::new(model, opening)).collect()
}

/// True if a model's graphs stay open once they have done their work.
fn stays_open(model: &ExecutionPlan, pool: &Pool) -> bool {
    model.keeps_open(&|opening| pool.is_open(&SessionKey::new(model, opening)))
}
