//! A batch at work.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Instant;

use super::definition::{BatchEvent, BatchObserver, ImageBatch, Job, PendingRequest, Shared, Summary, lock};
use super::key::Key;
use super::maker::Maker;
use super::manifest::{Manifest, ManifestEntry};
use super::planner::{BatchPlanner, PlannedImage, without_extra_images};
use crate::engine::BackgroundWriter;
use crate::error::{Error, Result};
use crate::session::Cancel;

/// The images of the shard.
#[derive(Default)]
struct Work {
    pending: Vec<PendingRequest>,
    /// All images by the numbers of their lines, also those that another line has too.
    images: Vec<(usize, PlannedImage)>,
}

impl ImageBatch<'_> {
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
            let mut writer = BackgroundWriter::begin(scope, cancel, |job: Job| self.store_image(job, shared, observe))?;
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
