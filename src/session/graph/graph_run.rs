//! Concurrent runs of one graph.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ndarray::ArrayD;

use super::Session;
use super::opening::{Opening, open};
use super::single_run::SingleRunGraph;
use crate::error::{Error, Result};
use crate::session::convert::Buffer;
use crate::session::{Cancel, SessionOptions};
use crate::tensor::TensorView;
use crate::threads;

/// One of several runs of a graph.
#[derive(Debug)]
pub struct GraphRun<'a> {
    /// The inputs, as [`Session::run`] takes them.
    pub inputs: Vec<(&'a str, TensorView<'a>)>,
    /// The slice that receives the output, row-major.
    pub out: &'a mut [f32],
    /// The expected shape of the output. `None` accepts any shape with as many values.
    pub shape: Option<Vec<usize>>,
    /// The name of a second output, and the array that receives it. The array is reallocated if its shape differs.
    pub second_output: Option<(&'a str, &'a mut ArrayD<f32>)>,
}

impl Session {
    /// Opens the graph for single runs with all threads, if [`Session::run_each`] needs it and it is not open yet. If
    /// that fails, for example because the file was removed meanwhile, single runs use the threads of one concurrent
    /// run.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if `cancel` was cancelled.
    pub fn open_for_single_runs(&mut self, cancel: &Cancel) -> Result<()> {
        if let Some(SingleRunGraph::Closed(path, options)) = &self.single_run {
            let options = SessionOptions { cancel: cancel.clone(), ..options.clone() };
            self.single_run = match open(&self.runtime, path, &options, Vec::new(), Opening::shared(&options, 1)) {
                Ok((graph, _)) => {
                    graph.arenas.keep(self.graph.arenas.keeps());
                    Some(SingleRunGraph::Open(graph))
                }
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => {
                    tracing::info!("a single run uses fewer threads: {error}");
                    None
                }
            };
        }
        Ok(())
    }

    /// Runs all of `runs`, up to [`SessionOptions::callers`] of them concurrently. Each writes the output named
    /// `output`, and its second output if any, as [`Session::run_into`] does.
    ///
    /// A run's result does not depend on the number of concurrent runs. If one fails, those not yet started are
    /// skipped.
    ///
    /// Concurrent runs share the threads. The first time there is only one run, the graph is opened again with all
    /// threads for it, unless it was opened with replaced weights.
    ///
    /// # Errors
    /// As [`Session::run_into`]: the first error; as [`Session::open`] if the graph is opened again.
    pub fn run_each(&mut self, runs: Vec<GraphRun<'_>>, output: &str, cancel: &Cancel) -> Result<()> {
        let callers = self.callers.min(runs.len()).max(1);
        if callers == 1 {
            self.open_for_single_runs(cancel)?;
        }
        let graph = match &self.single_run {
            Some(SingleRunGraph::Open(graph)) if callers == 1 => graph,
            _ => &self.graph,
        };
        let others = callers.saturating_sub(self.others.len() + 1);
        self.others.extend((0..others).map(|_| graph.buffers()));
        let failure = Mutex::new(None);
        let runs = Mutex::new(runs.into_iter());
        let work = |buffers: &mut [Buffer]| {
            // The lock is held only while the next run is taken.
            let next = || lock(&runs).next().filter(|_| lock(&failure).is_none());
            while let Some(run) = next() {
                let GraphRun { inputs, out, shape, second_output } = run;
                if let Err(error) =
                    graph.run_into(buffers, &inputs, (output, out, shape.as_deref()), second_output, cancel)
                {
                    lock(&failure).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for buffers in self.others.iter_mut().take(callers - 1) {
                // Without this thread, the others do its runs.
                let _ = threads::spawn_scoped(scope, "runs", || work(buffers));
            }
            work(&mut self.buffers);
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
