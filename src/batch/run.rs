//! A batch at work.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::definition::{BatchEvent, BatchObserver, ImageBatch, Job, PendingRequest, Shared, Summary, lock};
use super::key::Key;
use super::lines::InputLine;
use super::maker::Maker;
use super::manifest::{Manifest, ManifestEntry};
use super::planner::{BatchPlanner, PlannedImage, without_extra_images};
use crate::engine::{BackgroundWriter, Pipeline};
use crate::error::{Error, Result};
use crate::session::Cancel;

/// The images of the shard.
#[derive(Default)]
struct Work {
    pending: Vec<PendingRequest>,
    /// All images by the indices of their lines, also those that another line has too.
    images: Vec<(usize, PlannedImage)>,
}

/// A batch with its store prepared. The first run that makes an image opens the pipeline, and it stays open for the next.
pub struct OpenBatch {
    batch: ImageBatch,
    planner: BatchPlanner,
    /// The files of images that were stored when the batch was opened, and of those that it has stored since.
    stored: HashSet<String>,
    shared: Shared,
    pipeline: Option<Pipeline>,
    /// The failures in a row, up to the last run, that were not the requests' own.
    failures: usize,
}

impl ImageBatch {
    /// Prepares the store and reads the model directories.
    ///
    /// # Errors
    /// [`Error::Input`] for a store that nothing can be written to, [`Error::Model`] for a model directory that cannot be read,
    /// [`Error::Io`] if the store cannot be read.
    pub fn open(self) -> Result<OpenBatch> {
        self.store.prepare()?;
        let manifest = Mutex::new(Manifest::open(Arc::clone(&self.store), self.manifest.clone())?);
        let shared = Shared { manifest, made: Mutex::default() };
        let planner = BatchPlanner::new(&self.engine, &self.spec)?;
        let stored = self.store.list()?;
        Ok(OpenBatch { batch: self, planner, stored, shared, pipeline: None, failures: 0 })
    }
}

impl OpenBatch {
    /// Makes the images of the shard that are not stored yet. Lines that fail are recorded in the manifest and passed over.
    ///
    /// # Errors
    /// [`Error::Model`] and the like for a pipeline that cannot be opened, [`Error::Io`] if an image cannot be stored,
    /// [`Error::Interrupted`], and the last of ten failures in a row that are not the requests' own. What is stored by then
    /// is whole, and another run goes on from there.
    pub fn run(&mut self, lines: &[InputLine], cancel: &Cancel, observe: BatchObserver<'_>) -> Result<Summary> {
        let started = Instant::now();
        lock(&self.shared.made).clear();
        let mut summary = Summary { lines: lines.len(), ..Summary::default() };
        let work = self.plan(lines, &mut summary, cancel, observe)?;
        let made = if work.pending.is_empty() {
            Ok(())
        } else {
            self.make(lines, work.pending, &mut summary, cancel, observe)
        };
        summary.made = lock(&self.shared.made).len();
        let finished = made.and_then(|()| self.complete_manifest(lines, &work.images, observe));
        // The lines of images that are stored are stored too, whatever happened.
        let flushed = self.batch.store.flush();
        self.stored.extend(lock(&self.shared.made).keys().map(|key| key.file(self.batch.format)));
        finished.and(flushed)?;
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    }

    /// Plans all lines, and records those that fail and the images that are there.
    fn plan(
        &self,
        lines: &[InputLine],
        summary: &mut Summary,
        cancel: &Cancel,
        observe: BatchObserver<'_>,
    ) -> Result<Work> {
        let Self { batch, planner, stored, shared, .. } = self;
        let mut seen = HashSet::new();
        let mut work = Work::default();
        for (at, line) in lines.iter().enumerate() {
            if cancel.is_cancelled() {
                return Err(Error::Interrupted { at_step: None });
            }
            observe(BatchEvent::Planning { lines: at, total: lines.len() })?;
            let planned = match planner.plan(line) {
                Ok(planned) => planned,
                Err(error) => {
                    if batch.shard.contains(Key::of(&line.identity())) {
                        shared.fail((at, line), &error, summary, observe)?;
                    }
                    continue;
                }
            };
            let mut missing = Vec::new();
            for &image in planned.images.iter().filter(|image| batch.shard.contains(image.key)) {
                work.images.push((at, image));
                if !seen.insert(image.key) {
                    continue;
                }
                let file = image.key.file(batch.format);
                if stored.contains(&file) && batch.store.has_whole(&file)? {
                    lock(&shared.manifest).add(&ManifestEntry::image(line.number, image, file, None))?;
                    summary.existing += 1;
                } else {
                    missing.push(image);
                }
            }
            if !missing.is_empty() {
                let (total, seed) = (planned.images.len(), planned.derived_seed);
                work.pending.push(PendingRequest { at, seed, total, images: missing });
            }
        }
        summary.images = seen.len();
        observe(BatchEvent::Planned { images: summary.images, existing: summary.existing })?;
        Ok(work)
    }

    /// Opens the pipeline, unless it is open, and makes images, while a thread encodes and stores those that are finished.
    fn make(
        &mut self,
        lines: &[InputLine],
        pending: Vec<PendingRequest>,
        summary: &mut Summary,
        cancel: &Cancel,
        observe: BatchObserver<'_>,
    ) -> Result<()> {
        let Self { batch, shared, pipeline, failures, .. } = self;
        let pipeline = match pipeline {
            Some(pipeline) => pipeline,
            None => pipeline.insert(batch.open_pipeline(cancel, observe)?),
        };
        std::thread::scope(|scope| {
            let mut writer =
                BackgroundWriter::begin(scope, cancel, |job: Job| batch.store_image(job, shared, observe))?;
            let mut maker = Maker { batch, lines, shared, summary, cancel, observe, failures };
            let result = maker.make_all(pending, pipeline, &mut writer);
            // The first image that could not be stored is why the run was stopped.
            writer.finish()?;
            result
        })
    }

    /// Adds the entries that are missing: of images that another process made, or that several lines have, and those that
    /// were lost because another process wrote the manifest anew.
    fn complete_manifest(
        &self,
        lines: &[InputLine],
        images: &[(usize, PlannedImage)],
        observe: BatchObserver<'_>,
    ) -> Result<()> {
        let ImageBatch { store, manifest: name, format, .. } = &self.batch;
        store.flush()?;
        let mut manifest = lock(&self.shared.manifest);
        *manifest = Manifest::open(Arc::clone(store), name.clone())?;
        let made = lock(&self.shared.made);
        for &(at, image) in images {
            let file = image.key.file(*format);
            let seconds = made.get(&image.key).copied();
            if seconds.is_some() || store.has_whole(&file)? {
                let entry = ManifestEntry::image(lines[at].number, image, file, seconds);
                manifest.add(&entry)?;
                observe(BatchEvent::Recorded { at, entry: &entry })?;
            }
        }
        Ok(())
    }
}

impl ImageBatch {
    fn open_pipeline(&self, cancel: &Cancel, observe: BatchObserver<'_>) -> Result<Pipeline> {
        let mut refused = Ok(());
        let mut notice = |event| {
            if refused.is_ok() {
                refused = observe(BatchEvent::Pipeline(event));
            }
        };
        let mut pipeline = self.engine.open_spec(without_extra_images(self.spec.clone()), cancel, &mut notice)?;
        // An image's key is that of its request, which says how it is decoded.
        pipeline.forbid_tiles();
        refused.map(|()| pipeline)
    }

    fn store_image(&self, job: Job, shared: &Shared, observe: BatchObserver<'_>) -> Result<()> {
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
}
