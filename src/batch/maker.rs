//! The requests of a batch, one after the other on an open pipeline.

use std::sync::Arc;
use std::time::Duration;

use super::definition::{BatchEvent, BatchObserver, ImageBatch, Job, PendingRequest, Shared, Summary};
use super::lines::InputLine;
use crate::engine::{BackgroundWriter, Event, Image, Pipeline, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::session::Cancel;

/// The number of requests in a row that may fail through no fault of their own before the batch gives up.
const MOST_FAILURES: usize = 10;

/// The time between two looks at images that another process makes.
const WAIT: Duration = Duration::from_millis(200);

/// The thread that runs the pipeline.
pub(super) struct Maker<'m> {
    pub(super) batch: &'m ImageBatch,
    pub(super) lines: &'m [InputLine],
    pub(super) shared: &'m Shared,
    pub(super) summary: &'m mut Summary,
    pub(super) cancel: &'m Cancel,
    pub(super) observe: BatchObserver<'m>,
    /// The failures in a row that were not the requests' own.
    pub(super) failures: &'m mut usize,
}

impl Maker<'_> {
    /// Makes the requests, those that another process has claimed last.
    pub(super) fn make_all(
        &mut self,
        mut pending: Vec<PendingRequest>,
        pipeline: &mut Pipeline,
        writer: &mut BackgroundWriter<'_, Job>,
    ) -> Result<()> {
        while !pending.is_empty() {
            let before = pending.len();
            let mut claimed = Vec::new();
            for request in pending {
                if self.cancel.is_cancelled() {
                    return Err(Error::Interrupted { at_step: None });
                }
                if let Some(request) = self.make(request, pipeline, writer)? {
                    claimed.push(request);
                }
            }
            if claimed.len() == before {
                std::thread::sleep(WAIT);
            }
            pending = claimed;
        }
        Ok(())
    }

    /// Makes the images of a request that are not stored; returns the request if another process has claimed it.
    fn make(
        &mut self,
        mut pending: PendingRequest,
        pipeline: &mut Pipeline,
        writer: &mut BackgroundWriter<'_, Job>,
    ) -> Result<Option<PendingRequest>> {
        let batch = self.batch;
        let Some(first) = pending.images.first() else { return Ok(None) };
        let Some(claim) = batch.store.claim(first.key) else { return Ok(Some(pending)) };
        let claim = Arc::new(claim);
        // Another process may have stored some since the lines were planned.
        let mut missing = Vec::new();
        for image in std::mem::take(&mut pending.images) {
            if batch.store.has_whole(&image.key.file(batch.format))? {
                self.summary.made_elsewhere += 1;
                (self.observe)(BatchEvent::StoredElsewhere)?;
            } else {
                missing.push(image);
            }
        }
        let line = &self.lines[pending.at];
        let mut request = line.request()?;
        if let Some(seed) = pending.seed {
            request = request.seed(seed);
        }
        let requests = match missing.len() {
            0 => return Ok(None),
            made if made == pending.total => vec![request],
            _ => missing.iter().map(|image| request.clone().only(image.image)).collect(),
        };
        for request in requests {
            let job = |image: Image| {
                let planned = missing.iter().find(|planned| planned.image == image.index()).copied()?;
                Some(Job { image, line: line.number, planned, claim: Arc::clone(&claim) })
            };
            match self.run(&request, &job, pipeline, writer) {
                Ok(()) => *self.failures = 0,
                Err(error) => {
                    self.judge(pending.at, error)?;
                    break;
                }
            }
        }
        Ok(None)
    }

    fn run(
        &self,
        request: &Request,
        job: &dyn Fn(Image) -> Option<Job>,
        pipeline: &mut Pipeline,
        writer: &mut BackgroundWriter<'_, Job>,
    ) -> Result<()> {
        let mut refused = Ok(());
        let made = pipeline.run(request, self.cancel, &mut |event| match event {
            Event::Image(image) if image.is_final() => job(*image).into_iter().for_each(|job| writer.hand(job)),
            Event::Image(_) => {}
            event => {
                if refused.is_ok() {
                    refused = (self.observe)(BatchEvent::Pipeline(event)).inspect_err(|_| self.cancel.cancel());
                }
            }
        });
        refused.and(made.map(|_| ()))
    }

    /// Records a failure of a request.
    ///
    /// # Errors
    /// The failure itself if the batch has to end.
    fn judge(&mut self, at: usize, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Interrupted || self.cancel.is_cancelled() {
            return Err(error);
        }
        self.shared.fail((at, &self.lines[at]), &error, self.summary, self.observe)?;
        *self.failures = if error.kind() == ErrorKind::Request { 0 } else { *self.failures + 1 };
        if *self.failures >= MOST_FAILURES { Err(error) } else { Ok(()) }
    }
}
