//! Opening graphs from the cache, and making entries for those that it lacks.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::cache_folder::GraphCache;
use super::digest::digest;
use super::entry::{self, CachedGraph};
use super::integrity::Integrity;
use super::own_operators::{is_of_precision, make_with_operators, require_own_precision};
use super::rewritten::{self, open_uncached};
use super::usage::{InUse, Usage};
use super::wanted::Wanted;
use super::{key, lock};
use crate::bundle::GraphFile;
use crate::error::{Error, Result};
use crate::files;
use crate::rewrite::{self, Pass};
use crate::session::{Cancel, Optimization, Runtime, Session, SessionOptions};

/// An event while a graph is opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum GraphCacheEvent<'a> {
    /// The graph is about to be optimized, which happens once.
    Optimizing {
        /// The estimated size of the optimized graph, in bytes.
        bytes: u64,
        /// The folder of the entry.
        folder: &'a Path,
    },
    /// Another process optimizes the graph, and this one waits for it.
    Waiting {
        /// The folder of the entry.
        folder: &'a Path,
    },
    /// The optimized graph cannot be cached, so the graph is opened as exported.
    Uncached {
        /// The reason, as a sentence without its full stop.
        problem: String,
    },
}

/// An entry, and if this process has just made it.
struct Found {
    entry: CachedGraph,
    is_new: bool,
}

impl GraphCache {
    /// Opens a graph that runs on the CPU alone. If it has no entry yet, it is rewritten with `passes` and optimized first.
    ///
    /// An entry that is damaged, incomplete or from another version is made again. Two processes that want the same graph
    /// wait for each other. If the optimized graph cannot be cached (a full disk, the size limit, a read-only folder), the
    /// graph is opened as exported and `observer` receives the reason; a read-only folder is reported once.
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
        let uncached = |problem: String, observer: &mut dyn FnMut(GraphCacheEvent<'_>)| {
            require_own_precision(passes, &problem)?;
            observer(GraphCacheEvent::Uncached { problem });
            open_uncached(runtime, graph, passes, options, Vec::new())
        };
        let wanted = match self.wanted(runtime, graph, passes, options) {
            Ok(wanted) => wanted,
            Err(error) => return uncached(error.to_string(), observer),
        };
        // No process evicts the entry from here on as long as the session is open.
        let in_use = self.begin_use(&wanted.folder, &options.cancel)?;
        let mut is_made_anew = false;
        for _ in 0..ATTEMPTS {
            let found = match self.ensure_sound(&wanted, observer) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    require_own_precision(passes, "the graph cache cannot be written")?;
                    return open_uncached(runtime, graph, passes, options, Vec::new());
                }
                Err(error @ Error::Interrupted { .. }) => return Err(error),
                // It would be no better as exported.
                Err(error) if is_of_precision(&error) => return Err(error),
                Err(error) => return uncached(error.to_string(), observer),
            };
            let error = match found.entry.open(&wanted, &in_use) {
                Err(error) if !matches!(error, Error::Interrupted { .. }) => error,
                opened => {
                    match (&opened, found.is_new) {
                        (Ok(_), true) => self.integrity.made_again(&found.entry),
                        (Ok(_), false) => Integrity::check_later(&self.integrity, &found.entry),
                        (Err(_), _) => {}
                    }
                    return opened;
                }
            };
            // An entry that is no longer whole was removed by another process while it was opened.
            if CachedGraph::read(found.entry.folder()).is_some() {
                if found.is_new || is_made_anew || self.is_read_only {
                    return Err(error);
                }
                // Its files are as they were when they were written, and still it does not open.
                found.entry.remove()?;
                is_made_anew = true;
            }
        }
        uncached("other processes remove it again and again".to_owned(), observer)
    }

    /// Rewrites a graph that runs on the CPU alone with `passes` and optimizes it, unless it has an entry, and returns the
    /// entry, which is not evicted as long as the answer lives. `None` if there is no entry and the folder is read-only,
    /// which `observer` receives once.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Input`] if it cannot be cached; as [`Session::open`] besides.
    pub fn optimize(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
        observer: &mut dyn FnMut(GraphCacheEvent<'_>),
    ) -> Result<Option<CachedGraph>> {
        let wanted = self.wanted(runtime, graph, passes, options)?;
        let in_use = self.begin_use(&wanted.folder, &options.cancel)?;
        let found = self.ensure(&wanted, observer)?;
        Ok(found.map(|found| found.entry.in_use(in_use)))
    }

    /// True if the graph has an entry, so that [`GraphCache::optimize`] has nothing to do.
    ///
    /// # Errors
    /// [`Error::Io`] if the graph's files cannot be read.
    pub fn contains(
        &self,
        runtime: &Runtime,
        graph: &GraphFile,
        passes: &[Pass],
        options: &SessionOptions,
    ) -> Result<bool> {
        Ok(CachedGraph::read(&self.wanted(runtime, graph, passes, options)?.folder).is_some())
    }

    /// Notes the use of an entry, and keeps it from eviction as long as the answer lives.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if `cancel` is thrown while another process evicts the entry.
    fn begin_use(&self, folder: &Path, cancel: &Cancel) -> Result<InUse> {
        if self.is_read_only || !self.root.is_dir() && std::fs::create_dir_all(&self.root).is_err() {
            return Ok(InUse::default());
        }
        Usage::begin(&self.root, folder, cancel)
    }

    fn wanted<'a>(
        &self,
        runtime: &'a Runtime,
        graph: &'a GraphFile,
        passes: &'a [Pass],
        options: &'a SessionOptions,
    ) -> Result<Wanted<'a>> {
        let source = digest(Some(self), graph)?;
        let key = key::key(&source, runtime, passes, options);
        let folder = self.root.join(&key);
        Ok(Wanted { runtime, graph, passes, options, source, key, folder })
    }

    /// As [`GraphCache::ensure`], and makes an entry again if its small files are damaged.
    fn ensure_sound(
        &self,
        wanted: &Wanted<'_>,
        observer: &mut dyn FnMut(GraphCacheEvent<'_>),
    ) -> Result<Option<Found>> {
        let Some(found) = self.ensure(wanted, observer)? else { return Ok(None) };
        let goes_on = || !wanted.options.cancel.is_cancelled();
        if found.is_new || found.entry.damage(self.checked_first, &goes_on).is_none() {
            return Ok(Some(found));
        }
        if self.is_read_only {
            return Ok(None);
        }
        found.entry.remove()?;
        self.ensure(wanted, observer)
    }

    /// Finds or makes the entry of a graph; `None` if there is none and the folder cannot be written.
    fn ensure(&self, wanted: &Wanted<'_>, observer: &mut dyn FnMut(GraphCacheEvent<'_>)) -> Result<Option<Found>> {
        let &Wanted { graph, passes, options, ref source, ref key, ref folder, .. } = wanted;
        let existing = || CachedGraph::read(folder).map(|entry| Found { entry, is_new: false });
        if let Some(found) = existing() {
            return Ok(Some(found));
        }
        self.require_products(wanted)?;
        if let Some(problem) = self.write_problem() {
            if !self.is_told.swap(true, Ordering::Relaxed) {
                observer(GraphCacheEvent::Uncached { problem });
            }
            return Ok(None);
        }
        let _lock = lock::lock(&self.root, folder, &options.cancel, || observer(GraphCacheEvent::Waiting { folder }))?;
        if let Some(found) = existing() {
            return Ok(Some(found));
        }
        // The lock is held, so that nobody works on what is unfinished here.
        let unfinished = format!("{}{key}-", entry::UNFINISHED);
        for left in self.folders()? {
            let name = left.file_name().unwrap_or_default().to_string_lossy();
            if *name == **key || name.starts_with(&unfinished) {
                entry::remove(&left)?;
            }
        }
        let bytes = match passes.iter().find_map(|pass| pass.shallow_branch()) {
            None => graph.weight_bytes + graph.file_bytes,
            Some(branch) => rewrite::branches(graph)?.get(branch).map_or(0, |branch| branch.shallow_weights),
        };
        self.make_room(bytes)?;
        observer(GraphCacheEvent::Optimizing { bytes, folder });
        let entry = CachedGraph::new(key, graph, source, wanted.runtime, options);
        let entry = self.make(wanted, entry).inspect_err(|error| {
            if is_of_precision(error) {
                self.few_products(wanted).write(());
            }
        })?;
        // The estimate may have been short of what was written.
        self.evict_beyond_limit(Some(key))?;
        Ok(Some(Found { entry, is_new: true }))
    }

    /// Makes an entry under another name, and gives it its own when it is whole.
    fn make(&self, wanted: &Wanted<'_>, mut entry: CachedGraph) -> Result<CachedGraph> {
        let &Wanted { runtime, graph, passes, options, ref folder, .. } = wanted;
        let began = Instant::now();
        let room = tempfile::Builder::new()
            .prefix(&format!("{}{}-", entry::UNFINISHED, entry.key))
            .tempdir_in(&self.root)
            .map_err(|e| Error::io(&self.root, "writing", e))?;
        let made = room.path().join(entry::GRAPH);
        let saved = match make_with_operators(wanted, &made)? {
            Some(saved) => saved,
            None => {
                let best = SessionOptions { optimization: Optimization::All, ..options.clone() };
                let bytes = rewritten::rewritten(graph, passes, options)?;
                Session::save_optimized(runtime, &graph.path, bytes, &best, &made)?;
                files::read(&made).map_err(|e| Error::io(&made, "reading", e))?
            }
        };
        let ordered = rewrite::hoist_dequantization(&saved).unwrap_or(saved);
        let has_dynamic_shapes = passes.contains(&Pass::DynamicShapes);
        let settled = has_dynamic_shapes.then(|| rewrite::make_shapes_dynamic(&ordered)).flatten().unwrap_or(ordered);
        std::fs::write(&made, settled).map_err(|e| Error::io(&made, "writing", e))?;
        options.cancel.check()?;
        entry.seconds = began.elapsed().as_secs_f64();
        entry.write(room.path())?;
        files::rename_folder(room.path(), folder).map_err(|e| Error::io(folder, "creating the folder", e))?;
        let _ = room.keep();
        CachedGraph::read(folder).ok_or_else(|| Error::io(folder, "reading", std::io::ErrorKind::InvalidData.into()))
    }

    /// The reason why the folder, which is created, cannot be written, if it cannot.
    fn write_problem(&self) -> Option<String> {
        let reason = if self.is_read_only {
            "is opened read-only".to_owned()
        } else if let Err(error) = std::fs::create_dir_all(&self.root) {
            format!("cannot be created ({error})")
        } else if files::is_writable_folder(&self.root) {
            return None;
        } else {
            "is read-only".to_owned()
        };
        let folder = self.root.display();
        Some(format!("the graph cache in {folder} {reason}; graphs that it lacks are optimized at each start"))
    }
}
