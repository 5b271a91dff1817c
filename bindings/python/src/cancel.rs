//! Switches that stop runs.

use pyo3::prelude::*;

use crate::errors::not_picklable;

/// A switch that stops a call from another thread: `pipe(…, cancel=switch)` raises `Cancelled` once `switch.cancel()` was
/// called. It stays cancelled; make a new one for the next call.
#[pyclass(frozen, module = "ldm_ort")]
#[derive(Default)]
pub(crate) struct Cancel(ldm_ort::Cancel);

impl Cancel {
    pub(crate) fn is_thrown(&self) -> bool {
        self.0.is_cancelled()
    }
}

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Stops the calls that this switch was given to, and every later one. From any thread.
    fn cancel(&self) {
        self.0.cancel();
    }

    /// True once `cancel` was called.
    #[getter]
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    fn __repr__(&self) -> String {
        format!("<ldm_ort.Cancel {}>", if self.is_thrown() { "cancelled" } else { "not cancelled" })
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Cancel", "it stops calls of its own process; send that process a message instead"))
    }
}
