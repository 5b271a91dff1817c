//! Ctrl-C.

use crate::error::{Error, Result};
use crate::session::Cancel;

/// Turns Ctrl-C into an orderly stop: the first one stops the run within an operator of its graph, a second one ends
/// the process at once.
#[derive(Clone, Default)]
pub struct Interrupt {
    cancel: Cancel,
}

impl Interrupt {
    /// Takes over the process's handling of Ctrl-C (and of the signal to terminate, where the system has one).
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses a handler.
    pub fn install() -> Result<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            if handler.cancel.is_cancelled() {
                std::process::exit(130);
            }
            handler.cancel.cancel();
        })
        .map_err(|e| {
            let cause = match e {
                ctrlc::Error::System(cause) => cause,
                other => std::io::Error::other(other),
            };
            Error::io("Ctrl-C", "taking over", cause)
        })?;
        Ok(interrupt)
    }

    /// Is thrown by the first Ctrl-C.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}
