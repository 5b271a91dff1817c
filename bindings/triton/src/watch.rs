//! Cancelling a run when its clients have gone.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::fault::{Answer, Fault};
use crate::library::Run;
use crate::server::{Object, get, server};

/// The time between two looks at the requests.
const INTERVAL: Duration = Duration::from_millis(10);

/// The requests of a run.
#[derive(Clone, Copy)]
struct Watched<'r>(&'r [*mut Object]);

// SAFETY: the server answers `RequestIsCancelled` on any thread until a request is released, which is after its run.
unsafe impl Send for Watched<'_> {}

impl Watched<'_> {
    fn are_cancelled(self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|request| is_cancelled(*request))
    }
}

/// Returns true if the client of a request, which is not released, has cancelled it or has gone.
fn is_cancelled(request: *mut Object) -> bool {
    // SAFETY: the request is not released, the result may be written.
    get(false, |result| unsafe { (server().request_is_cancelled)(request, result) }).unwrap_or(false)
}

/// Makes a call that `run` can cancel, and cancels it once all its requests are cancelled.
///
/// # Errors
/// [`Fault::cancelled`] if they are already, and an unavailable resource if no thread can be started.
pub(crate) fn watched<T>(run: &Run, requests: &[*mut Object], call: impl FnOnce() -> Answer<T>) -> Answer<T> {
    let requests = Watched(requests);
    if requests.are_cancelled() {
        return Err(Fault::cancelled());
    }
    std::thread::scope(|scope| {
        let (stop, is_stopped) = channel::<()>();
        let watch = move || {
            let requests = requests;
            while is_stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if requests.are_cancelled() {
                    return run.cancel();
                }
            }
        };
        let watcher = std::thread::Builder::new().name("ldm-ort-cancel".to_owned()).spawn_scoped(scope, watch);
        watcher.map_err(|error| Fault::unavailable(format!("no thread for cancelling: {error}")))?;
        let result = call();
        drop(stop);
        result
    })
}
