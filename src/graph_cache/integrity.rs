//! The check, in the background, that optimized graphs are still what was written.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::entry::{CachedGraph, DamagedFile};
use crate::error::Result;
use crate::session::Cancel;

/// Checks optimized graphs in a thread of its own, each of them once.
#[derive(Debug, Default)]
pub(super) struct Integrity {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The entries that were handed over, as they were then.
    known: HashSet<(PathBuf, String)>,
    waiting: VecDeque<CachedGraph>,
    /// True while the thread runs.
    is_working: bool,
    /// Damage in entries that have not been made again since.
    damaged: Vec<DamagedFile>,
    /// The number of damaged files found so far.
    found: usize,
}

impl Integrity {
    /// Takes note that an entry was opened that this process has just made, in place of one that may have been damaged.
    pub(super) fn made_again(&self, entry: &CachedGraph) {
        self.lock().damaged.retain(|damaged| !damaged.path.starts_with(entry.folder()));
    }

    /// The number of damaged files found so far.
    pub(super) fn found(&self) -> usize {
        self.lock().found
    }

    /// Checks an entry that was opened, if that has not been done.
    pub(super) fn check_later(this: &Arc<Self>, entry: &CachedGraph) {
        let mut state = this.lock();
        if !state.known.insert((entry.folder().to_path_buf(), entry.identity())) {
            return;
        }
        state.damaged.retain(|damaged| !damaged.path.starts_with(entry.folder()));
        state.waiting.push_back(entry.clone());
        if !state.is_working {
            let whole = Arc::downgrade(this);
            let thread = std::thread::Builder::new().name("graph check".to_owned()).spawn(move || work(&whole));
            state.is_working = thread.is_ok();
        }
    }

    /// Waits until all that was handed over is checked.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming a damaged file, [`Error::Interrupted`](crate::Error::Interrupted).
    pub(super) fn wait(&self, cancel: &Cancel) -> Result<()> {
        let mut state = self.lock();
        loop {
            if let Some(damaged) = state.damaged.first() {
                return Err(damaged.error());
            }
            match state.waiting.pop_front() {
                // No thread could be started.
                Some(entry) if !state.is_working => {
                    drop(state);
                    let found = check(&entry, &|| !cancel.is_cancelled());
                    state = self.lock();
                    state.add(found);
                }
                Some(entry) => state.waiting.push_front(entry),
                None if !state.is_working => return Ok(()),
                None => {}
            }
            cancel.check()?;
            if state.is_working {
                let waited = self.changed.wait_timeout(state, Duration::from_millis(100));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, damaged: Option<DamagedFile>) {
        self.found += usize::from(damaged.is_some());
        self.damaged.extend(damaged);
    }
}

/// Checks what waits until nothing does, or nobody is left who would ask.
fn work(whole: &Weak<Integrity>) {
    while let Some(this) = whole.upgrade() {
        let next = {
            let mut state = this.lock();
            let next = state.waiting.pop_front();
            state.is_working = next.is_some();
            next
        };
        let Some(entry) = next else {
            this.changed.notify_all();
            return;
        };
        drop(this);
        let found = check(&entry, &|| whole.strong_count() > 0);
        let Some(this) = whole.upgrade() else { return };
        this.lock().add(found);
        this.changed.notify_all();
    }
}

/// Checks an entry, and drops it if it is damaged, so that the next run makes it again.
fn check(entry: &CachedGraph, goes_on: &dyn Fn() -> bool) -> Option<DamagedFile> {
    let damaged = entry.damage(u64::MAX, goes_on)?;
    // Its files may be mapped, here or by another process.
    let is_dropped = entry.invalidate().is_ok();
    Some(DamagedFile { is_dropped, ..damaged })
}
