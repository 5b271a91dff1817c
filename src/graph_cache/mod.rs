//! Graphs optimized once for a machine, and kept.
//!
//! Opening an exported graph as it lies costs ONNX Runtime seconds to half a minute of one thread at every start: it
//! folds constants, fuses nodes and rearranges weights for the CPU, and holds the rearranged weights in memory of
//! its own. [`GraphCache::open`] has that done once, keeps the outcome in a folder of the user's cache, and opens it from
//! there, its weights mapped from the file rather than copied.
//!
//! What is kept belongs to one graph at one size of its axes, one version of ONNX Runtime and one kind of processor, all
//! of which its [key](CachedGraph::key) is made of. It is no file to ship.

mod cache;
mod checksums;
mod digest;
mod entry;
mod integrity;
mod lock;
mod machine;
mod measured;
mod rewritten;
mod stamp;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::bundle::GraphFile;
use crate::error::{Error, Result};
use crate::files;
use crate::rewrite::{self, Pass};
use crate::session::{Optimization, Runtime, Session, SessionOptions};
use integrity::Integrity;

use machine::stop_if;

pub use cache::GraphCache;
pub use digest::digest;
pub use entry::{CachedGraph, DamagedFile};
pub(crate) use machine::processor;
pub use measured::{MeasurementFile, Rows};
pub use rewritten::open_uncached;
pub use verify::Verified;

/// What is told while a graph is opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum GraphCacheEvent<'a> {
    /// The graph is about to be optimized, which happens once.
    Optimizing {
        /// About as much room as it will take, in bytes.
        bytes: u64,
        /// Where it will be kept.
        folder: &'a Path,
    },
    /// Another process optimizes it, and that is waited for.
    Waiting {
        /// Where it will be kept.
        folder: &'a Path,
    },
    /// It could not be kept, and is opened as it lies.
    NotKept {
        /// Why, as a sentence without its full stop.
        problem: String,
    },
}

/// What is changed when what is kept would no longer be what this version makes of a graph.
const FORM: &str = "6";

impl GraphCache {
    /// Opens a graph that runs on the CPU alone, rewriting it with `passes` and optimizing it first where that was not
    /// done yet.
    ///
    /// What is damaged, half written or made by another version is made anew. Two processes that want the same graph
    /// wait for each other. Where a graph cannot be kept, the disk being full for example, it is opened as it lies and
    /// `observer` told why.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
        observer: &mut dyn FnMut(GraphCacheEvent<'_>),
    ) -> Result<Session> {
        /// The number of times that an entry is made again if it was removed or is damaged.
        const ATTEMPTS: usize = 4;
        let mut is_made_anew = false;
        for _ in 0..ATTEMPTS {
            let kept = match self.ensure_sound(runtime, graph, passes, options, observer) {
                Ok(kept) => kept,
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                Err(error) => {
                    observer(GraphCacheEvent::NotKept { problem: error.to_string() });
                    return open_uncached(runtime, graph, passes, options, Vec::new());
                }
            };
            let error = match kept.entry.open(runtime, graph, options) {
                Err(error) if !matches!(error, Error::Interrupted { .. }) => error,
                opened => {
                    match (&opened, kept.is_new) {
                        (Ok(_), true) => self.integrity.made_again(&kept.entry),
                        (Ok(_), false) => Integrity::check_later(&self.integrity, &kept.entry),
                        (Err(_), _) => {}
                    }
                    return opened;
                }
            };
            // An entry that is no longer whole was removed by another process while it was opened.
            if CachedGraph::read(kept.entry.folder()).is_some() {
                if kept.is_new || is_made_anew {
                    return Err(error);
                }
                // Its files are as they were when they were written, and still it does not open.
                kept.entry.remove()?;
                is_made_anew = true;
            }
        }
        observer(GraphCacheEvent::NotKept { problem: "other processes remove it again and again".to_owned() });
        open_uncached(runtime, graph, passes, options, Vec::new())
    }

    /// Rewrites a graph that runs on the CPU alone with `passes` and optimizes it, unless that was done already, and
    /// returns what is kept of it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be kept; as [`Session::open`] besides.
    pub fn prepare(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
        observer: &mut dyn FnMut(GraphCacheEvent<'_>),
    ) -> Result<CachedGraph> {
        self.ensure(runtime, graph, passes, options, observer).map(|kept| kept.entry)
    }

    /// Whether [`GraphCache::prepare`] would find all done.
    ///
    /// # Errors
    /// [`Error::Io`] where the graph's files cannot be read.
    pub fn keeps(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
    ) -> Result<bool> {
        let key = key(&digest(Some(self), graph)?, runtime, passes, options);
        Ok(CachedGraph::read(&self.root.join(key)).is_some())
    }

    /// All that is kept, the oldest first; half-written and damaged ones left out.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder cannot be read.
    pub fn entries(&self) -> Result<Vec<CachedGraph>> {
        let mut entries: Vec<CachedGraph> =
            self.folders()?.iter().filter_map(|folder| CachedGraph::read(folder)).collect();
        entries.sort_by(|a, b| (a.made, &a.key).cmp(&(b.made, &b.key)));
        Ok(entries)
    }

    /// Removes all that is kept and `of` says so, and whatever is half written or damaged; returns the bytes that are
    /// free now. What another process is about to make is left alone.
    ///
    /// # Errors
    /// [`Error::Io`] naming what cannot be removed.
    pub fn clear(&self, of: impl Fn(&CachedGraph) -> bool) -> Result<u64> {
        let mut freed = 0;
        for folder in self.folders()? {
            if CachedGraph::read(&folder).is_some_and(|entry| !of(&entry)) {
                continue;
            }
            let Some(_lock) = lock::try_lock(&self.root, &folder)? else { continue };
            freed += entry::bytes_in(&folder);
            entry::remove(&folder)?;
        }
        Ok(freed)
    }

    fn folders(&self) -> Result<Vec<PathBuf>> {
        let listed = match std::fs::read_dir(&self.root) {
            Ok(listed) => listed,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(&self.root, "listing", e)),
        };
        let folders = listed.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        let is_entry = |path: &PathBuf| path.file_name().is_some_and(|n| n != digest::FOLDER && n != measured::FOLDER);
        Ok(folders.filter(is_entry).collect())
    }

    /// As [`GraphCache::ensure`], and makes an entry again whose small files are damaged.
    fn ensure_sound(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
        observer: &mut dyn FnMut(GraphCacheEvent<'_>),
    ) -> Result<Kept> {
        let kept = self.ensure(runtime, graph, passes, options, observer)?;
        if kept.is_new || kept.entry.damage(self.checked_first, &|| !options.cancel.is_cancelled()).is_none() {
            return Ok(kept);
        }
        kept.entry.remove()?;
        self.ensure(runtime, graph, passes, options, observer)
    }

    fn ensure(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
        observer: &mut dyn FnMut(GraphCacheEvent<'_>),
    ) -> Result<Kept> {
        let source = digest(Some(self), graph)?;
        let key = key(&source, runtime, passes, options);
        let folder = self.root.join(&key);
        if let Some(entry) = CachedGraph::read(&folder) {
            return Ok(Kept { entry, is_new: false });
        }
        std::fs::create_dir_all(&self.root).map_err(|e| Error::io(&self.root, "creating the folder", e))?;
        let _lock = lock::lock(&self.root, &folder, &options.cancel, || {
            observer(GraphCacheEvent::Waiting { folder: &folder })
        })?;
        if let Some(entry) = CachedGraph::read(&folder) {
            return Ok(Kept { entry, is_new: false });
        }
        // The lock is held, so that nobody works on what is unfinished here.
        let unfinished = format!("{}{key}-", entry::UNFINISHED);
        for left in self.folders()? {
            let name = left.file_name().unwrap_or_default().to_string_lossy();
            if *name == key || name.starts_with(&unfinished) {
                entry::remove(&left)?;
            }
        }
        let bytes = match passes.iter().find_map(|pass| pass.outer_branch()) {
            None => graph.weight_bytes + graph.file_bytes,
            Some(branch) => rewrite::branches(graph)?.get(branch).map_or(0, |branch| branch.outer_weights),
        };
        observer(GraphCacheEvent::Optimizing { bytes, folder: &folder });
        self.room_for(bytes)?;
        let entry =
            self.make(runtime, graph, passes, options, CachedGraph::new(&key, graph, &source, runtime, options))?;
        Ok(Kept { entry, is_new: true })
    }

    /// Makes an entry under another name, and gives it its own when it is whole.
    fn make(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
        mut entry: CachedGraph,
    ) -> Result<CachedGraph> {
        let began = Instant::now();
        let place = self.root.join(&entry.key);
        let room = tempfile::Builder::new()
            .prefix(&format!("{}{}-", entry::UNFINISHED, entry.key))
            .tempdir_in(&self.root)
            .map_err(|e| Error::io(&self.root, "writing", e))?;
        let best = SessionOptions { optimization: Optimization::All, ..options.clone() };
        let bytes = rewritten::rewritten(graph, passes, options)?;
        let made = room.path().join(entry::GRAPH);
        Session::save_optimized(runtime, &graph.path, bytes, &best, &made)?;
        let saved = files::read(&made).map_err(|e| Error::io(&made, "reading", e))?;
        let ordered = rewrite::late(&saved).unwrap_or(saved);
        let is_loose = passes.contains(&Pass::DynamicShapes);
        let settled = is_loose.then(|| rewrite::loose(&ordered)).flatten().unwrap_or(ordered);
        std::fs::write(&made, settled).map_err(|e| Error::io(&made, "writing", e))?;
        stop_if(&options.cancel)?;
        entry.seconds = began.elapsed().as_secs_f64();
        entry.write(room.path())?;
        files::rename_folder(room.path(), &place).map_err(|e| Error::io(&place, "creating the folder", e))?;
        let _ = room.keep();
        CachedGraph::read(&place).ok_or_else(|| Error::io(&place, "reading", std::io::ErrorKind::InvalidData.into()))
    }

    /// Requires that the disk has so many bytes free.
    fn room_for(&self, bytes: u64) -> Result<()> {
        // A file system that does not say how much is free is believed to have enough.
        let free = fs4::available_space(&self.root).unwrap_or(u64::MAX);
        if free > bytes + bytes / 10 {
            return Ok(());
        }
        Err(Error::input(
            self.root.display().to_string(),
            format!("the prepared graph takes {:.1} GB, and the disk has {:.1} GB free", gb(bytes), gb(free)),
            "make room, name another folder with LDM_ORT_CACHE_DIR, or set [device] prepare = false",
        ))
    }
}

struct Kept {
    entry: CachedGraph,
    is_new: bool,
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// What one graph becomes on one machine: a name for it.
fn key(source: &str, runtime: &Runtime, passes: &[Pass], options: &SessionOptions) -> String {
    let mut hash = Sha256::new();
    let edits = options.edits.iter().map(|edit| format!("{edit:?}"));
    let config = options.config.iter().map(|(key, value)| format!("{key}={value}"));
    let parts = [FORM, source, runtime.version(), &processor()].map(str::to_owned);
    let axes = options.axes.iter().map(|(name, length)| format!("{name}={length}"));
    let passes = passes.iter().map(|pass| format!("{pass:?}"));
    for part in parts.into_iter().chain(edits).chain(config).chain(axes).chain(passes) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut name = files::hexadecimal(hash);
    name.truncate(32);
    name
}
