//! Runs that are stopped.

use std::ops::ControlFlow;

use crate::error::{Error, Result, StepPosition};

/// Ends a run that its observer stops.
pub(super) fn stop_if(flow: ControlFlow<()>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted { at_step: None }),
    }
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
