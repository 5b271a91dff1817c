//! Stops runs from another thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use ort::session::RunOptions;

use crate::error::{Error, Result};

/// A switch that stops runs. All clones share its state.
///
/// ONNX Runtime checks it between the nodes of a graph, so a run ends within the time of one node. Cancelling is
/// permanent: every later run with this switch ends at once with [`Error::Interrupted`].
#[derive(Clone, Default)]
pub struct Cancel(Arc<State>);

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

#[derive(Default)]
struct State {
    cancelled: AtomicBool,
    running: Mutex<Running>,
}

/// The operations in progress, each with a unique number.
#[derive(Default)]
struct Running {
    next_id: u64,
    entries: Vec<(u64, Stoppable)>,
}

/// An operation in progress that [`Cancel::cancel`] can end.
#[derive(Clone)]
enum Stoppable {
    Run(Arc<RunOptions>),
    Open(ort::session::builder::LoadCanceler),
}

impl Stoppable {
    fn stop(&self) {
        // Both only set a flag in a live object. If that fails, nothing can be done about it.
        let _ = match self {
            Self::Run(options) => options.terminate(),
            Self::Open(canceler) => canceler.cancel(),
        };
    }
}

impl Cancel {
    /// Creates a switch that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops every run in progress that uses this switch, and every later one. Waits for no lock and allocates nothing, so
    /// that a signal handler can call it.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        self.stop_all();
    }

    /// Stops the operations in progress. Whoever holds the lock meanwhile calls this once it has released it.
    fn stop_all(&self) {
        let running = match self.0.running.try_lock() {
            Ok(running) => running,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        running.entries.iter().for_each(|(_, stoppable)| stoppable.stop());
    }

    /// Changes the list of operations in progress, and stops them if that was asked for while it was locked.
    fn change<T>(&self, change: impl FnOnce(&mut Running) -> T) -> T {
        let changed = change(&mut self.0.running.lock().unwrap_or_else(PoisonError::into_inner));
        if self.is_cancelled() {
            self.stop_all();
        }
        changed
    }

    /// Returns true once [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Ends the caller's work once [`Cancel::cancel`] was called.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if it was.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Interrupted { at_step: None }) } else { Ok(()) }
    }

    /// Calls `run`; [`Cancel::cancel`] stops it through `options`.
    pub(super) fn during_run<T>(&self, options: &Arc<RunOptions>, run: impl FnOnce() -> T) -> T {
        self.during(Stoppable::Run(Arc::clone(options)), run)
    }

    /// Calls `open`; [`Cancel::cancel`] stops it through `canceler`.
    pub(super) fn during_open<T>(&self, canceler: ort::session::builder::LoadCanceler, open: impl FnOnce() -> T) -> T {
        self.during(Stoppable::Open(canceler), open)
    }

    fn during<T>(&self, stoppable: Stoppable, work: impl FnOnce() -> T) -> T {
        /// Removes the entry on drop, also if `work` panics.
        struct Registration<'a>(&'a Cancel, u64);
        impl Drop for Registration<'_> {
            fn drop(&mut self) {
                // Dropped without the lock.
                let removed = self.0.change(|running| {
                    let at = running.entries.iter().position(|(id, _)| *id == self.1);
                    at.map(|at| running.entries.swap_remove(at))
                });
                drop(removed);
            }
        }
        let id = self.change(|running| {
            running.next_id += 1;
            running.entries.push((running.next_id, stoppable));
            running.next_id
        });
        let registered = Registration(self, id);
        let result = work();
        drop(registered);
        result
    }
}
