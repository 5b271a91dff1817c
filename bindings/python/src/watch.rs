//! Calls that take long: they run on a thread of their own, while the calling thread reports events and notices Ctrl-C.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use ldm_ort::Event;
use pyo3::exceptions::{PyOSError, PyUserWarning};
use pyo3::prelude::*;

use crate::cancel::Cancel;
use crate::errors::{of_panic, to_python};
use crate::events::to_dict;

/// The time between two looks at signals and at the switch of a call.
const TICK: Duration = Duration::from_millis(20);

/// The stack of the thread, as of a program's first one.
const STACK_BYTES: usize = 8 << 20;

/// Receives events on the thread that works.
pub(crate) type Observer<'a> = dyn FnMut(Event) + Send + 'a;

/// The arguments of a call about its events and its end.
pub(crate) struct Watch {
    callback: Option<Py<PyAny>>,
    cancel: Option<Py<Cancel>>,
}

/// The calling thread's side of a call.
struct Watcher<'a> {
    watch: &'a Watch,
    /// The switch of this call alone: Ctrl-C leaves the caller's as it is.
    own: &'a ldm_ort::Cancel,
    /// True on the thread on which Python handles signals.
    has_signals: bool,
}

impl Watch {
    pub(crate) fn new(callback: Option<Py<PyAny>>, cancel: Option<Py<Cancel>>) -> Self {
        Self { callback, cancel }
    }

    /// Runs `work` without the GIL. An exception of the callback, of a signal's handler or of a warning stops it and is
    /// raised; a panic is raised as RuntimeError.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&ldm_ort::Cancel, &mut Observer<'_>) -> ldm_ort::Result<T> + Send,
    ) -> PyResult<T> {
        let own = ldm_ort::Cancel::new();
        let watcher = Watcher { watch: self, own: &own, has_signals: is_main_thread(py)? };
        // A run may be shorter than a tick.
        watcher.look_at_switch();
        let (events, received) = sync_channel(0);
        let (answer, answers) = sync_channel(0);
        let reports_all = self.callback.is_some();
        // Ends when the event was handled, so that a callback sees the run as it is and ends it within its step.
        let observe = move |event: Event| {
            let is_reported = reports_all || matches!(event, Event::Warning { .. });
            if is_reported && SyncSender::send(&events, event).is_ok() {
                // The calling thread does not listen any more: the run ends soon.
                let _ = Receiver::<()>::recv(&answers);
            }
        };
        let switch = &own;
        let work = move || work(switch, &mut { observe });
        py.detach(|| {
            thread::scope(|scope| {
                let worker = thread::Builder::new().name("ldm-ort".to_owned()).stack_size(STACK_BYTES);
                let worker = worker.spawn_scoped(scope, work).map_err(|error| PyOSError::new_err(error.to_string()))?;
                let stopped = watcher.listen(received, &answer);
                if stopped.is_err() {
                    own.cancel();
                    drop(answer);
                }
                let result = worker.join().map_err(|panic| of_panic(&*panic))?;
                stopped?;
                result.map_err(|error| to_python(&error))
            })
        })
    }
}

impl Watcher<'_> {
    /// Reports events until the worker is done.
    fn listen(&self, received: Receiver<Event>, answer: &SyncSender<()>) -> PyResult<()> {
        loop {
            match received.recv_timeout(TICK) {
                Ok(event) => {
                    Python::attach(|py| self.report(py, event))?;
                    self.look_at_switch();
                    let _ = answer.send(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.look_at_switch();
                    if self.has_signals {
                        Python::attach(|py| py.check_signals())?;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn look_at_switch(&self) {
        if self.watch.cancel.as_ref().is_some_and(|cancel| cancel.get().is_thrown()) {
            self.own.cancel();
        }
    }

    fn report(&self, py: Python<'_>, event: Event) -> PyResult<()> {
        match (&self.watch.callback, event) {
            (Some(callback), event) => drop(callback.call1(py, (to_dict(py, event)?,))?),
            (None, Event::Warning { text }) => {
                let text = std::ffi::CString::new(text.replace('\0', " "))?;
                PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 3)?;
            }
            (None, _) => {}
        }
        py.check_signals()
    }
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    threading.call_method0("get_ident")?.eq(main)
}
