//! Runs that are cancelled.

use super::event::{ExecutionEvent, Observer};
use crate::error::{Error, Result, StepPosition};
use crate::session::Cancel;

/// Reports an event, and ends the run if it is cancelled by then.
pub(super) fn report(observer: &mut Observer<'_>, cancel: &Cancel, event: ExecutionEvent<'_>) -> Result<()> {
    observer(event);
    cancel.check()
}

/// Adds the images of a batch to the error of its interruption.
pub(super) fn of_images(error: Error, first_image: usize, total_images: usize) -> Error {
    match error {
        Error::Interrupted { at_step: Some(at) } => {
            Error::Interrupted { at_step: Some(StepPosition { first_image, total_images, ..at }) }
        }
        error => error,
    }
}
