//! Several runs of one graph.

use std::sync::{Mutex, PoisonError};

use ndarray::ArrayD;

use super::alone::Alone;
use super::{Opening, Session, lock, open};
use crate::error::{Error, Result};
use crate::session::convert::Buffer;
use crate::session::{Cancel, SessionOptions};
use crate::tensor::TensorView;
use crate::threads;

/// One of several runs of a graph.
#[derive(Debug)]
pub struct Run<'a> {
    /// The inputs, as [`Session::run`] takes them.
    pub inputs: Vec<(&'a str, TensorView<'a>)>,
    /// Where the output is written, row-major.
    pub out: &'a mut [f32],
    /// The shape that the output has to have. Absent: any of as many values.
    pub shape: Option<Vec<usize>>,
    /// Another output by its name, and where it is written; that is made anew where it has another shape.
    pub beside: Option<(&'a str, &'a mut ArrayD<f32>)>,
}

impl Session {
    /// Opens what [`Session::run_each`] has for a run that no other is made beside, where that is not open yet: with all
    /// threads for one run. If it can't be opened, because its file was removed meanwhile for example, such runs go on with
    /// the threads of one of several.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `cancel` was thrown.
    pub fn open_alone(&mut self, cancel: &Cancel) -> Result<()> {
        if let Some(Alone::Closed(path, options)) = &self.alone {
            let options = SessionOptions { cancel: cancel.clone(), ..options.clone() };
            self.alone = match open(&self.runtime, path, &options, Vec::new(), Opening::shared(&options, 1)) {
                Ok((graph, _)) => Some(Alone::Open(graph)),
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => {
                    tracing::info!("a lone run has fewer threads: {error}");
                    None
                }
            };
        }
        Ok(())
    }

    /// Makes all of `runs`, as many of them at the same time as [`SessionOptions::callers`] says, each writing the output
    /// named `output`, and another one besides, where it says, as [`Session::run_into`] does.
    ///
    /// What a run makes does not depend on how many there are at a time. Where one fails, those not yet begun are left.
    ///
    /// Threads are shared by the runs of one time. The first time that there is one run only, the graph is opened again
    /// with all threads for it, unless it was opened on other weights than it stores.
    ///
    /// # Errors
    /// As [`Session::run_into`]: the first error met; as [`Session::open`] where the graph is opened again.
    pub fn run_each(&mut self, runs: Vec<Run<'_>>, output: &str, cancel: &Cancel) -> Result<()> {
        let callers = self.callers.min(runs.len()).max(1);
        if callers == 1 {
            self.open_alone(cancel)?;
        }
        let graph = match &self.alone {
            Some(Alone::Open(graph)) if callers == 1 => graph,
            _ => &self.graph,
        };
        let others = callers.saturating_sub(self.others.len() + 1);
        self.others.extend((0..others).map(|_| graph.buffers()));
        let failure = Mutex::new(None);
        let runs = Mutex::new(runs.into_iter());
        let work = |buffers: &mut [Buffer]| {
            // The lock is held while the next run is taken, and no longer.
            let next = || lock(&runs).next().filter(|_| lock(&failure).is_none());
            while let Some(run) = next() {
                let Run { inputs, out, shape, beside } = run;
                if let Err(error) = graph.run_into(buffers, &inputs, (output, out, shape.as_deref()), beside, cancel) {
                    lock(&failure).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for buffers in self.others.iter_mut().take(callers - 1) {
                // Without this thread the others make its runs.
                let _ = threads::spawn_scoped(scope, "runs", || work(buffers));
            }
            work(&mut self.buffers);
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
