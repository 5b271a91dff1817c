//! A batch at work.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::key::Key;
use super::lines::InputLine;
use super::manifest::{Manifest, ManifestEntry};
use super::planner::{BatchPlanner, PlannedImage, without_extra_images};
use super::shard::Shard;
use super::store::{Claim, Store};
use crate::engine::{BackgroundWriter, Engine, Event, Image, Pipeline, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageFormat;
use crate::session::Cancel;
use crate::spec::Spec;

/// The number of requests in a row that may fail through no fault of their own before the batch gives up.
const MOST_FAILURES: usize = 10;

/// The time between two looks at images that another process makes.
const WAIT: Duration = Duration::from_millis(200);

/// A batch: the requests of a file, on one pipeline, into one store.
pub struct Batch<'a> {
    /// The engine that opens the pipeline.
    pub engine: &'a Engine,
    /// The pipeline that requests are over.
    pub spec: Spec,
    /// The requests.
    pub lines: &'a [InputLine],
    /// The place of images.
    pub store: &'a dyn Store,
    /// The share of the images that is made.
    pub shard: Shard,
    /// The format of the images' files. It is not part of their keys.
    pub format: ImageFormat,
}

/// Something that happened in a batch.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchEvent<'e> {
    /// Lines have been planned.
    Planning {
        /// The number of lines so far.
        lines: usize,
        /// The number of all lines.
        total: usize,
    },
    /// All lines are planned.
    Planned {
        /// The images of the shard.
        images: usize,
        /// Those of them that are stored already.
        existing: usize,
    },
    /// The pipeline was opened or runs.
    Pipeline(Event),
    /// An image was stored.
    Stored {
        /// Its line in the manifest.
        entry: &'e ManifestEntry,
        /// Its path or address.
        place: String,
    },
    /// Another process stored an image of this shard.
    StoredElsewhere,
    /// A line failed.
    Failed {
        /// Its line in the manifest.
        entry: &'e ManifestEntry,
    },
}

/// An observer of a batch. It is called from two threads; its error ends the batch.
pub type BatchObserver<'o> = &'o (dyn Fn(BatchEvent<'_>) -> Result<()> + Sync);

/// The result of a batch, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Lines with a request, of all shards.
    pub lines: usize,
    /// Images of the shard; the same image in two lines counts once.
    pub images: usize,
    /// Images that this run made.
    pub made: usize,
    /// Images that were stored before it.
    pub existing: usize,
    /// Images that another process stored meanwhile.
    pub made_elsewhere: usize,
    /// Lines that failed.
    pub failed: usize,
    /// Seconds.
    pub seconds: f64,
}

/// A request with images to make.
struct PendingRequest {
    /// The index of its line.
    line: usize,
    /// The seed that it was given, if it has none.
    seed: Option<u64>,
    /// The number of its images, of all shards.
    total: usize,
    images: Vec<PlannedImage>,
}

/// The images of the shard.
#[derive(Default)]
struct Work {
    pending: Vec<PendingRequest>,
    /// All images by the numbers of their lines, also those that another line has too.
    images: Vec<(usize, PlannedImage)>,
}

/// An image to be stored.
struct Job {
    image: Image,
    line: usize,
    planned: PlannedImage,
    claim: Arc<Claim>,
}

/// The parts that both threads write to.
struct Shared<'a> {
    manifest: Mutex<Manifest<'a>>,
    /// The seconds of each image that was made.
    made: Mutex<HashMap<Key, f64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Batch<'_> {
    /// Makes the images of the shard that are not stored yet. Lines that fail are recorded in the manifest and passed over.
    ///
    /// # Errors
    /// [`Error::Model`] and the like for a pipeline that cannot be opened, [`Error::Io`] if an image cannot be stored,
    /// [`Error::Interrupted`], and the last of ten failures in a row that are not the requests' own. What is stored by then
    /// is whole, and another run goes on from there.
    pub fn run(&self, cancel: &Cancel, observe: BatchObserver<'_>) -> Result<Summary> {
        let started = Instant::now();
        self.store.prepare()?;
        let manifest = Mutex::new(Manifest::open(self.store, self.shard.manifest())?);
        let shared = Shared { manifest, made: Mutex::default() };
        let mut summary = Summary { lines: self.lines.len(), ..Summary::default() };
        let work = self.plan(&shared, &mut summary, cancel, observe)?;
        let made = if work.pending.is_empty() {
            Ok(())
        } else {
            self.make(work.pending, &shared, &mut summary, cancel, observe)
        };
        summary.made = lock(&shared.made).len();
        let finished = made.and_then(|()| self.complete_manifest(&work.images, &shared));
        // The lines of images that are stored are stored too, whatever happened.
        let flushed = self.store.flush();
        finished.and(flushed)?;
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    }

    /// Plans all lines, and records those that fail and the images that are there.
    fn plan(
        &self,
        shared: &Shared<'_>,
        summary: &mut Summary,
        cancel: &Cancel,
        observe: BatchObserver<'_>,
    ) -> Result<Work> {
        let planner = BatchPlanner::new(self.engine, &self.spec)?;
        let stored = self.store.list()?;
        let mut seen = HashSet::new();
        let mut work = Work::default();
        for (at, line) in self.lines.iter().enumerate() {
            if cancel.is_cancelled() {
                return Err(Error::Interrupted { at_step: None });
            }
            observe(BatchEvent::Planning { lines: at, total: self.lines.len() })?;
            let planned = match planner.plan(line) {
                Ok(planned) => planned,
                Err(error) => {
                    if self.shard.contains(Key::of(&line.identity())) {
                        self.fail(line.number, &error, shared, summary, observe)?;
                    }
                    continue;
                }
            };
            let mut missing = Vec::new();
            for &image in planned.images.iter().filter(|image| self.shard.contains(image.key)) {
                work.images.push((line.number, image));
                if !seen.insert(image.key) {
                    continue;
                }
                let file = image.key.file(self.format);
                if stored.contains(&file) && self.store.has_whole(&file)? {
                    lock(&shared.manifest).add(&ManifestEntry::image(line.number, image, file, None))?;
                    summary.existing += 1;
                } else {
                    missing.push(image);
                }
            }
            if !missing.is_empty() {
                let (total, seed) = (planned.images.len(), planned.derived_seed);
                work.pending.push(PendingRequest { line: at, seed, total, images: missing });
            }
        }
        summary.images = seen.len();
        observe(BatchEvent::Planned { images: summary.images, existing: summary.existing })?;
        Ok(work)
    }

    fn fail(
        &self,
        line: usize,
        error: &Error,
        shared: &Shared<'_>,
        summary: &mut Summary,
        observe: BatchObserver<'_>,
    ) -> Result<()> {
        summary.failed += 1;
        let entry = ManifestEntry::failure(line, error);
        lock(&shared.manifest).add(&entry)?;
        observe(BatchEvent::Failed { entry: &entry })
    }

    /// Opens the pipeline and makes images, while a thread encodes and stores those that are finished.
    fn make(
        &self,
        pending: Vec<PendingRequest>,
        shared: &Shared<'_>,
        summary: &mut Summary,
        cancel: &Cancel,
        observe: BatchObserver<'_>,
    ) -> Result<()> {
        let mut refused = Ok(());
        let mut notice = |event| {
            if refused.is_ok() {
                refused = observe(BatchEvent::Pipeline(event));
            }
        };
        let mut pipeline = self.engine.open_spec(without_extra_images(self.spec.clone()), cancel, &mut notice)?;
        refused?;
        std::thread::scope(|scope| {
            let mut writer = BackgroundWriter::begin(scope, |job: Job| self.store_image(job, shared, observe))?;
            let mut maker = Maker { batch: self, shared, summary, cancel, observe, failures: 0 };
            let result = maker.make_all(pending, &mut pipeline, &mut writer);
            // The first image that could not be stored is why the run was stopped.
            writer.finish()?;
            result
        })
    }

    fn store_image(&self, job: Job, shared: &Shared<'_>, observe: BatchObserver<'_>) -> Result<()> {
        let Job { image, line, planned, claim } = job;
        let file = planned.key.file(self.format);
        self.store.put(&file, &image.encode(self.format)?)?;
        let seconds = image.seconds();
        let place = self.store.place(&file);
        let entry = ManifestEntry::image(line, planned, file, Some(seconds));
        lock(&shared.manifest).append(&entry)?;
        lock(&shared.made).insert(planned.key, seconds);
        drop(claim);
        observe(BatchEvent::Stored { entry: &entry, place })
    }

    /// Adds the entries that are missing: of images that another process made, or that several lines have, and those that
    /// were lost because another process wrote the manifest anew.
    fn complete_manifest(&self, images: &[(usize, PlannedImage)], shared: &Shared<'_>) -> Result<()> {
        self.store.flush()?;
        let mut manifest = Manifest::open(self.store, self.shard.manifest())?;
        let made = lock(&shared.made);
        for &(line, image) in images {
            let file = image.key.file(self.format);
            let seconds = made.get(&image.key).copied();
            if seconds.is_some() || self.store.has_whole(&file)? {
                manifest.add(&ManifestEntry::image(line, image, file, seconds))?;
            }
        }
        Ok(())
    }
}

/// The thread that runs the pipeline.
struct Maker<'m, 'a, 's> {
    batch: &'m Batch<'a>,
    shared: &'m Shared<'s>,
    summary: &'m mut Summary,
    cancel: &'m Cancel,
    observe: BatchObserver<'m>,
    /// The failures in a row that were not the requests' own.
    failures: usize,
}

impl Maker<'_, '_, '_> {
    /// Makes the requests, those that another process has claimed last.
    fn make_all(
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
        let line = &batch.lines[pending.line];
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
                Ok(()) => self.failures = 0,
                Err(error) => {
                    self.judge(line.number, error)?;
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
        pipeline.run(request, self.cancel, &mut |event| {
            let flow = match event {
                Event::Image(image) if image.is_final() => match job(*image) {
                    Some(job) => writer.hand(job),
                    None => writer.flow(),
                },
                Event::Image(_) => writer.flow(),
                event => {
                    if refused.is_ok() {
                        refused = (self.observe)(BatchEvent::Pipeline(event));
                    }
                    writer.flow()
                }
            };
            if flow.is_break() || refused.is_err() {
                self.cancel.cancel();
            }
        })?;
        refused
    }

    /// Records a failure of a request.
    ///
    /// # Errors
    /// The failure itself if the batch has to end.
    fn judge(&mut self, line: usize, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Interrupted || self.cancel.is_cancelled() {
            return Err(error);
        }
        self.batch.fail(line, &error, self.shared, self.summary, self.observe)?;
        self.failures = if error.kind() == ErrorKind::Request { 0 } else { self.failures + 1 };
        if self.failures == MOST_FAILURES { Err(error) } else { Ok(()) }
    }
}
