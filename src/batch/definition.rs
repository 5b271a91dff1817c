//! A batch, and what is told of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::Key;
use super::lines::InputLine;
use super::manifest::{Manifest, ManifestEntry};
use super::planner::PlannedImage;
use super::shard::Shard;
use super::store::{Claim, Store};
use crate::engine::{Engine, Event, Image};
use crate::error::{Error, Result};
use crate::image::ImageFormat;
use crate::spec::Spec;

/// A batch: requests on one pipeline, into one store.
pub struct ImageBatch {
    /// The engine that opens the pipeline.
    pub engine: Engine,
    /// The pipeline that requests are over.
    pub spec: Spec,
    /// The place of images.
    pub store: Arc<dyn Store>,
    /// The share of the images that is made.
    pub shard: Shard,
    /// The manifest that is written, below the batch's folder: [`Shard::manifest`], or a process's own.
    pub manifest: String,
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
        /// The index of the line among those of the run.
        at: usize,
        /// Its line in the manifest.
        entry: &'e ManifestEntry,
    },
    /// An image of the shard is stored and in the manifest. Reported at the end for each image of each line, in their order.
    Recorded {
        /// The index of the line among those of the run.
        at: usize,
        /// Its line in the manifest; without seconds if this run did not make it.
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
pub(super) struct PendingRequest {
    /// The index of its line.
    pub(super) at: usize,
    /// The seed that it was given, if it has none.
    pub(super) seed: Option<u64>,
    /// The number of its images, of all shards.
    pub(super) total: usize,
    pub(super) images: Vec<PlannedImage>,
}

/// An image to be stored.
pub(super) struct Job {
    pub(super) image: Image,
    /// The number of its line.
    pub(super) line: Option<usize>,
    pub(super) planned: PlannedImage,
    pub(super) claim: Arc<Claim>,
}

/// The parts that both threads write to.
pub(super) struct Shared {
    pub(super) manifest: Mutex<Manifest>,
    /// The seconds of each image that the run has made.
    pub(super) made: Mutex<HashMap<Key, f64>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Records a line that failed, the one with the index `at`.
    pub(super) fn fail(
        &self,
        (at, line): (usize, &InputLine),
        error: &Error,
        summary: &mut Summary,
        observe: BatchObserver<'_>,
    ) -> Result<()> {
        summary.failed += 1;
        let entry = ManifestEntry::failure(line, error);
        lock(&self.manifest).add(&entry)?;
        observe(BatchEvent::Failed { at, entry: &entry })
    }
}
