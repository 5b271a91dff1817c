//! Threads that do not panic if the system refuses to start them.
//!
//! Control groups and `ulimit -u` limit the number of threads, and `std::thread::spawn` panics at the limit.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Runs work on another thread, or immediately if none can be started.
pub(crate) fn background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> BackgroundTask<T> {
    background_in(Builder::new().name(name.to_owned()), work)
}

fn background_in<T: Send + 'static>(builder: Builder, work: impl FnOnce() -> T + Send + 'static) -> BackgroundTask<T> {
    // A thread that fails to start drops its closure, so the work is shared with the fallback.
    let work = Arc::new(Mutex::new(Some(work)));
    let result = Arc::new(Mutex::new(None));
    let job = {
        let (work, result) = (Arc::clone(&work), Arc::clone(&result));
        move || {
            let work = lock(&work).take();
            *lock(&result) = work.map(|work| work());
        }
    };
    let thread = builder.spawn(job.clone()).map_err(|_| job()).ok();
    BackgroundTask { thread, result }
}

/// Work on another thread.
pub(crate) struct BackgroundTask<T> {
    thread: Option<JoinHandle<()>>,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> BackgroundTask<T> {
    /// Waits for the result.
    ///
    /// # Errors
    /// [`Error::Io`] if the work panicked.
    pub(crate) fn join(self) -> Result<T> {
        let ended = self.thread.map_or(Ok(()), JoinHandle::join);
        let panicked = || Error::io("a background thread", "working", std::io::Error::other("it panicked"));
        lock(&self.result).take().filter(|_| ended.is_ok()).ok_or_else(panicked)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs work whose rayon iterators use all CPUs, or this thread alone if no others can be started.
pub(crate) fn parallel<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    parallel_in(
        POOL.get_or_init(|| ThreadPoolBuilder::new().thread_name(|_| "ldm-ort".to_owned()).build().ok()).as_ref(),
        work,
    )
}

fn parallel_in<T: Send>(pool: Option<&ThreadPool>, work: impl FnOnce() -> T + Send) -> T {
    match pool {
        Some(pool) => pool.install(work),
        None => {
            // Fails if this thread is already in a pool, which then runs the work.
            let _own = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
            work()
        }
    }
}

/// Starts a thread of a scope.
///
/// # Errors
/// [`Error::Io`] if the system refuses.
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, work).map_err(|e| not_started(name, e))
}

/// Starts a thread.
///
/// # Errors
/// [`Error::Io`] if the system refuses.
#[cfg(feature = "fetch")]
pub(crate) fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(|e| not_started(name, e))
}

fn not_started(name: &str, error: std::io::Error) -> Error {
    Error::io(format!("the thread {name:?}"), "starting", error)
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    /// A thread whose stack is too large for any system.
    fn refused() -> Builder {
        Builder::new().stack_size(1 << 46)
    }

    #[test]
    fn work_runs_without_threads() {
        assert!(refused().spawn(|| ()).is_err());
        assert_eq!(background_in(refused(), || 7).join().unwrap(), 7);
        assert_eq!(background("seven", || 7).join().unwrap(), 7);
        let caller = std::thread::current().id();
        let sum = || (0..100).into_par_iter().map(|n| (n, std::thread::current().id())).collect::<Vec<_>>();
        for _ in 0..2 {
            let all = parallel_in(None, sum);
            assert!(all.iter().all(|(_, thread)| *thread == caller));
            assert_eq!(all.iter().map(|(n, _)| n).sum::<i32>(), 4950);
        }
        assert_eq!(parallel(|| (0..100).into_par_iter().sum::<i32>()), 4950);
    }
}
