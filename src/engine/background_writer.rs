//! Work that is done in a thread of its own while that which makes more of it goes on.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::session::Cancel;
use crate::threads;

/// The number of jobs that may wait. Handing over one more blocks until there is room.
const WAITING: usize = 4;

/// A thread that does jobs in the order in which they are handed over. It ends with the first that fails, and cancels the work
/// that makes more of them.
pub(crate) struct BackgroundWriter<'scope, T> {
    jobs: SyncSender<T>,
    thread: ScopedJoinHandle<'scope, Result<()>>,
    waited: Duration,
    cancel: Cancel,
}

impl<'scope, T: Send + 'scope> BackgroundWriter<'scope, T> {
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the thread can't be started.
    pub(crate) fn begin(
        scope: &'scope Scope<'scope, '_>,
        cancel: &Cancel,
        work: impl FnMut(T) -> Result<()> + Send + 'scope,
    ) -> Result<Self> {
        let (jobs, queue) = sync_channel(WAITING);
        let failed = cancel.clone();
        let work = move || queue.into_iter().try_for_each(work).inspect_err(|_| failed.cancel());
        let thread = threads::spawn_scoped(scope, "image writer", work)?;
        Ok(Self { jobs, thread, waited: Duration::ZERO, cancel: cancel.clone() })
    }

    /// Hands over a job, which is dropped if one before it has failed.
    pub(crate) fn hand(&mut self, job: T) {
        let began = Instant::now();
        if self.jobs.send(job).is_err() {
            // The thread is over, be it by a panic.
            self.cancel.cancel();
        }
        self.waited += began.elapsed();
    }

    /// Waits until all jobs are done, and returns how long they were waited for in all.
    ///
    /// # Errors
    /// The error of the first job that failed.
    pub(crate) fn finish(self) -> Result<Duration> {
        let began = Instant::now();
        drop(self.jobs);
        let done = self.thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        done.map(|()| self.waited + began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    /// Twenty jobs, done slowly; what was done, and the most that ever waited.
    fn slowly(fails_at: Option<usize>) -> (Vec<usize>, usize, usize, Result<Duration>) {
        let (mut done, begun) = (Vec::new(), AtomicUsize::new(0));
        let (mut handed, mut most) = (0, 0);
        let finished = std::thread::scope(|scope| {
            let work = |job| {
                begun.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                if Some(job) == fails_at {
                    return Err(Error::input("job", job.to_string(), ""));
                }
                done.push(job);
                Ok(())
            };
            let cancel = Cancel::new();
            let mut behind = BackgroundWriter::begin(scope, &cancel, work).expect("a thread");
            for job in 0..20 {
                behind.hand(job);
                if cancel.is_cancelled() {
                    break;
                }
                handed += 1;
                most = most.max(handed - begun.load(Ordering::SeqCst).min(handed));
            }
            behind.finish()
        });
        (done, handed, most, finished)
    }

    #[test]
    fn jobs_are_done_in_order_and_few_wait() {
        let (done, handed, most, finished) = slowly(None);
        assert_eq!((done, handed), ((0..20).collect(), 20));
        // One more than wait is taken out of the queue before it is counted as begun.
        assert!((1..=WAITING + 1).contains(&most), "{most} waited");
        // The maker was held up for about as long as fifteen jobs take.
        assert!(finished.expect("no job failed") > Duration::from_millis(20));
    }

    #[test]
    fn what_fails_is_the_last_and_is_told() {
        let (done, handed, _, finished) = slowly(Some(7));
        assert_eq!(done, (0..7).collect::<Vec<_>>());
        assert!(handed <= 8 + WAITING, "{handed} were taken");
        assert!(finished.expect_err("the eighth failed").to_string().contains("job: 7"));
    }

    #[test]
    fn who_hands_over_nothing_learns_of_a_failure_too() {
        std::thread::scope(|scope| {
            let cancel = Cancel::new();
            let fails = |()| Err(Error::input("job", "none", ""));
            let mut behind = BackgroundWriter::begin(scope, &cancel, fails).expect("a thread");
            assert!(!cancel.is_cancelled());
            behind.hand(());
            while !cancel.is_cancelled() {
                std::thread::yield_now();
            }
            assert!(behind.finish().is_err());
        });
    }
}
