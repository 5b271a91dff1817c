//! The measurement of the fastest way to run the rows of a guided call on this machine.

use std::time::Instant;

use ndarray::{ArrayD, IxDyn};

use super::event::{ExecutionEvent, Observer};
use super::interrupt::report;
use super::parts;
use super::pool::{Pool, session_options};
use crate::error::{Error, Result};
use crate::graph_cache::{self, CacheFile, CachedGraph, GraphCache, Rows};
use crate::plan::{self, ExecutionPlan};
use crate::session::{Cancel, GraphRun, Runtime, Session, cpu_threads};
use crate::spec::Batching;
use crate::tensor::{DType, Dim, Tensor, TensorInfo, TensorView};

/// Measures a plan's denoiser, and remembers it; `None` where nothing is to be chosen, or cannot be measured.
///
/// Two rows are run at the same time, and one alone, which counts twice; where threads are left over when each row has one, all
/// rows in one run, too. One run before those brings the weights into memory.
///
/// # Errors
/// [`Error::Interrupted`], and [`Error::Io`] where the graph's files cannot be read.
pub(super) fn rows(
    plan: &ExecutionPlan,
    runtime: &Runtime,
    pool: &mut Pool,
    cancel: &Cancel,
    observer: &mut Observer<'_>,
) -> Result<Option<Rows>> {
    let Some(place) = place(plan, runtime)? else { return Ok(None) };
    report(observer, cancel, ExecutionEvent::Measuring { component: plan.model.denoiser.kind })?;
    let rows = match measure(plan, runtime, cancel, observer) {
        Err(error @ Error::Interrupted { .. }) => return Err(error),
        // Ones need not be what a graph can be run on.
        Err(_) => None,
        Ok(rows) => rows,
    };
    rows.into_iter().for_each(|rows| place.write(rows));
    pool.set_measured(&plan.model.denoiser.graph.path, threads(plan), rows);
    Ok(rows)
}

/// Returns the earlier measurement.
///
/// # Errors
/// [`Error::Io`] where the graph's files cannot be read.
pub(super) fn known(plan: &ExecutionPlan, runtime: &Runtime, pool: &mut Pool) -> Result<Option<Rows>> {
    if cache(plan).is_none() {
        return Ok(None);
    }
    let (graph, threads) = (&plan.model.denoiser.graph.path, threads(plan));
    let is_enough = |rows: &Rows| rows.tried_batched || !tries_batched(plan);
    if let Some(rows) = pool.measured(graph, threads) {
        return Ok(rows.filter(is_enough));
    }
    let known = place(plan, runtime)?.and_then(|place| place.read()).filter(is_enough);
    known.into_iter().for_each(|rows| pool.set_measured(graph, threads, Some(rows)));
    Ok(known)
}

/// True if there is anything to choose that is not known, and was not found to be unmeasurable.
pub(super) fn is_due(plan: &ExecutionPlan, pool: &Pool) -> bool {
    let tried = || pool.measured(&plan.model.denoiser.graph.path, threads(plan));
    plan.measured_rows.is_none() && cache(plan).is_some() && tried() != Some(None)
}

/// True if one run of all rows may be the fastest: with a thread for each of two rows neither waits for others, and one
/// run of all has nothing to win.
fn tries_batched(plan: &ExecutionPlan) -> bool {
    plan.can_batch() && threads(plan) > 2
}

/// Returns the file of measurements, if there is anything to choose.
fn place(plan: &ExecutionPlan, runtime: &Runtime) -> Result<Option<CacheFile<Rows>>> {
    cache(plan).map(|cache| cache.measured(runtime, &plan.model.denoiser.graph, threads(plan))).transpose()
}

/// The cache that it is remembered in, if there is anything to choose.
fn cache(plan: &ExecutionPlan) -> Option<&GraphCache> {
    plan.cache_for(plan.model.denoiser.kind).filter(|_| plan.chooses_rows() && threads(plan) > 1)
}

fn threads(plan: &ExecutionPlan) -> usize {
    plan.threads().unwrap_or_else(cpu_threads)
}

fn measure(
    plan: &ExecutionPlan,
    runtime: &Runtime,
    cancel: &Cancel,
    observer: &mut Observer<'_>,
) -> Result<Option<Rows>> {
    let Some(mut split) = Trial::new(plan, Batching::Split, runtime, cancel, observer)? else { return Ok(None) };
    let at_the_same_time = split.seconds(2)?;
    split.session.open_for_single_runs(cancel)?;
    let sequential = 2.0 * split.seconds(1)?;
    drop(split);
    let tried_batched = tries_batched(plan);
    let mut rows = Rows { split: at_the_same_time, sequential, batched: None, tried_batched };
    if tried_batched {
        // Whatever else goes wrong, such as no room for another form of the graph, is no reason to fail.
        if let Err(error @ Error::Interrupted { .. }) = batched(plan, &mut rows, runtime, cancel, observer) {
            return Err(error);
        }
    }
    Ok(Some(rows))
}

/// Measures one run of all rows, and keeps the graph for it only where that is the fastest way.
fn batched(
    plan: &ExecutionPlan,
    rows: &mut Rows,
    runtime: &Runtime,
    cancel: &Cancel,
    observer: &mut Observer<'_>,
) -> Result<()> {
    let Some(mut trial) = Trial::new(plan, Batching::Batched, runtime, cancel, observer)? else { return Ok(()) };
    let seconds = trial.seconds(1);
    rows.batched = seconds.as_ref().ok().map(|seconds| 2.0 * seconds / trial.rows as f64);
    trial.end(plan::fastest(rows, true) == Batching::Batched)?;
    seconds.map(|_| ())
}

/// A denoiser's graph, opened for one way of running rows.
struct Trial<'a> {
    session: Session,
    inputs: Vec<(String, Tensor)>,
    output: String,
    /// Values of the output of one run.
    length: usize,
    /// Rows of one run.
    rows: usize,
    cancel: &'a Cancel,
    /// The graph's cache entry, if it is new.
    made: Option<CachedGraph>,
}

impl<'a> Trial<'a> {
    /// Opens a plan's denoiser and runs it once; `None` where the lengths of its inputs are not known.
    fn new(
        plan: &ExecutionPlan,
        way: Batching,
        runtime: &Runtime,
        cancel: &'a Cancel,
        observer: &mut Observer<'_>,
    ) -> Result<Option<Self>> {
        let mut plan = plan.clone();
        plan.device.batching = way;
        let (kind, graph) = (plan.model.denoiser.kind, &plan.model.denoiser.graph);
        let opening = plan.opening(&plan.model.denoiser);
        let axes = plan.axes(&opening);
        let length = |dim: &Dim| match dim {
            Dim::Fixed(length) => Some(*length),
            Dim::Free(name) => axes.iter().find(|(own, _)| own == name).map(|(_, length)| *length),
        };
        let filled = |info: &TensorInfo| {
            let shape = info.shape.iter().map(length).collect::<Option<Vec<_>>>()?;
            Some((info.name.clone(), filled(info.dtype, &shape)))
        };
        let Some(inputs) = graph.inputs.iter().map(filled).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let Some(cache) = plan.cache_for(kind) else { return Ok(None) };
        let options = session_options(&plan, &opening, cancel);
        let was_kept = cache.contains(runtime, graph, &opening.passes, &options)?;
        let mut tell = |event: graph_cache::GraphCacheEvent<'_>| parts::forward(&opening, event, observer);
        let Some(entry) = cache.optimize(runtime, graph, &opening.passes, &options, &mut tell)? else {
            return Ok(None);
        };
        let output = plan.model.model.denoiser.output.name.clone();
        let mut opened = || {
            let mut session = cache.open(runtime, graph, &opening.passes, &options, &mut tell)?;
            session.keep_memory(true);
            let length = session.run(&views(&inputs), &[&output], cancel)?.iter().map(ArrayD::len).sum();
            Ok((session, length))
        };
        let (session, length) = match opened() {
            Err(error) if !was_kept => return entry.remove().and(Err(error)),
            opened => opened?,
        };
        let rows = if way == Batching::Batched { plan.rows() } else { 1 };
        let made = (!was_kept).then_some(entry);
        Ok(Some(Self { session, inputs, output, length, rows, cancel, made }))
    }

    /// Returns the seconds of `count` runs, with as many concurrent ones as possible.
    fn seconds(&mut self, count: usize) -> Result<f64> {
        let mut outs = vec![vec![0.0; self.length]; count];
        let runs =
            outs.iter_mut().map(|out| GraphRun { inputs: views(&self.inputs), out, shape: None, second_output: None });
        let runs = runs.collect();
        let start = Instant::now();
        self.session.run_each(runs, &self.output, self.cancel)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Closes the graph, and removes what was kept of it for the trial's sake unless it `stays`.
    fn end(self, stays: bool) -> Result<()> {
        drop(self.session);
        self.made.filter(|_| !stays).map_or(Ok(()), |entry| entry.remove())
    }
}

fn views(inputs: &[(String, Tensor)]) -> Vec<(&str, TensorView<'_>)> {
    inputs.iter().map(|(name, tensor)| (name.as_str(), TensorView::from(tensor))).collect()
}

/// A tensor of ones.
fn filled(dtype: DType, shape: &[usize]) -> Tensor {
    let shape = IxDyn(shape);
    match dtype {
        DType::Bool => Tensor::Bool(ArrayD::from_elem(shape, true)),
        dtype if dtype.is_float() => Tensor::F32(ArrayD::from_elem(shape, 1.0)),
        _ => Tensor::I64(ArrayD::from_elem(shape, 1)),
    }
}
